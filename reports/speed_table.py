"""A benchmark's times as a table for a terminal of 100 columns."""

from collections.abc import Iterable
from textwrap import wrap

from rich.console import Console
from rich.markup import escape

from trans4init.reports.speed import Speed, SuiteSpeeds
from trans4init.reports.statistics import Interval

__all__ = ["print_speeds", "rates_line"]

_NAME, _WIDTHS = 28, (9, 14, 21, 15, 6, 7)
"""Columns of the name, and of what follows it."""
_WHOLE = _NAME + sum(_WIDTHS)


def print_speeds(suites: Iterable[SuiteSpeeds], console: Console) -> None:
    """Print every suite: a line for each implementation, also for one that has no time."""

    def say(line: str) -> None:
        console.print(line.rstrip(), highlight=False, no_wrap=True, overflow="ellipsis", crop=True)

    for suite in suites:
        say(f"\n[bold]{suite.suite}[/bold] on {escape(suite.machine)}; {rates_line(suite)}")
        say(escape("; ".join(filter(None, [suite.settings, f"times as fast as “{suite.baseline}”"]))))
        say(_cells("", "ms", "quartiles", "× as fast \\[95 %]", "rate", "limit", "MiB"))
        for case in suite.cases:
            floor = "" if case.floor_milliseconds is None else f"; at least {case.floor_milliseconds:.3g} ms"
            say(f"[bold]{escape(f'{case.operator} {case.size}'.strip())}[/bold]{floor}")
            missing: dict[str, list[str]] = {}
            for speed in case.speeds:
                if speed.status == "missing":
                    missing.setdefault(speed.error, []).append(speed.implementation)
                else:
                    say(_line(speed, suite))
            for reason, names in missing.items():
                text = f"{reason}: {'; '.join(names)}"
                for line in wrap(text, _WHOLE, initial_indent="  ", subsequent_indent="    "):
                    say(f"[italic]{escape(line)}[/italic]")
            if case.contended:
                say(f"  [italic]{case.contended} of {case.rounds} rounds contended[/italic]")


def rates_line(suite: SuiteSpeeds) -> str:
    """What the machine itself did in the same run."""
    if not suite.matmul_rate or not suite.copy_rate:
        return "its rates are below" if suite.suite == "machine" else "its rates are not known"
    return f"{suite.matmul_rate / 1e9:,.0f} GFLOP/s in matmul, {suite.copy_rate / 1e9:,.1f} GB/s in copying"


def _line(speed: Speed, suite: SuiteSpeeds) -> str:
    spread, interval = speed.milliseconds, speed.ratio_interval
    name = f"  {speed.implementation}"
    if spread is None:
        return f"{escape(name):<{_NAME}} [italic]{speed.status}: {escape(speed.error)}[/italic]"
    return _cells(
        name,
        _figure(spread.median, 4),
        f"{_figure(spread.low)}–{_figure(spread.high)}",
        "" if speed.ratio is None else _ratio(speed.ratio, interval),
        _rate(speed, suite),
        "" if speed.floor_share is None else f"{speed.floor_share:.0%}",
        "" if speed.peak_bytes is None else f"{speed.peak_bytes / 2**20:.1f}",
    )


def _ratio(ratio: float, interval: Interval | None) -> str:
    decimals = 3 if ratio < 0.1 else 2 if ratio < 10 else 1 if ratio < 100 else 0
    if interval is None:
        return f"{ratio:.{decimals}f}"
    value, low, high = (f"{one:.{decimals}f}" for one in (ratio, interval.low, interval.high))
    return f"{value} \\[{low}, {high}]"


def _rate(speed: Speed, suite: SuiteSpeeds) -> str:
    """The work's rate where it has one; else operations or bytes in a second, whichever is nearer to its ceiling."""
    if speed.work is not None:
        rate, unit = speed.work.rate, speed.work.unit.replace("tokens", "tok")
        return f"{rate / 1e6:.3g}M {unit}" if rate >= 1e6 else f"{_figure(rate)} {unit}"
    of_matmul, of_copy = (
        mine / ceiling if mine and ceiling else 0.0
        for mine, ceiling in ((speed.flop_rate, suite.matmul_rate), (speed.byte_rate, suite.copy_rate))
    )
    if speed.byte_rate is not None and (of_copy > of_matmul or speed.flop_rate is None):
        return f"{_figure(speed.byte_rate / 1e9)} GB/s"
    return "" if speed.flop_rate is None else f"{_figure(speed.flop_rate / 1e9)} GFLOP/s"


def _figure(value: float, digits: int = 3) -> str:
    """So many digits, without an exponent for what is large."""
    return f"{value:,.0f}" if value >= 10**digits else f"{value:.{digits}g}"


def _cells(name: str, *values: str) -> str:
    """Right-aligned values behind a name; an escaped bracket counts as the one letter that is seen."""
    line = f"{name:<{_NAME}}"
    for value, width in zip(values, _WIDTHS, strict=True):
        line += f"{value:>{width + value.count(chr(92))}}"
    return line
