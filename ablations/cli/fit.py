"""`trans4init fit`: fit a net to a function, and print the errors of the fit."""

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

    from trans4init.ablations.fit import Fidelity, Fitted, OnStep
    from trans4init.ablations.functions import Domain

__all__ = ["Fit", "fidelity_table"]


@dataclass(frozen=True)
class Fit:
    """Fit a net to a function: prints a table of errors, and writes a figure, a checkpoint and a Parquet record.

    With --all, fit every net in several sizes, to one function or to all, and write a page with their errors against
    their parameters, beside published approximations. Fits that are there already are not made again.
    """

    function: Positional[
        Annotated[str | None, arg(metavar="FUNCTION", help_behavior_hint="(may be left out with --all)")]
    ] = None
    """The function's name (trans4init ls functions), or my/file.py:name."""
    all: Annotated[bool, arg(help_behavior_hint="")] = False
    """Fit every net in every size, to every function if none is named."""
    net: str = "fourier-mlp"
    """The net's name (trans4init ls nets)."""
    size: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable; default: the net's)"),
    ] = ()
    """The net's size, such as pieces=16, intervals=64 or hidden=32,32."""
    hidden: Annotated[tuple[int, ...], arg(metavar="N ...", help_behavior_hint="(default: the net's)")] = ()
    """The net's hidden widths; the same as --size hidden=N,N."""
    shape: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="KEY=N ...", help_behavior_hint="(repeatable; default: the function's)"),
    ] = ()
    """The function's shape, such as heads=4 or head_dim=32."""
    width: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the function's)")] = None
    """The width of a positional encoding; the same as --shape width=N."""
    positions: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the function's domain)")] = None
    """Fit positions 0 to N - 1."""
    domain: Annotated[
        tuple[float, float] | None, arg(metavar="LOW HIGH", help_behavior_hint="(default: the function's)")
    ] = None
    """Fit the reals from LOW to HIGH."""
    density: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: evenly spread inputs)")] = None
    """A file of inputs, at which errors are counted: .npy, or text with a number per line."""
    steps: int = 3000
    """Steps of Adam; then the last layer is solved for."""
    budget: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: a tenth of the steps)")] = None
    """Evaluations of L-BFGS at the end."""
    seconds: Annotated[float | None, arg(metavar="S", help_behavior_hint="(default: no limit)")] = None
    """Stop after this many seconds; the result then depends on the machine's speed."""
    target_error: float = 0.0
    """Stop when the largest error is at most this."""
    learning_rate: float = 1e-2
    """Adam's learning rate, which falls to 0 on a cosine."""
    seed: int = 0
    """Seed of the net's start; the same seed gives the same bits."""
    seeds: int = 1
    """Fit this many seeds, from --seed on, at once, and print how their errors differ."""
    out: Path = Path("runs/fit")
    """The folder to write checkpoints/, results/ and figures/ to."""

    def run(self, command: str) -> int:
        """Fit, print the errors, and write the files."""
        from trans4init.ablations.console import plain_console
        from trans4init.ablations.errors import InputError

        console = plain_console()
        if self.all:
            return self._atlas(console)
        if self.function is None:
            raise InputError("fit needs a function's name (trans4init ls functions), or --all.")
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1, not {self.seeds}.")
        return self._one(console) if self.seeds == 1 else self._several(console)

    def _one(self, console: "Console") -> int:
        fitted = self._fit(console)
        console.print(fidelity_table(fitted.fidelity, title=f"{fitted.net.name} → {fitted.function.name}"))
        self._keep(fitted, console)
        return 0

    def _several(self, console: "Console") -> int:
        import statistics

        from rich.markup import escape
        from rich.progress import track

        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.ablations.fit import Fitted, Wanted, fit_many

        if self.density is not None or self.seconds is not None:
            raise InputError("--seeds fits all seeds at once: it can't be combined with --density or --seconds.")
        function, how = self._function(), self._how()
        wanted = [
            Wanted(function, self.net, self._size(), self.seed + more, self._domain(), self._shape())
            for more in range(self.seeds)
        ]
        fits = fit_many(wanted, **{key: value for key, value in how.items() if key != "seconds"})
        title, fitted_seeds = f"fitting {self.net} to {function}", []
        for index, outcome in track(fits, escape(title), len(wanted), console=console, transient=True):
            if isinstance(outcome, Fitted):
                fitted_seeds.append(outcome)
            else:
                console.print(f"seed {self.seed + index} diverged: {outcome}")
        if not fitted_seeds:
            raise FaultError("every seed diverged; try a lower --learning-rate.")
        fitted_seeds.sort(key=lambda fitted: fitted.fidelity.regions[0].max_error or float("inf"))
        best, worst = fitted_seeds[0], fitted_seeds[-1]
        console.print(
            fidelity_table(best.fidelity, title=f"{best.net.name} → {best.function.name}, best seed {best.seed}")
        )
        errors = [fitted.fidelity.regions[0].max_error or float("inf") for fitted in fitted_seeds]
        console.print(
            f"largest error over {len(fitted_seeds)} seeds: {errors[0]:.2e} (seed {best.seed}), "
            f"median {statistics.median(errors):.2e}, {errors[-1]:.2e} (seed {worst.seed})",
            soft_wrap=True,
        )
        for fitted in fitted_seeds:
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
            paths = save_fit(fitted, how, self.out)
            figure = draw_fidelity(fitted, self.out / "figures" / f"{paths[1].stem}.svg")
        except OSError as error:
            raise FaultError(f"the fit can't be written to {self.out}: {error.strerror}.") from error
        for path in paths if figure is None else (*paths, figure):
            console.print(str(path), soft_wrap=True)

    def _atlas(self, console: "Console") -> int:
        from rich.progress import track

        from trans4init.ablations.errors import FaultError, InputError
        from trans4init.ablations.fit.atlas import entries, make
        from trans4init.reports.atlas import write_atlas

        used = ("function", "all", "out")
        options = [option for option in fields(self) if option.name not in used]
        unused = [option.name for option in options if getattr(self, option.name) != option.default]
        if unused:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
            raise InputError(f"--all takes only a function and --out; leave out {named}.")
        plan = entries(self.function)
        counts = {"made": 0, "found": 0, "diverged": 0}
        try:
            for _, outcome in track(make(self.out, plan), "fitting", len(plan), console=console, transient=True):
                counts[outcome] += 1
            page = write_atlas(self.out)
        except OSError as error:
            raise FaultError(f"the atlas can't be written to {self.out}: {error.strerror}.") from error
        console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
        console.print(str(page), soft_wrap=True)
        return 0

    def _fit(self, console: "Console") -> "Fitted":
        from trans4init.ablations.errors import FaultError
        from trans4init.ablations.fit import FitDivergedError, fit, refinement_budget

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
                raise FaultError(f"{error}; try another --seed or fewer --steps.") from error

    def _function(self) -> str:
        """Return the function's name; raises InputError for options that don't apply to it."""
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.functions import get_function

        assert self.function is not None  # `run` has checked it
        function = get_function(self.function)
        if self.positions is not None and not function.domain.integer:
            raise InputError(
                f"{self.function} is a function of the reals {function.domain}: --positions doesn't apply."
            )
        if self.domain is not None and function.domain.integer:
            raise InputError(f"{self.function} is a function of positions: --domain doesn't apply, --positions does.")
        if self.positions is not None and self.positions < 1:
            raise InputError(f"--positions must be at least 1, not {self.positions}.")
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
        """Return the function's shape; raises InputError if --shape or --width doesn't fit it."""
        from trans4init.ablations.errors import InputError
        from trans4init.ablations.functions import get_function

        shape = _pairs("--shape", self.shape) | ({"width": self.width} if self.width is not None else {})
        for key, value in shape.items():
            if not isinstance(value, int) or value < 1:
                raise InputError(f"--shape takes whole numbers of at least 1, not {key}={value}.")
        function = get_function(self._function())
        function.check_shape(**function.default_shape | shape)
        return shape

    def _how(self) -> dict[str, Any]:
        """Return how to fit, by the names of `fit`'s options."""
        return {
            "steps": self.steps,
            "budget": self.budget,
            "seconds": float("inf") if self.seconds is None else self.seconds,
            "target_error": self.target_error,
            "learning_rate": self.learning_rate,
        }


_DEFAULTS = Fit()._how() | {"steps": None}
"""Defaults of `fit`: options equal to these are left out of a fit's record."""


def _pairs(option: str, arguments: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """Return KEY=VALUE words as a dictionary; a value is a number, numbers with commas, or a word."""
    from trans4init.ablations.errors import InputError

    values: dict[str, Any] = {}
    for word in chain.from_iterable(arguments):
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise InputError(f"{option} takes KEY=VALUE, not {word!r}.")
        parts = [_number(part) for part in text.split(",") if part]
        values[key] = tuple(parts) if "," in text or key == "hidden" else parts[0]
    return values


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _numbers(file: Path) -> "Tensor":
    """Read the numbers in a .npy file or a text; raises InputError if they can't be read."""
    import numpy as np
    import torch

    from trans4init.ablations.errors import InputError

    try:
        numbers = np.load(file, allow_pickle=False) if file.suffix == ".npy" else np.loadtxt(file, ndmin=1)
        return torch.from_numpy(np.asarray(numbers, dtype=np.float64).ravel())
    except OSError as error:
        raise InputError(f"--density {file} can't be read: {error.strerror or error}.") from None
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f"--density {file} holds no numbers: {error}.") from None


def _digest(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@contextmanager
def _progress(console: "Console", title: str, steps: int) -> Iterator["OnStep"]:
    """Show a bar on a terminal, and a line at each quarter elsewhere. steps: those of Adam and of L-BFGS together."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.2e}"),
    )
    bar = Progress(*columns, console=console, transient=True)
    quarters = 0

    def on_step(step: int, loss: float) -> None:
        nonlocal quarters
        if console.is_terminal:
            bar.start()
            if not bar.tasks:
                bar.add_task(title, total=steps, loss=loss)
            bar.update(bar.task_ids[0], completed=step + 1, loss=loss)
        elif 4 * step // steps > quarters:
            quarters = 4 * step // steps
            console.print(f"{title}: step {step} of {steps}, loss {loss:.2e}")

    try:
        yield on_step
    finally:
        if bar.tasks:
            bar.stop()


def fidelity_table(fidelity: "Fidelity", title: str) -> "Table":
    """Return a table of the errors by region, of value and derivative, with the net's cost below."""
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
