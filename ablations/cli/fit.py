"""`trans4init fit`: fit a net to a function, and show how well it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from trans4init.ablations.fidelity import Fidelity
    from trans4init.ablations.fit import Fitted, OnStep

__all__ = ["Fit", "fidelity_table"]


@dataclass(frozen=True)
class Fit:
    """Fit a net to a function alone: a table of errors, a checkpoint, a Parquet record.

    With --all, fit every net in several sizes, to one function or to all of them, beside the published approximations:
    a page with the errors against the parameters. What is there already is not fitted again.
    """

    function: Positional[
        Annotated[str | None, arg(metavar="FUNCTION", help_behavior_hint="(may be left out with --all)")]
    ] = None
    """A function's name (trans4init ls functions), or my/file.py:name."""
    all: Annotated[bool, arg(help_behavior_hint="")] = False
    """Make the atlas: every net and size; of every function where none is named."""
    net: str = "fourier-mlp"
    """A net's name (trans4init ls nets)."""
    positions: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the function's domain)")] = None
    """Fit positions 0 to N - 1."""
    width: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the function's)")] = None
    """The width of a positional encoding."""
    hidden: Annotated[tuple[int, ...], arg(metavar="N ...", help_behavior_hint="(default: the net's)")] = ()
    """The net's hidden widths."""
    steps: int = 3000
    """Steps of Adam, before the last layer is solved for."""
    seed: int = 0
    """The same seed gives the same bits."""
    out: Path = Path("runs/fit")
    """The folder for checkpoints/ and results/."""

    def run(self, command: str) -> int:
        """Fit, print, keep."""
        from rich.console import Console

        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.ablations.fit_records import keep

        console = Console()
        if self.all:
            return self._atlas(console)
        if self.function is None:
            raise InputError("fit needs a function's name, or --all (trans4init ls functions).")
        fitted = self._fit(console)
        console.print(fidelity_table(fitted.fidelity, title=f"{fitted.net.name} → {fitted.function.name}"))
        try:
            kept = keep(fitted, self.steps, self.out)
        except OSError as error:
            raise FaultError(f"the fit can't be kept in {self.out}: {error.strerror}.") from error
        for path in kept:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)
        return 0

    def _atlas(self, console: "Console") -> int:
        from rich.progress import track

        from trans4init.ablations.atlas import entries, make
        from trans4init.ablations.errors import FaultError
        from trans4init.reports.atlas import write_atlas

        plan = entries(self.function)
        counts = {"made": 0, "found": 0, "diverged": 0}
        try:
            for _, outcome in track(make(self.out, plan), "fitting", len(plan), console=console, transient=True):
                counts[outcome] += 1
            page = write_atlas(self.out)
        except OSError as error:
            raise FaultError(f"the atlas can't be kept in {self.out}: {error.strerror}.") from error
        console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()), highlight=False)
        console.print(str(page), markup=False, highlight=False, soft_wrap=True)
        return 0

    def _fit(self, console: "Console") -> "Fitted":
        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.ablations.fit import FitDivergedError, fit
        from trans4init.ablations.functions import Domain, get_function

        assert self.function is not None  # `run` has seen to it
        function = get_function(self.function)
        if self.positions is not None and not function.domain.integer:
            raise InputError(
                f"{self.function} is a function of the reals {function.domain}: --positions doesn't apply."
            )
        if self.positions is not None and self.positions < 1:
            raise InputError(f"--positions must be at least 1, and {self.positions} was given.")
        if self.width is not None and "width" not in function.default_shape:
            raise InputError(f"{self.function} has no width.")
        with _progress(console, f"fitting {self.net} to {self.function}", self.steps) as on_step:
            try:
                return fit(
                    self.function,
                    self.net,
                    seed=self.seed,
                    domain=Domain(0, self.positions - 1, integer=True) if self.positions else None,
                    size={"hidden": self.hidden} if self.hidden else None,
                    steps=self.steps,
                    on_step=on_step,
                    density=None,
                    **({"width": self.width} if self.width is not None else {}),
                )
            except FitDivergedError as error:
                raise FaultError(f"{error}; another --seed or fewer --steps may do.") from error


@contextmanager
def _progress(console: "Console", title: str, steps: int) -> Iterator["OnStep"]:
    """A bar on a terminal from the first step on; a line at each quarter elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.2e}"))
    bar = Progress(*columns, console=console, transient=True)
    told = 0

    def on_step(step: int, loss: float) -> None:
        nonlocal told
        if console.is_terminal:
            bar.start()
            if not bar.tasks:
                bar.add_task(title, total=steps, loss=loss)
            bar.update(bar.task_ids[0], completed=step + 1, loss=loss)
        elif 4 * step // steps > told:
            told = 4 * step // steps
            console.print(f"{title}: step {step} of {steps}, loss {loss:.2e}", highlight=False)

    try:
        yield on_step
    finally:
        if bar.tasks:
            bar.stop()


def fidelity_table(fidelity: "Fidelity", title: str) -> "Table":
    """Errors by region, then what the net costs."""
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold"
    )
    for column in ("inputs", "max error", "RMS error", "relative", "max error of derivative"):
        table.add_column(column, justify="left" if column == "inputs" else "right")
    for errors in fidelity.regions:
        table.add_row(
            f"{errors.region}{' (fitted)' if errors.fitted else ''}",
            *(
                _text(value)
                for value in (errors.max_error, errors.rms_error, errors.relative_error, errors.derivative_max_error)
            ),
        )
    folded = fidelity.folded_call_microseconds
    table.caption_justify = "left"
    table.caption = (
        f"{fidelity.parameters:,} parameters, {fidelity.flops:,} FLOP per input; "
        f"{fidelity.call_microseconds:.1f} µs per call on {fidelity.inputs_per_call} inputs"
        f"{f', {folded:.1f} µs folded' if folded is not None else ''}; "
        f"{fidelity.fit_seconds:.1f} s to fit"
    )
    return table


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2e}"
