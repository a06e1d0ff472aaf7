"""Draw the figures of a report from its summary: interactive ones for the HTML page, one SVG for documents."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.formats import setting, spoken
from trans4init.reports.records.schema import Metric, StudyCard
from trans4init.reports.records.vocabulary import SYMBOLS
from trans4init.reports.statistics import Interval
from trans4init.reports.study_report.summary import CellSummary, Summary
from trans4init.reports.study_report.tuning import Trial, best_first
from trans4init.reports.study_report.verdict import Comparison

__all__ = ["accuracy_against_speed", "draw_blocks", "draw_differences", "loss_curves", "tuning_trials"]

_GRID = "#DDDDDD"
_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def accuracy_against_speed(summary: Summary) -> go.Figure | None:
    """Return a figure with a mark for each cell: training speed against the metric, both with plain 95 % intervals.

    None while no speed is measured.
    """
    assert summary.card is not None
    assert summary.metric is not None
    figure = _figure(
        f"training speed, × {summary.card.reference.arm}, 95 % each",
        f"{spoken(summary.metric.name)} ({summary.metric.unit})",
    )
    for cell in summary.cells:
        if cell.training_speed is None or cell.metric is None:
            continue
        arm = summary.card.arm(cell.cell.arm)
        figure.add_trace(
            go.Scatter(
                x=[cell.training_speed.value],
                y=[cell.metric.value],
                error_x=_bars(cell.training_speed.value, cell.training_speed.interval),
                error_y=_bars(cell.metric.value, cell.metric.interval),
                name=escape(cell.label),
                mode="markers",
                marker={"color": arm.colour, "symbol": _symbol(summary, cell), "size": 12},
                hovertemplate="%{fullData.name}<br>%{x:.3f} × speed<br>%{y:.4f}<extra></extra>",
            )
        )
    return figure if figure.data else None


def loss_curves(summary: Summary) -> go.Figure | None:
    """Return a figure of the metric over training, as mean and range of the seeds; None while no run is evaluated."""
    assert summary.card is not None
    assert summary.metric is not None
    figure = _figure("training step", f"{spoken(summary.metric.name)} ({summary.metric.unit})")
    for index, cell in enumerate(summary.cells):
        if cell.curve is None:
            continue
        arm, curve = summary.card.arm(cell.cell.arm), cell.curve
        figure.add_trace(
            go.Scatter(
                x=[*curve.steps, *reversed(curve.steps)],
                y=[*curve.highest, *reversed(curve.lowest)],
                fill="toself",
                fillcolor=arm.colour,
                opacity=0.12,
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=cell.label,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=curve.steps,
                y=curve.mean,
                name=escape(cell.label),
                legendgroup=cell.label,
                mode="lines+markers",
                line={"color": arm.colour, "dash": _DASHES[index % len(_DASHES)], "width": 2},
                marker={"symbol": _symbol(summary, cell), "size": 8},
                hovertemplate="%{fullData.name}<br>step %{x}<br>%{y:.4f}<extra></extra>",
            )
        )
    return figure if figure.data else None


def tuning_trials(summary: Summary) -> go.Figure | None:
    """Return a figure of every cell's trials: mean over the tuning seeds, bars to the lowest and the highest seed.

    A line is the mean of the best trial so far, which is Optuna's history of an optimisation.

    None where no trial has a value.
    """
    assert summary.card is not None
    assert summary.metric is not None
    figure = _figure("trial", f"{spoken(summary.metric.name)} ({summary.metric.unit})")
    for cell in summary.cells:
        trials = sorted(cell.tuning.trials, key=lambda trial: trial.number) if cell.tuning else []
        shown = [(trial, trial.mean) for trial in trials if trial.mean is not None]
        if not shown or cell.tuning is None:
            continue
        arm = summary.card.arm(cell.cell.arm)
        known = [[value for value in trial.values.values() if value is not None] for trial, _ in shown]
        means = [mean for _, mean in shown]
        figure.add_trace(_best_so_far(summary.metric, trials, arm.colour, cell.label))
        figure.add_trace(
            go.Scatter(
                x=[trial.number for trial, _ in shown],
                y=means,
                legendgroup=cell.label,
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [max(values) - mean for values, mean in zip(known, means, strict=True)],
                    "arrayminus": [mean - min(values) for values, mean in zip(known, means, strict=True)],
                    "thickness": 1.5,
                },
                name=escape(cell.label),
                mode="markers",
                marker={
                    "color": arm.colour,
                    "symbol": _symbol(summary, cell),
                    "size": [14 if trial == cell.tuning.best else 8 for trial, _ in shown],
                },
                text=[", ".join(f"{spoken(k)} {setting(v)}" for k, v in trial.settings.items()) for trial, _ in shown],
                hovertemplate="%{fullData.name}<br>trial %{x}: %{text}<br>%{y:.4f}<extra></extra>",
            )
        )
    return figure if figure.data else None


def _best_so_far(metric: Metric, trials: Sequence[Trial], colour: str, label: str) -> go.Scatter:
    """Return the history of a cell's tuning as a line: the mean of the best of the trials up to each one."""
    best = [trials[0]]
    for trial in trials[1:]:
        best.append(best_first([best[-1], trial], metric)[0])
    return go.Scatter(
        x=[trial.number for trial in trials],
        y=[trial.mean for trial in best],
        mode="lines",
        line={"color": colour, "shape": "hv", "width": 1},
        legendgroup=label,
        showlegend=False,
        hoverinfo="skip",
    )


def draw_differences(summary: Summary) -> str | None:
    """Return an SVG of the paired difference and the training speed of every compared cell.

    None while no seed has both runs of a pair. The same summary gives the same text.
    """
    return draw_blocks([summary])


def draw_blocks(summaries: Sequence[Summary]) -> str | None:
    """Return an SVG like that of `draw_differences` with a row of panels for each block of a grid, under its label.

    Blocks without a pair are left out; None where all are.
    """
    drawn = [(summary, cells) for summary in summaries if (cells := _compared(summary)) and summary.metric]
    if not drawn:
        return None
    titled = len(summaries) > 1
    heights = [0.9 + titled * 0.3 + 0.36 * len(cells) for _, cells in drawn]
    with drawing_style(9.5):
        figure = Figure(figsize=(8.4, 0.4 + sum(heights)), layout="constrained")
        panels = figure.subplots(len(drawn), 2, sharey="row", width_ratios=(3, 2), height_ratios=heights, squeeze=False)
        for (summary, cells), (left, right) in zip(drawn, panels, strict=True):
            assert summary.card is not None
            _draw_metric(left, cells, summary)
            _draw_speed(right, cells, summary.card)
            left.set_yticks(range(len(cells)), [cell.label for cell in cells])
            left.set_ylim(len(cells) - 0.5, -0.5)
            left.locator_params(axis="x", nbins=6)
            if titled:
                left.set_title(summary.card.block, loc="left", fontweight="bold", fontsize=10)
        return as_svg(figure)


def _compared(summary: Summary) -> list[CellSummary]:
    return [cell for cell in summary.cells if cell.comparison and cell.comparison.mean is not None]


def _draw_metric(axes: Axes, cells: list[CellSummary], summary: Summary) -> None:
    assert summary.card is not None
    assert summary.metric is not None
    margin = summary.card.margin
    axes.axvspan(-margin, margin, color="#EEEEEE", zorder=0, label="margin")
    axes.axvline(0, color="#999999", linewidth=1, zorder=1)
    for row, cell in enumerate(cells):
        comparison = cell.comparison
        assert comparison is not None
        assert comparison.mean is not None
        _draw_seeds(axes, row, comparison, summary.card.arm(cell.cell.arm).colour)
        _draw_estimate(axes, row, comparison.mean, comparison.interval, cell, summary.card)
        axes.annotate(
            cell.word,
            (comparison.mean, row),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    better = "right" if summary.metric.higher_is_better else "left"
    axes.set_xlabel(
        f"{spoken(summary.metric.name)} − {summary.card.reference.arm}  ({summary.metric.unit}; {better} is better)"
    )


def _draw_seeds(axes: Axes, row: int, comparison: Comparison, colour: str) -> None:
    """Draw the difference of each seed as a dot below the cell's mark; of a seed that lies far off as a ring."""
    for far in (False, True):
        differences = [d for seed, d in comparison.differences.items() if (seed in comparison.outliers) == far]
        face = "none" if far else colour
        axes.plot(differences, [row + 0.22] * len(differences), ".", color=colour, markerfacecolor=face, alpha=0.6)


def _draw_speed(axes: Axes, cells: list[CellSummary], card: StudyCard) -> None:
    axes.axvline(1, color="#999999", linewidth=1, zorder=1)
    for row, cell in enumerate(cells):
        if cell.training_speed is not None:
            _draw_estimate(axes, row, cell.training_speed.value, cell.training_speed.interval, cell, card)
    axes.set_xlabel(f"training speed, × {card.reference.arm}")


def _draw_estimate(
    axes: Axes, row: int, value: float, interval: Interval | None, cell: CellSummary, card: StudyCard
) -> None:
    """Draw a mark with its interval; the mark is hollow if the cell's function is not the study's."""
    hollow = cell.cell.function != card.reference.function
    arm = card.arm(cell.cell.arm)
    if interval is not None:
        axes.plot([interval.low, interval.high], [row, row], color=arm.colour, linewidth=2, solid_capstyle="butt")
    face = "white" if hollow else arm.colour
    axes.plot([value], [row], marker=SYMBOLS.get(arm.symbol, "o"), color=arm.colour, markerfacecolor=face, markersize=7)


def _figure(x: str, y: str) -> go.Figure:
    """Return an empty figure with these titles of its axes."""
    axis = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": "#888888", "ticks": "outside"}
    return go.Figure(
        layout={
            "xaxis": {**axis, "title": {"text": x}},
            "yaxis": {**axis, "title": {"text": y}},
            "font": _FONT,
            "plot_bgcolor": "white",
            "paper_bgcolor": "white",
            "height": 440,
            "margin": {"l": 70, "r": 20, "t": 20, "b": 60},
            "template": "none",
        }
    )


def _bars(value: float, interval: Interval | None) -> dict[str, object]:
    """Return plotly's error bars of a value: distances from it, not ends."""
    if interval is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.high - value],
        "arrayminus": [value - interval.low],
        "thickness": 1.5,
    }


def _symbol(summary: Summary, cell: CellSummary) -> str:
    """Return the arm's mark, in its open form if the cell's function is not the study's."""
    assert summary.card is not None
    symbol = summary.card.arm(cell.cell.arm).symbol
    symbol = symbol if symbol in SYMBOLS else "circle"
    return symbol if cell.cell.function == summary.card.reference.function else f"{symbol}-open"
