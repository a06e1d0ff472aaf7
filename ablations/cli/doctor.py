"""`trans4init doctor`: print what this machine has, what will be used, and what is missing."""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Doctor"]


@dataclass(frozen=True)
class Doctor:
    """Say what this machine has, what will be used, and what is missing."""

    def run(self, command: str) -> int:
        """Print a table."""
        from rich.table import Table

        from trans4init.ablations.console import plain_console

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        for what, finding in _findings():
            table.add_row(what, finding)
        plain_console().print(table)
        return 0


def _findings() -> Iterator[tuple[str, str]]:
    """Yield what was looked at, and what was found."""
    import importlib.util
    import os
    import shutil

    import torch

    from trans4init.ablations.data.datasets import DATASETS, FOLDER_VARIABLE
    from trans4init.kernels.polyline import native_refusal
    from trans4init.reports.machine import capture

    environment = capture()
    yield "python", f"{environment.python} on {environment.system}"
    yield "processor", f"{environment.processor}, {environment.cores} cores, {environment.memory_gib} GiB"
    if torch.cuda.is_available():
        yield "accelerator", f"{torch.cuda.get_device_name()}: used, one run at a time"
    else:
        yield "accelerator", f"none that torch can use: a study has {environment.cores} processes on the CPU"
    for package, version in environment.versions.items():
        yield package, version
    if "triton" not in environment.versions:
        yield "triton", "not installed (it exists for Linux only)"
    for package, extra in (("ray", "cluster"), ("optuna_dashboard", "dashboard"), ("psycopg", "postgres")):
        there = importlib.util.find_spec(package) is not None
        yield package, "installed" if there else f"not installed; optional: pip install 'trans4init[{extra}]'"
    refusal = native_refusal()
    yield (
        "folded nets of reals",
        "one pass in C, on a CPU" if refusal is None else f"vectorised sums, on a CPU: {refusal}",
    )
    folder = os.environ.get(FOLDER_VARIABLE)
    yield FOLDER_VARIABLE, folder or "not set: public data sets are downloaded when a study needs them"
    files: dict[str, list[str]] = {}
    for name in DATASETS:
        files.setdefault(name.split("/")[0], []).append(name)
    for name, paths in files.items():
        here = folder is not None and all(os.path.isfile(os.path.join(folder, path)) for path in paths)
        yield f"data {name}", "in that folder" if here else "not in a folder: downloaded when a study needs it"
    yield "free disk here", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB"
