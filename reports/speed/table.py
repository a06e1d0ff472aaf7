"""Print a benchmark's times as a table for a terminal of 100 columns, in colour if rich is installed."""

import importlib.util
from collections.abc import Iterable, Iterator
from textwrap import wrap

from trans4init.reports.formats import significant
from trans4init.reports.speed.speeds import CaseSpeeds, Speed, SuiteSpeeds
from trans4init.reports.statistics import Interval

__all__ = ["print_speeds", "rates_line"]

_NAME, _WIDTHS = 28, (9, 14, 21, 15, 6, 7)
"""The characters of the first column and of the others; together 100."""
_WHOLE = _NAME + sum(_WIDTHS)
_Line = list[tuple[str, str]]
"""Pieces of text, each with the name of its style in rich."""


def print_speeds(suites: Iterable[SuiteSpeeds]) -> None:
    """Print every suite, with a line for each implementation, also for those without a time."""
    lines = (line for suite in suites for line in _lines(suite))
    if importlib.util.find_spec("rich") is None:
        for line in lines:
            print("".join(text for text, _ in line)[:_WHOLE].rstrip())
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(width=_WHOLE)
    for line in lines:
        console.print(Text.assemble(*line), highlight=False, no_wrap=True, overflow="ellipsis", crop=True)


def _lines(suite: SuiteSpeeds) -> Iterator[_Line]:
    yield []
    yield [(suite.suite, "bold"), (f" on {suite.machine}; {rates_line(suite)}", "")]
    yield [("; ".join(filter(None, [suite.settings, f"times as fast as “{suite.baseline}”"])), "")]
    if (contention := suite.contention()).too_many():
        yield [(f"{contention}: too many to publish", "bold")]
    yield [(_cells("", "ms", "quartiles", "× as fast [95 %]", "rate", "limit", "MiB"), "")]
    for case in suite.cases:
        yield from _case_lines(case, suite)


def _case_lines(case: CaseSpeeds, suite: SuiteSpeeds) -> Iterator[_Line]:
    least = "" if case.least_milliseconds is None else f"; at least {case.least_milliseconds:.3g} ms"
    yield [(case.name(), "bold"), (least, "")]
    missing: dict[str, list[str]] = {}
    for speed in case.speeds:
        if speed.status == "missing":
            missing.setdefault(speed.error, []).append(speed.implementation)
        else:
            yield _line(speed, suite)
    for reason, names in missing.items():
        for text in wrap(f"{reason}: {'; '.join(names)}", _WHOLE, initial_indent="  ", subsequent_indent="    "):
            yield [(text, "italic")]
    if case.contended:
        yield [(f"  {case.contended} of {case.rounds} rounds contended", "italic")]


def rates_line(suite: SuiteSpeeds) -> str:
    """Return the rates that the machine reached in the same session, as part of a sentence."""
    if not suite.matmul_rate or not suite.copy_rate:
        return "its rates are below" if suite.suite == "machine" else "its rates are not known"
    return f"{suite.matmul_rate / 1e9:,.0f} GFLOP/s in matmul, {suite.copy_rate / 1e9:,.1f} GB/s in copying"


def _line(speed: Speed, suite: SuiteSpeeds) -> _Line:
    spread, interval = speed.milliseconds, speed.ratio_interval
    name = f"  {speed.implementation}"
    if spread is None:
        return [(f"{name:<{_NAME}} ", ""), (f"{speed.status}: {speed.error}", "italic")]
    cells = _cells(
        name,
        significant(spread.median, 4),
        f"{significant(spread.low)}–{significant(spread.high)}",
        "" if speed.ratio is None else _ratio(speed.ratio, interval),
        _rate(speed, suite),
        "" if speed.share_of_limit is None else f"{speed.share_of_limit:.0%}",
        "" if speed.peak_bytes is None else f"{speed.peak_bytes / 2**20:.1f}",
    )
    return [(cells, "")]


def _ratio(ratio: float, interval: Interval | None) -> str:
    decimals = 3 if ratio < 0.1 else 2 if ratio < 10 else 1 if ratio < 100 else 0
    if interval is None:
        return f"{ratio:.{decimals}f}"
    value, low, high = (f"{number:.{decimals}f}" for number in (ratio, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def _rate(speed: Speed, suite: SuiteSpeeds) -> str:
    """Return the rate of work if there is one; else operations or bytes per second, whichever is nearer its ceiling."""
    if speed.work is not None:
        rate, unit = speed.work.rate, speed.work.unit.replace("tokens", "tok")
        return f"{significant(rate / 1e6)}M {unit}" if rate >= 1e6 else f"{significant(rate)} {unit}"
    of_matmul, of_copy = (
        rate / ceiling if rate and ceiling else 0.0
        for rate, ceiling in ((speed.flop_rate, suite.matmul_rate), (speed.byte_rate, suite.copy_rate))
    )
    if speed.byte_rate is not None and (of_copy > of_matmul or speed.flop_rate is None):
        return f"{significant(speed.byte_rate / 1e9)} GB/s"
    return "" if speed.flop_rate is None else f"{significant(speed.flop_rate / 1e9)} GFLOP/s"


def _cells(name: str, *values: str) -> str:
    """Return a line of the table: the name, cut to its column, and the values, aligned to the right."""
    shown = name if len(name) < _NAME else f"{name[: _NAME - 2]}…"
    return f"{shown:<{_NAME}}" + "".join(f"{value:>{width}}" for value, width in zip(values, _WIDTHS, strict=True))
