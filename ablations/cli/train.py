"""`trans4init train`: train a model on a task, or continue an interrupted run."""

import os
import signal
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from trans4init.ablations.cli.stopping import SIGNALS

if TYPE_CHECKING:
    from rich.console import Console

    from trans4init.ablations.training.distributed import Team
    from trans4init.ablations.training.recipe import Recipe
    from trans4init.ablations.training.run import Outcome
    from trans4init.reports.records.schema import Measurement

__all__ = ["Train"]


@dataclass(frozen=True)
class Train:
    """Train a model on a task, or continue from the last checkpoint, with the result of an uninterrupted run.

    With several processes: torchrun --nproc-per-node 2 --no-python trans4init train TASK
    """

    task: Positional[str]
    """The name of a task (trans4init ls tasks) or of a recipe (trans4init ls recipes), or the path of a TOML file."""
    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the recipe's model)")] = None
    """A named model size instead of the recipe's: toy, nano, base, gpt2-small or vit-tiny."""
    steps: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Number of training steps; each updates the weights once."""
    seed: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the recipe's)")] = None
    """Seed of the model's start, of the order of the data and of dropout."""
    data: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: the recipe's)")] = None
    """A file to train on: a text for task text, a .csv or .tsv file for task classification."""
    text_column: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: text)")] = None
    """The column of --data with the texts."""
    label_column: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: label)")] = None
    """The column of --data with the classes."""
    delimiter: Annotated[str | None, arg(metavar="D", help_behavior_hint="(default: found out)")] = None
    """What is between the fields of --data: a character, or comma, tab, semicolon, bar."""
    quote: Annotated[str | None, arg(metavar="Q", help_behavior_hint="(default: found out)")] = None
    """What encloses fields of --data: a character, or none."""
    set: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable)")
    ] = ()
    """Any other key of the recipe, such as training.learning_rate=3e-4 or model.position=rope."""
    device: Annotated[str | None, arg(metavar="D", help_behavior_hint="(default: a GPU, else the CPU)")] = None
    """The device to use, as torch calls it: cpu, cuda:1, mps."""
    allow_code: bool = False
    """Run code that the recipe names (FILE.py:NAME) where it is neither beside the recipe nor below it."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/train/TASK)")] = None
    """The folder to write the run to."""

    def run(self, command: str) -> int:
        """Train and test the model, and print the test."""
        import sys

        from trans4init.ablations.code_policy import code_policy

        with code_policy(allowed=self.allow_code, say=print):
            recipe = self._recipe()  # before torch is imported, so that mistakes are answered at once
        from trans4init.ablations.console import plain_console
        from trans4init.ablations.device import use_device
        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.ablations.lock import held
        from trans4init.ablations.slots.contents import OutsideDomainError
        from trans4init.ablations.training.distributed import joined_team
        from trans4init.ablations.training.loop import DivergedError, StoppedError
        from trans4init.reports.files import remove_leftovers

        if self.device is not None:
            use_device(self.device)
        folder = self.out or Path("runs") / "train" / Path(self.task).stem
        with (
            joined_team() as team,
            _Stop(team) as stop,
            held(folder) if team.leads else nullcontext(),
        ):
            if team.leads:
                remove_leftovers(folder)
            console = plain_console(quiet=not team.leads)
            launcher = f"torchrun --nproc-per-node {team.size} --no-python " if team.size > 1 else ""
            try:
                outcome = _train(recipe, folder, team, console, stop)
            except StoppedError as stopped:
                if team.leads:
                    print(f"Stopped after step {stopped.step}; to continue: {launcher}{command}", file=sys.stderr)
                return 128 + (stop.number or signal.SIGINT)  # another process of the team may have had it
            except DivergedError as error:
                raise FaultError(f"{error}; try a lower training.learning_rate.") from error
            except OutsideDomainError as error:
                raise InputError(
                    f"the model has no positions for what is tested: {error}; try a larger model.context."
                ) from None
            except OSError as error:
                raise FaultError(f"the run can't be written to {folder}: {error.strerror}.") from error
        if team.leads:
            _show(outcome, folder, console)
        return 0

    def _recipe(self) -> "Recipe":
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.settings.memory import check_memory
        from trans4init.ablations.settings.model import TransformerConfig
        from trans4init.ablations.training.recipe import load_recipe

        changes: dict[str, Any] = {}
        if self.preset is not None:
            sizes = TransformerConfig.preset(self.preset).model_dump(exclude_unset=True)
            named = load_recipe(self.task).model.model_dump(exclude_unset=True)
            by_data = {key: value for key, value in named.items() if key in _BY_DATA}
            changes["model"] = {key: value for key, value in sizes.items() if key != "vocabulary"} | by_data
        options = {"training.steps": self.steps, "seed": self.seed, "task.text_column": self.text_column}
        options |= {"task.label_column": self.label_column}
        options |= {"task.delimiter": self.delimiter, "task.quote": self.quote}
        options |= {"task.source": None if self.data is None else str(self.data)}
        changes |= {key: value for key, value in options.items() if value is not None}
        for words in chain.from_iterable(self.set):
            key, equals, value = words.partition("=")
            if not equals:
                raise InputError(f"--set takes KEY=VALUE, such as training.batch=32, not {words!r}.")
            changes[key] = _value(value)
        recipe = load_recipe(self.task, changes)
        check_memory(recipe.model, recipe.training)
        return recipe


_BY_DATA = ("kind", "image_size", "patch", "channels", "classes")
"""Keys of a recipe's model that a preset, which is only a size, leaves as they are."""


def _value(text: str) -> Any:
    """Read a value as TOML does; a word needs no quotes."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


class _Stop:
    """Whether to stop: called after each step. Within, it notes a first Ctrl-C or SIGTERM; a second one stops at once.

    So does the first before there was a step: then there is nothing to keep. A team's processes wait for each other.
    """

    number = 0
    """The number of the signal; 0 while there was none."""

    def __init__(self, team: "Team") -> None:
        self._team, self._began = team, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        self._began = True
        return self.number != 0

    def _note(self, number: int, frame: object) -> None:
        self.__exit__()
        if not self._began and self._team.size == 1:
            signal.raise_signal(number)
        self.number = number
        if self._team.leads:
            with suppress(OSError):  # print may fail in a handler
                os.write(2, b"Stopping after this step; Ctrl-C once more stops at once.\n")


def _train(recipe: "Recipe", folder: Path, team: Any, console: "Console", stop: Any) -> "Outcome":
    """Train, with a progress bar on a terminal and a line at each evaluation."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from trans4init.ablations.data.classification import ClassificationConfig, left_out
    from trans4init.ablations.training.run import train_recipe

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    steps = recipe.training.steps
    shown = bar.add_task("training", total=steps, loss=float("nan"))
    if isinstance(recipe.task, ClassificationConfig) and (sentence := left_out(recipe.task)):
        console.print(sentence, soft_wrap=True)
    console.print(f"{recipe.task}; {recipe.model}; {recipe.training}; in {folder}", soft_wrap=True)

    def measured(step: int, found: "list[Measurement]", seconds: float) -> None:
        text = ", ".join(_words(measurement) for measurement in _of_interest(found))
        console.print(f"step {step} of {steps}, {seconds:.0f} s: {text}", soft_wrap=True)

    with bar:
        return train_recipe(
            recipe,
            folder,
            team=team,
            on_progress=lambda step, loss: bar.update(shown, completed=step, loss=loss),
            on_measured=measured,
            stop=stop,
        )


def _of_interest(found: "list[Measurement]") -> "list[Measurement]":
    """Return the latest measurement of each metric, without gradient norms and groups."""
    return list({m.metric.name: m for m in found if "/" not in m.metric.name}.values())


def _words(measurement: "Measurement") -> str:
    value = "missing" if measurement.value is None else f"{measurement.value:.4g}"
    return f"{measurement.metric.name.replace('_', ' ')} {value}"


def _show(outcome: "Outcome", folder: Path, console: "Console") -> None:
    """Print the test of the best model as a table, and the paths."""
    from rich.table import Table

    progress = outcome.progress
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for title in (f"test of step {progress.best_step}", "value", "unit"):
        table.add_column(title, justify="right" if title == "value" else "left")
    last = [m for m in progress.found if m.metric.name.startswith("grok")]
    for measurement in [*outcome.tested, *last]:
        value = "missing" if measurement.value is None else f"{measurement.value:.4f}"
        table.add_row(measurement.metric.name.replace("_", " "), value, measurement.metric.unit)
    console.print(table)
    console.print(f"{outcome.parameters:,} parameters")
    for path in (folder / "best.safetensors", outcome.record):
        console.print(str(path), soft_wrap=True)
