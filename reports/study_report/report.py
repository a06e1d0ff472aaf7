"""Write the report of a study: an HTML page, a Markdown page and a drawing, from Parquet alone. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trans4init.reports.files import write_whole
from trans4init.reports.pages import templates
from trans4init.reports.records.store import Results, load_results
from trans4init.reports.study_report.figures import accuracy_against_speed, draw_differences, loss_curves
from trans4init.reports.study_report.report_files import DRAWING, HTML, MARKDOWN, digest
from trans4init.reports.study_report.summary import Summary, summarise
from trans4init.reports.study_report.verdict_text import VerdictText, verdict_text

__all__ = ["NoResultsError", "Report", "write_report"]


class NoResultsError(ValueError):
    """A folder has no result to report on."""


@dataclass(frozen=True)
class Report:
    """The files of a report that was written, and what it was made of."""

    html: Path
    markdown: Path
    drawing: Path | None
    """None where there is nothing to draw yet."""
    text: VerdictText
    """The verdict that the report states."""
    results: Results
    """The results that were read."""

    def files(self) -> list[Path]:
        """Return the paths of all its files."""
        return [path for path in (self.html, self.markdown, self.drawing) if path is not None]


def write_report(folder: Path, results: Results | None = None) -> Report:
    """Render `report.html`, `report.md` and `report.svg` into a study's folder from its `results/*.parquet`.

    results: the content of these files, if the caller has read them already.
    Raises NoResultsError where there are no results, and UnreadableSchemaError for results of another schema version.
    """
    results = results or load_results(folder / "results")
    if not results.records:
        raise NoResultsError(f"{folder} has no results to report on (no readable {folder / 'results'}/*.parquet).")
    summary = summarise(results.records, results.card)
    drawing, text = draw_differences(summary), verdict_text(summary)
    pages = templates()
    shared = {
        "summary": summary,
        "corrupt": results.corrupt,
        "digest": digest(results),
        "drawing": drawing,
        "verdict": text.paragraphs(),
    }
    html, markdown, svg = folder / HTML, folder / MARKDOWN, folder / DRAWING
    figures = _figures(summary)
    write_whole(
        html, pages.get_template("report.html.j2").render(shared | {"figures": figures, "script": _script(figures)})
    )
    write_whole(markdown, pages.get_template("report.md.j2").render(shared))
    if drawing is not None:
        write_whole(svg, drawing)
    return Report(html, markdown, svg if drawing is not None else None, text, results)


def _figures(summary: Summary) -> dict[str, str]:
    """Return the interactive figures as HTML, by title."""
    if summary.card is None:
        return {}
    drawn = {
        "Accuracy against throughput": accuracy_against_speed(summary),
        "Loss over training": loss_curves(summary),
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
