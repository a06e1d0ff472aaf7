"""Draw the Pareto fronts of a study that weighs several metrics in tuning: the judged one against each other one."""

from matplotlib.figure import Figure

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.formats import spoken
from trans4init.reports.study_report.summary import Summary

__all__ = ["draw_fronts"]


def draw_fronts(summary: Summary) -> str | None:
    """Return an SVG with a panel for each further metric: every trial as a dot, those on an arm's front joined.

    None for a study with one objective, and until a trial is finished.
    """
    card = summary.card
    cells = [cell for cell in summary.cells if cell.tuning and cell.tuning.front]
    if card is None or not card.tuning.objectives or not cells:
        return None
    others = card.tuning.objectives[1:]
    with drawing_style(9.5):
        figure = Figure(figsize=(4.2 * len(others), 3.4), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
            for cell in cells:
                assert cell.tuning is not None
                arm = card.arm(cell.cell.arm)
                whole = [t for t in cell.tuning.trials if t.mean is not None and not t.failures and name in t.costs]
                front = sorted((t.costs[name], t.mean or 0.0) for t in whole if t.number in cell.tuning.front)
                axes.plot([t.costs[name] for t in whole], [t.mean for t in whole], ".", color=arm.colour, alpha=0.5)
                axes.plot([x for x, _ in front], [y for _, y in front], "-", color=arm.colour, label=cell.label)
                best = cell.tuning.best
                if name in best.costs and best.mean is not None:
                    axes.plot([best.costs[name]], [best.mean], "o", color=arm.colour, markerfacecolor="none")
            axes.set_xlabel(spoken(name))
        figure.axes[0].set_ylabel(f"{spoken(card.metric)}, mean over tuning seeds")
        figure.legend(loc="outside lower center", ncols=min(3, len(cells)), fontsize=8)
        return as_svg(figure)
