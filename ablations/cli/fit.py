"""`trans4init fit`: fit a net to a function, and show how well it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from trans4init.ablations.fit import Fidelity, Fitted
    from trans4init.ablations.fit.jobs import OnStep
    from trans4init.ablations.functions import Domain

__all__ = ["Fit", "fidelity_table"]


@dataclass(frozen=True)
class Fit:
    """Fit a net to a function alone: a table of errors, a figure, a checkpoint, a Parquet record.

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
    size: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable; default: the net's)"),
    ] = ()
    """The net's size, such as pieces=16, intervals=64 or hidden=32,32."""
    hidden: Annotated[tuple[int, ...], arg(metavar="N ...", help_behavior_hint="(default: the net's)")] = ()
    """The net's hidden widths; as --size hidden=N,N."""
    shape: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="KEY=N ...", help_behavior_hint="(repeatable; default: the function's)"),
    ] = ()
    """The function's shape, such as heads=4 or head_dim=32."""
    width: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the function's)")] = None
    """The width of a positional encoding; as --shape width=N."""
    positions: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the function's domain)")] = None
    """Fit positions 0 to N - 1."""
    domain: Annotated[
        tuple[float, float] | None, arg(metavar="LOW HIGH", help_behavior_hint="(default: the function's)")
    ] = None
    """Fit the reals from LOW to HIGH."""
    density: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: evenly)")] = None
    """Count errors where these inputs are: a .npy file, or text with a number a line."""
    steps: int = 3000
    """Steps of Adam, before the last layer is solved for."""
    budget: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: a tenth of the steps)")] = None
    """Evaluations of L-BFGS after it."""
    seconds: Annotated[float | None, arg(metavar="S", help_behavior_hint="(default: no limit)")] = None
    """Stop after so many; the result then depends on the machine's speed."""
    target_error: float = 0.0
    """Stop where the largest error is no larger."""
    learning_rate: float = 1e-2
    """Of Adam, falling to 0 on a cosine."""
    seed: int = 0
    """The same seed gives the same bits."""
    seeds: int = 1
    """Fit so many seeds from --seed on, together, and say how they differ."""
    out: Path = Path("runs/fit")
    """The folder for checkpoints/, results/ and figures/."""

    def run(self, command: str) -> int:
        """Fit, print, keep."""
        from rich.console import Console

        from trans4init.ablations.errors import InputError

        console = Console()
        if self.all:
            return self._atlas(console)
        if self.function is None:
            raise InputError("fit needs a function's name, or --all (trans4init ls functions).")
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1, and {self.seeds} was given.")
        return self._one(console) if self.seeds == 1 else self._several(console)

    def _one(self, console: "Console") -> int:
        fitted = self._fit(console)
        console.print(fidelity_table(fitted.fidelity, title=f"{fitted.net.name} → {fitted.function.name}"))
        self._keep(fitted, console)
        return 0

    def _several(self, console: "Console") -> int:
        import statistics

        from rich.progress import track

        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.ablations.fit import Fitted, Wanted, fit_many

        if self.density is not None or self.seconds is not None:
            raise InputError("--seeds fits all seeds together, without --density and --seconds.")
        function, how = self._function(), self._how()
        wanted = [
            Wanted(function, self.net, self._size(), self.seed + more, self._domain(), self._shape())
            for more in range(self.seeds)
        ]
        fits = fit_many(wanted, **{key: value for key, value in how.items() if key != "seconds"})
        title, found = f"fitting {self.net} to {function}", []
        for index, outcome in track(fits, title, len(wanted), console=console, transient=True):
            if isinstance(outcome, Fitted):
                found.append(outcome)
            else:
                console.print(f"seed {self.seed + index} diverged: {outcome}", highlight=False)
        if not found:
            raise FaultError("every seed diverged; a lower --learning-rate may do.")
        found.sort(key=lambda fitted: fitted.fidelity.regions[0].max_error or float("inf"))
        best, worst = found[0], found[-1]
        console.print(
            fidelity_table(best.fidelity, title=f"{best.net.name} → {best.function.name}, best seed {best.seed}")
        )
        errors = [fitted.fidelity.regions[0].max_error or float("inf") for fitted in found]
        console.print(
            f"largest error over {len(found)} seeds: {errors[0]:.2e} (seed {best.seed}), "
            f"median {statistics.median(errors):.2e}, {errors[-1]:.2e} (seed {worst.seed})",
            highlight=False,
            soft_wrap=True,
        )
        for fitted in found:
            self._keep(fitted, console)
        return 0

    def _keep(self, fitted: "Fitted", console: "Console") -> None:
        from trans4init.ablations.errors import FaultError
        from trans4init.ablations.fit.figure import draw_fidelity
        from trans4init.ablations.fit.records import save_fit

        how = {"steps": self.steps} | {key: value for key, value in self._how().items() if value != _DEFAULTS.get(key)}
        if self.density is not None:
            how["density"] = _digest(self.density)
        try:
            kept = save_fit(fitted, how, self.out)
            figure = draw_fidelity(fitted, self.out / "figures" / f"{kept[1].stem}.svg")
        except OSError as error:
            raise FaultError(f"the fit can't be kept in {self.out}: {error.strerror}.") from error
        for path in kept if figure is None else (*kept, figure):
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)

    def _atlas(self, console: "Console") -> int:
        from rich.progress import track

        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.ablations.fit.atlas import entries, make
        from trans4init.reports.atlas import write_atlas

        taken = ("function", "all", "out")
        idle = [one.name for one in fields(self) if one.name not in taken and getattr(self, one.name) != one.default]
        if idle:
            words = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
            raise InputError(f"--all takes a function and --out alone: {words} would change nothing.")
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
        from trans4init.ablations.errors import FaultError
        from trans4init.ablations.fit import fit, refinement_budget
        from trans4init.ablations.fit.jobs import FitDivergedError

        function, how = self._function(), self._how()
        total = self.steps + (refinement_budget(self.steps) if self.budget is None else self.budget)
        with _progress(console, f"fitting {self.net} to {function}", total) as on_step:
            try:
                return fit(
                    function,
                    self.net,
                    seed=self.seed,
                    domain=self._domain(),
                    size=self._size(),
                    on_step=on_step,
                    density=None if self.density is None else _numbers(self.density),
                    **how,
                    **self._shape(),
                )
            except FitDivergedError as error:
                raise FaultError(f"{error}; another --seed or fewer --steps may do.") from error

    def _function(self) -> str:
        """The function's name; raises InputError for options that don't go with it."""
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.functions import get_function

        assert self.function is not None  # `run` has seen to it
        function = get_function(self.function)
        if self.positions is not None and not function.domain.integer:
            raise InputError(
                f"{self.function} is a function of the reals {function.domain}: --positions doesn't apply."
            )
        if self.domain is not None and function.domain.integer:
            raise InputError(f"{self.function} is a function of positions: --domain doesn't apply, --positions does.")
        if self.positions is not None and self.positions < 1:
            raise InputError(f"--positions must be at least 1, and {self.positions} was given.")
        if self.width is not None and "width" not in function.default_shape:
            raise InputError(f"{self.function} has no width.")
        return self.function

    def _domain(self) -> "Domain | None":
        from trans4init.ablations.functions import Domain, get_function

        if self.positions:
            return Domain(0, self.positions - 1, integer=True)
        if self.domain is not None and self.function is not None:
            return Domain(*self.domain, integer=False, log=get_function(self.function).domain.log)
        return None

    def _size(self) -> dict[str, Any]:
        return _pairs("--size", self.size) | ({"hidden": self.hidden} if self.hidden else {})

    def _shape(self) -> dict[str, int]:
        """The function's shape; raises InputError for what is none."""
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.functions import get_function

        found = _pairs("--shape", self.shape) | ({"width": self.width} if self.width is not None else {})
        for key, value in found.items():
            if not isinstance(value, int) or value < 1:
                raise InputError(f"--shape takes whole numbers of at least 1, and {key}={value} was given.")
        function = get_function(self._function())
        function.check_shape(**function.default_shape | found)
        return found

    def _how(self) -> dict[str, Any]:
        """How to fit, in the words of `fit`."""
        return {
            "steps": self.steps,
            "budget": self.budget,
            "seconds": float("inf") if self.seconds is None else self.seconds,
            "target_error": self.target_error,
            "learning_rate": self.learning_rate,
        }


_DEFAULTS = Fit()._how() | {"steps": None}
"""What need not be said of a fit."""


def _pairs(option: str, given: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """KEY=VALUE words as a dictionary; a value is a number, numbers with commas, or a word."""
    from trans4init.ablations.errors import InputError

    found: dict[str, Any] = {}
    for word in chain.from_iterable(given):
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise InputError(f"{option} takes words such as key=value, and {word!r} was given.")
        parts = [_number(part) for part in text.split(",") if part]
        found[key] = tuple(parts) if "," in text or key == "hidden" else parts[0]
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _numbers(file: Path) -> "Tensor":
    """The numbers in a .npy file or a text; raises InputError where there are none."""
    import numpy as np
    import torch

    from trans4init.ablations.errors import InputError

    try:
        found = np.load(file, allow_pickle=False) if file.suffix == ".npy" else np.loadtxt(file, ndmin=1)
        return torch.from_numpy(np.asarray(found, dtype=np.float64).ravel())
    except OSError as error:
        raise InputError(f"--density {file} can't be read: {error.strerror or error}.") from None
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f"--density {file} holds no numbers: {error}.") from None


def _digest(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@contextmanager
def _progress(console: "Console", title: str, steps: int) -> Iterator["OnStep"]:
    """A bar on a terminal from the first step on; a line at each quarter elsewhere. steps: of both phases."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.2e}"),
    )
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
    """Errors by region, of the value and of the derivative, then what the net costs."""
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"
    )
    table.add_column("errors on", no_wrap=True)
    for column in ("largest", "RMS", "relative", "largest rel.", "ulp"):
        table.add_column(column, justify="right", no_wrap=True)
    for errors in fidelity.regions:
        value = (
            errors.max_error,
            errors.rms_error,
            errors.relative_error,
            errors.max_relative_error,
            errors.max_ulp_error,
        )
        slope = (
            errors.derivative_max_error,
            errors.derivative_rms_error,
            errors.derivative_relative_error,
            errors.derivative_max_relative_error,
            errors.derivative_max_ulp_error,
        )
        table.add_row(f"{errors.region}{' (fitted)' if errors.fitted else ''}", *map(_text, value))
        table.add_row("  derivative", *map(_text, slope))
    folded = fidelity.folded_call_microseconds
    table.caption_justify = "left"
    table.caption = (
        f"{fidelity.parameters:,} parameters, {fidelity.flops:,} FLOP per input; "
        f"{fidelity.call_microseconds:.1f} µs per call on {fidelity.inputs_per_call} inputs"
        f"{f', {folded:.1f} µs folded ({fidelity.folded_by})' if folded is not None else ''}, "
        f"{fidelity.analytic_call_microseconds:.1f} µs by the closed form; {fidelity.fit_seconds:.1f} s to fit"
    )
    return table


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2e}"
