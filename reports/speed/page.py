"""Write the page of benchmarks: each suite's times and ratios with intervals, its roofline, its growth with length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.files import write_whole
from trans4init.reports.machine import MOST_CONTENDED
from trans4init.reports.pages import templates
from trans4init.reports.records.store import Results
from trans4init.reports.speed.speeds import CaseSpeeds, Speed, SuiteSpeeds, speeds
from trans4init.reports.speed.table import rates_line
from trans4init.reports.statistics import Interval

__all__ = ["PAGE", "write_speed_page"]

PAGE = "bench.html"
_COLOURS = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#7F7F7F")
_MARKS = ("o", "s", "D", "^", "v", "P", "*", "p", "X")
_TITLE = 70
"""How many characters of a case's name have room beside a drawing; longer names are cut."""
_LENGTH = "length"
"""The entry of a case's shape against which `_draw_growth` plots."""


def write_speed_page(folder: Path, results: Results) -> Path:
    """Write `bench.html` into the benchmarks' folder, with the newest measurements of each machine; its path."""
    suites = speeds(record for record in results.records)
    page = (
        templates()
        .get_template("bench.html.j2")
        .render(
            suites=[(suite, rates_line(suite), _figures(suite)) for suite in suites],
            corrupt=results.corrupt,
            most_contended=MOST_CONTENDED,
        )
    )
    return write_whole(folder / PAGE, page)


def _figures(suite: SuiteSpeeds) -> dict[str, str]:
    """Return the drawings of a suite as SVG, by title; those that it has no data for are left out."""
    with drawing_style(9):
        drawn = {
            "Times, how many times as fast as the baseline, and peak memory": _draw_times(suite),
            "Rates under the machine's ceilings (roofline)": _draw_roofline(suite),
            "Growth with length": _draw_growth(suite),
        }
    return {title: svg for title, svg in drawn.items() if svg is not None}


def _draw_times(suite: SuiteSpeeds) -> str | None:
    """Draw milliseconds with quartiles, ratios to the baseline with 95 % intervals, and memory, implementation by line.

    None where nothing has a time.
    """
    lines = [(case, speed) for case in suite.cases for speed in (None, *_timed(case))]
    if not any(speed for _, speed in lines):
        return None
    timed = [speed for _, speed in lines if speed]
    has_ratios, has_memory = any(speed.ratio is not None for speed in timed), any(speed.peak_bytes for speed in timed)
    widths = [3, *([2] if has_ratios else []), *([1.5] if has_memory else [])]
    figure = Figure(figsize=(10.4, 0.9 + 0.21 * len(lines)), layout="constrained")
    panels = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    style, left, right = _styles(suite), panels[0], panels[-1]
    for line, (case, speed) in enumerate(lines):
        if speed is None or speed.milliseconds is None:
            if case.least_milliseconds:
                left.plot([case.least_milliseconds], [line], "|", color="#999999", markersize=10)
            continue
        spread, look = speed.milliseconds, style[speed.implementation]
        _mark(left, line, spread.median, Interval(spread.low, spread.high), look)
        if speed.ratio is not None:
            _mark(panels[1], line, speed.ratio, speed.ratio_interval or Interval(speed.ratio, speed.ratio), look)
        if speed.peak_bytes:
            right.plot([speed.peak_bytes / 2**20], [line], look[1], color=look[0], markersize=6)
    left.set_yticks(range(len(lines)), [speed.implementation if speed else _title(case) for case, speed in lines])
    for label, (_, speed) in zip(left.get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if speed else "bold")
    left.set_ylim(len(lines) - 0.4, -0.6)
    left.set_xlabel("ms a call\nmedian, quartiles" + ("; | the least" if _has_limit(suite) else ""))
    if has_ratios:
        panels[1].axvline(1, color="#999999", linewidth=1, zorder=0)
        panels[1].set_xlabel(f"× {suite.baseline}\nmedian, 95 %")
    if has_memory:
        right.set_xlabel("MiB\nabove the inputs")
    for panel in panels:
        _scale(panel)
    return as_svg(figure)


def _title(case: CaseSpeeds) -> str:
    """Return a case's name, cut to the room beside a drawing."""
    name = case.name()
    return name if len(name) <= _TITLE else name[: _TITLE - 1] + "…"


def _mark(axes: Axes, line: int, value: float, interval: Interval, look: tuple[str, str]) -> None:
    """Draw a value with its interval; `look` is a colour and a mark."""
    colour, mark = look
    axes.plot([interval.low, interval.high], [line, line], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([value], [line], mark, color=colour, markersize=6)


def _scale(axes: Axes) -> None:
    """Make the axis logarithmic if its values differ more than fivefold, and write its numbers without exponents."""
    low, high = axes.dataLim.intervalx
    if low > 0 and high > 5 * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)


def _has_limit(suite: SuiteSpeeds) -> bool:
    return any(case.least_milliseconds for case in suite.cases)


def _draw_roofline(suite: SuiteSpeeds) -> str | None:
    """Draw rates against FLOP per byte, under the machine's two ceilings; None where no case has both counts."""
    cases = [case for case in suite.cases if case.flop and case.bytes and _timed(case)]
    if not cases or not suite.matmul_rate or not suite.copy_rate:
        return None
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    intensities = [case.flop / case.bytes for case in cases if case.flop and case.bytes]
    knee = suite.matmul_rate / suite.copy_rate
    span = np.geomspace(min(*intensities, knee) / 3, max(*intensities, knee) * 3, 200)
    axes.plot(span, np.minimum(suite.matmul_rate, span * suite.copy_rate) / 1e9, color="#999999")
    style, in_legend = _styles(suite), set()
    for case, intensity in zip(cases, intensities, strict=True):
        for speed in _timed(case):
            assert speed.milliseconds is not None
            assert case.flop is not None
            colour, mark = style[speed.implementation]
            label = None if speed.implementation in in_legend else speed.implementation
            in_legend.add(speed.implementation)
            axes.plot([intensity], [case.flop / speed.milliseconds.median / 1e6], mark, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP per byte that must move")
    axes.set_ylabel("GFLOP/s")
    axes.legend(fontsize=8, frameon=False)
    return as_svg(figure)


def _draw_growth(suite: SuiteSpeeds) -> str | None:
    """Draw time and memory against length, a line an implementation; None where nothing was measured at two lengths."""
    grown = {key: points for key, points in _by_length(suite).items() if len({length for length, _ in points}) > 1}
    if not grown:
        return None
    has_memory = any(speed.peak_bytes for points in grown.values() for _, speed in points)
    figure = Figure(figsize=(9.6 if has_memory else 4.8, 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + has_memory, squeeze=False)[0]
    style, in_legend = _styles(suite), set()
    for (name, _), points in grown.items():
        colour, mark = style[name]
        label = None if name in in_legend else name
        in_legend.add(name)
        times = [(length, speed.milliseconds.median) for length, speed in points if speed.milliseconds]
        axes[0].plot(*zip(*times, strict=True), mark + "-", color=colour, label=label, linewidth=1)
        memory = [(length, speed.peak_bytes / 2**20) for length, speed in points if speed.peak_bytes]
        if memory:
            axes[1].plot(*zip(*memory, strict=True), mark + "-", color=colour, linewidth=1)
    for panel, title in zip(axes, ("ms a call", "MiB above the inputs"), strict=False):
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("length")
        panel.set_ylabel(title)
    axes[0].legend(fontsize=8, frameon=False)
    return as_svg(figure)


def _by_length(suite: SuiteSpeeds) -> dict[tuple[str, str], list[tuple[float, Speed]]]:
    """Return, by ascending length, the speeds that differ by length alone.

    The key is an implementation, and its operator with the rest of the shape.
    """
    by_rest: dict[tuple[str, str], list[tuple[float, Speed]]] = {}
    for case in suite.cases:
        if _LENGTH in case.shape:
            rest = {name: value for name, value in case.shape.items() if name != _LENGTH}
            for speed in _timed(case):
                key = speed.implementation, f"{case.operator} {sorted(rest.items())}"
                by_rest.setdefault(key, []).append((case.shape[_LENGTH], speed))
    return {key: sorted(points, key=lambda point: point[0]) for key, points in by_rest.items()}


def _styles(suite: SuiteSpeeds) -> dict[str, tuple[str, str]]:
    """Return each implementation's colour, its own if it has one, and mark: the same in all drawings of the suite."""
    colours = {speed.implementation: speed.colour for case in suite.cases for speed in _timed(case)}
    return {
        name: (
            colour or _COLOURS[number % len(_COLOURS)],
            _MARKS[(number + number // len(_COLOURS)) % len(_MARKS)],
        )
        for number, (name, colour) in enumerate(colours.items())
    }


def _timed(case: CaseSpeeds) -> Sequence[Speed]:
    """Return the implementations of a case that have a time."""
    return [speed for speed in case.speeds if speed.milliseconds is not None]
