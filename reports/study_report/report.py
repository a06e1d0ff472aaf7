"""Write the report of a study: an HTML page, a Markdown page and a drawing, from Parquet alone. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trans4init.reports.files import write_whole
from trans4init.reports.pages import templates
from trans4init.reports.records.store import Results, load_results
from trans4init.reports.statistics import interval_floor
from trans4init.reports.study_report.budget_figure import draw_budget
from trans4init.reports.study_report.figures import (
    accuracy_against_speed,
    draw_differences,
    loss_curves,
    tuning_trials,
)
from trans4init.reports.study_report.report_files import BUDGET_DRAWING, DRAWING, HTML, MARKDOWN, digest
from trans4init.reports.study_report.slot_figures import draw_slots
from trans4init.reports.study_report.speed import FEWEST_BUILDS
from trans4init.reports.study_report.summary import Summary, summarise
from trans4init.reports.study_report.target_figure import draw_times
from trans4init.reports.study_report.verdict_text import VerdictText, verdict_text

__all__ = ["NoResultsError", "Report", "write_report"]


class NoResultsError(ValueError):
    """A folder has no result to report on."""


@dataclass(frozen=True)
class Report:
    """Names the files of a report that was written, and what it was made of."""

    html: Path
    markdown: Path
    drawing: Path | None
    """None where there is nothing to draw yet."""
    text: VerdictText
    """The verdict that the report states."""
    results: Results
    """The results that were read."""
    budget_drawing: Path | None = None
    """None for a study without an error budget."""

    def files(self) -> list[Path]:
        """Return the paths of all its files."""
        paths = (self.html, self.markdown, self.drawing, self.budget_drawing)
        return [path for path in paths if path is not None]


def write_report(folder: Path, results: Results | None = None, *, kept_in: Path | None = None) -> Report:
    """Render `report.html`, `report.md` and its drawings into a study's folder from its `results/*.parquet`.

    results: the content of these files, if the caller has read them already. kept_in: the folder of the study whose
    runs kept their slots, for results that were copied without them; the page alone draws these.
    Raises NoResultsError where there are no results, and UnreadableSchemaError for results of another schema version.
    """
    results = results or load_results(folder / "results")
    if not results.records:
        raise NoResultsError(f"{folder} has no results to report on (no readable {folder / 'results'}/*.parquet).")
    summary = summarise(results.records, results.card)
    drawings, text = {DRAWING: draw_differences(summary), BUDGET_DRAWING: draw_budget(summary)}, verdict_text(summary)
    pages = templates()
    shared = {
        "summary": summary,
        "corrupt": results.corrupt,
        "digest": digest(results),
        "drawing": drawings[DRAWING],
        "budget_drawing": drawings[BUDGET_DRAWING],
        "times_drawing": draw_times(summary),
        "verdict": text.paragraphs(),
        "interval_floor": interval_floor(),
        "fewest_builds": FEWEST_BUILDS,
        "slots": draw_slots(summary, kept_in or folder),
    }
    html, markdown = folder / HTML, folder / MARKDOWN
    figures = _figures(summary)
    write_whole(
        html, pages.get_template("report.html.j2").render(shared | {"figures": figures, "script": _script(figures)})
    )
    write_whole(markdown, pages.get_template("report.md.j2").render(shared))
    written = {
        name: write_whole(folder / name, drawing) if drawing is not None else None for name, drawing in drawings.items()
    }
    return Report(html, markdown, written[DRAWING], text, results, written[BUDGET_DRAWING])


def _figures(summary: Summary) -> dict[str, str]:
    """Return the interactive figures as HTML, by title."""
    if summary.card is None:
        return {}
    drawn = {
        "Accuracy against throughput": accuracy_against_speed(summary),
        "Loss over training": loss_curves(summary),
        "Tuning trials": tuning_trials(summary),
    }
    options = {"displaylogo": False, "responsive": True}
    return {
        title: figure.to_html(
            full_html=False, include_plotlyjs=False, config=options, div_id=title.lower().replace(" ", "-")
        )
        for title, figure in drawn.items()
        if figure is not None
    }


def _script(figures: Mapping[str, str]) -> str:
    """Return the source of plotly.js, so that the page needs no network; an empty string where it has no figure."""
    if not figures:
        return ""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
