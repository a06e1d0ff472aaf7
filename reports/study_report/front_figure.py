"""Draw the Pareto fronts of a study that weighs several metrics in tuning: the judged one against each other one."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.formats import spoken
from trans4init.reports.study_report.summary import CellSummary, Summary

__all__ = ["draw_fronts"]


def draw_fronts(summary: Summary) -> str | None:
    """Return an SVG with a panel for each further metric: every trial as a dot, those on an arm's front as squares.

    A ring marks the chosen one. None for a study with one objective, and until a trial is finished.
    """
    card = summary.card
    cells = [cell for cell in summary.cells if cell.tuning and cell.tuning.front]
    if card is None or not card.tuning.objectives or not cells:
        return None
    others = card.tuning.objectives[1:]
    with drawing_style(9.5):
        figure = Figure(figsize=(4.4 * len(others), 3.8), layout="constrained")
        panels = list(figure.subplots(1, len(others), sharey=True, squeeze=False)[0])
        for axes, name in zip(panels, others, strict=True):
            for cell in cells:
                _draw(axes, cell, name, card.arm(cell.cell.arm).colour)
            axes.set_xlabel(spoken(name))
            axes.locator_params(axis="x", nbins=5)
        panels[0].set_ylabel(f"{spoken(card.metric)}\n(mean over tuning seeds)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(cells)), fontsize=8)
        return as_svg(figure)


def _draw(axes: Axes, cell: CellSummary, name: str, colour: str) -> None:
    assert cell.tuning is not None
    whole = [t for t in cell.tuning.trials if t.mean is not None and not t.failures and name in t.costs]
    front = [trial for trial in whole if trial.number in cell.tuning.front]
    chosen = [trial for trial in whole if trial.number == cell.tuning.best.number]
    for trials, mark, face, size in ((whole, ".", colour, 5), (front, "s", colour, 5), (chosen, "o", "none", 11)):
        places = [trial.costs[name] for trial in trials], [trial.mean or 0.0 for trial in trials]
        label = cell.label if trials is front else None
        alpha = 0.5 if trials is whole else 1.0
        axes.plot(*places, mark, color=colour, markerfacecolor=face, markersize=size, alpha=alpha, label=label)
