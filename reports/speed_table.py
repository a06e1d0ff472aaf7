"""A benchmark's times as a table for a terminal of 100 columns."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from trans4init.reports.speed import CaseSpeeds, Speed, SuiteSpeeds

__all__ = ["print_speeds", "rates_line"]


def print_speeds(suites: Iterable[SuiteSpeeds], console: Console) -> None:
    """Print every suite: a line for each implementation, also for one that has no time."""
    for suite in suites:
        console.print(f"\n[bold]{suite.suite}[/bold] on {suite.device}; {rates_line(suite)}", highlight=False)
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", width=32)
        for name, width in (("ms", 8), ("quartiles", 15), (f"× {suite.baseline} [95 %]", 24), ("limit", 5), ("MiB", 7)):
            table.add_column(name, width=width, justify="right")
        for case in suite.cases:
            table.add_row(*_title(case))
            for speed in case.speeds:
                table.add_row(*_row(speed))
            if case.contended:
                table.add_row(f"  [italic]{case.contended} of {case.rounds} rounds contended[/italic]")
        console.print(table)


def rates_line(suite: SuiteSpeeds) -> str:
    """What the machine itself did in the same run."""
    if not suite.matmul_rate or not suite.copy_rate:
        return "its rates are below" if suite.suite == "machine" else "its rates are not known"
    return f"{suite.matmul_rate / 1e9:,.0f} GFLOP/s in matmul, {suite.copy_rate / 1e9:,.1f} GB/s in copying"


def _title(case: CaseSpeeds) -> tuple[str, ...]:
    floor = "" if case.floor_milliseconds is None else f"≥ {case.floor_milliseconds:.3g}"
    return (f"[bold]{case.operator}[/bold] {case.size}".strip(), floor)


def _row(speed: Speed) -> tuple[str, ...]:
    spread, interval = speed.milliseconds, speed.ratio_interval
    if spread is None:
        return (f"  {speed.implementation}\n    [italic]{speed.status}: {speed.error[:60]}[/italic]",)
    return (
        f"  {speed.implementation}",
        f"{spread.median:.4g}",
        f"{spread.low:.3g}–{spread.high:.3g}",
        "" if interval is None else f"{speed.ratio:.3g} [{interval.low:.3g}, {interval.high:.3g}]",
        "" if speed.floor_share is None else f"{speed.floor_share:.0%}",
        "" if speed.peak_bytes is None else f"{speed.peak_bytes / 2**20:.1f}",
    )
