"""The commands, for tyro: a union of classes, each a command named after its class."""

from typing import Annotated

import tyro

from trans4init.ablations.cli.bench import Bench
from trans4init.ablations.cli.doctor import Doctor
from trans4init.ablations.cli.fit import Fit
from trans4init.ablations.cli.generate import Generate
from trans4init.ablations.cli.ls import Ls
from trans4init.ablations.cli.pack import Pack
from trans4init.ablations.cli.report import Report
from trans4init.ablations.cli.reproduce import Reproduce
from trans4init.ablations.cli.run import Run
from trans4init.ablations.cli.sync import Sync
from trans4init.ablations.cli.train import Train
from trans4init.ablations.cli.translate import Translate
from trans4init.ablations.cli.ui import Ui

__all__ = ["Command"]

Command = Annotated[
    Ls | Fit | Run | Report | Train | Translate | Generate | Bench | Pack | Sync | Reproduce | Ui | Doctor,
    tyro.conf.AvoidSubcommands,
]
