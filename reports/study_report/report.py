"""Write the report of a study: an HTML page, a Markdown page and a drawing, from Parquet alone. Needs no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trans4init.reports.files import write_whole
from trans4init.reports.machine import Environment
from trans4init.reports.pages import templates
from trans4init.reports.records.store import Results, load_results
from trans4init.reports.statistics import interval_floor
from trans4init.reports.study_report.blocks import idle_runs, study_text, summaries
from trans4init.reports.study_report.budget_figure import draw_budget
from trans4init.reports.study_report.figures import (
    accuracy_against_speed,
    draw_blocks,
    draw_differences,
    loss_curves,
    tuning_trials,
)
from trans4init.reports.study_report.front_figure import draw_fronts
from trans4init.reports.study_report.importances import Importances, estimate_importances
from trans4init.reports.study_report.report_files import BUDGET_DRAWING, DRAWING, HTML, MARKDOWN, digest
from trans4init.reports.study_report.slot_figures import SlotDrawing, draw_slots
from trans4init.reports.study_report.speed import FEWEST_BUILDS
from trans4init.reports.study_report.summary import Summary
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
    budget_drawings: tuple[Path, ...] = ()
    """One for each block with an error budget."""

    @property
    def budget_drawing(self) -> Path | None:
        """The first drawing of an error budget; None for a study without one."""
        return self.budget_drawings[0] if self.budget_drawings else None

    def files(self) -> list[Path]:
        """Return the paths of all its files."""
        paths = (self.html, self.markdown, self.drawing, *self.budget_drawings)
        return [path for path in paths if path is not None]


@dataclass(frozen=True)
class _Block:
    """Holds what the pages show of a block, or of a study that is no grid."""

    number: int
    """Its place in the grid, from 1."""
    summary: Summary
    verdict: Mapping[str, str]
    figures: Mapping[str, str]
    slots: SlotDrawing
    drawing: str | None
    drawing_file: str
    """Empty where the Markdown page has no drawing of this block alone."""
    budget_drawing: str | None
    budget_file: str
    times_drawing: str | None
    fronts_drawing: str | None
    importances: Importances


def write_report(folder: Path, results: Results | None = None, *, kept_in: Path | None = None) -> Report:
    """Render `report.html`, `report.md` and its drawings into a study's folder from its `results/*.parquet`.

    results: the content of these files, if the caller has read them already. kept_in: the folder of the study whose
    runs kept their slots, for results that were copied without them; the page alone draws these.
    Raises NoResultsError where there are no results, and UnreadableSchemaError for results of another schema version.
    """
    results = results or load_results(folder / "results")
    if not results.records:
        raise NoResultsError(f"{folder} has no results to report on (no readable {folder / 'results'}/*.parquet).")
    of_blocks, grid = summaries(results), len(results.cards) > 1
    blocks = [_block(summary, number, grid, kept_in or folder) for number, summary in enumerate(of_blocks, 1)]
    drawing = draw_blocks(of_blocks) if grid else blocks[0].drawing
    text = study_text(of_blocks, results.cards)
    script = _script([figure for block in blocks for figure in block.figures.values()])
    shared = {
        "blocks": blocks,
        "grid": grid,
        "card": results.card,
        "correction": text.correction,
        "notes": _notes(results),
        "count": len(results.cards),
        "drawing": drawing,
        "corrupt": results.corrupt,
        "digest": digest(results),
        "verdict_lines": json.dumps(text.lines()),
        "environments": _environments(of_blocks),
        "interval_floor": interval_floor(),
        "fewest_builds": FEWEST_BUILDS,
    }
    html, markdown = folder / HTML, folder / MARKDOWN
    pages = templates()
    write_whole(html, pages.get_template("report.html.j2").render(shared | {"script": script}))
    write_whole(markdown, pages.get_template("report.md.j2").render(shared))
    drawn = write_whole(folder / DRAWING, drawing) if drawing is not None else None
    budgets = tuple(
        write_whole(folder / block.budget_file, block.budget_drawing)
        for block in blocks
        if block.budget_drawing is not None
    )
    return Report(html, markdown, drawn, text, results, budgets)


def _block(summary: Summary, number: int, grid: bool, kept_in: Path) -> _Block:
    """Draw what the pages show of a block. grid: whether there may be others, which need other names."""
    drawing, budget = draw_differences(summary), draw_budget(summary)
    budget_file = BUDGET_DRAWING.replace(".", f"-{number}.") if grid else BUDGET_DRAWING
    return _Block(
        number,
        summary,
        verdict_text(summary).paragraphs(),
        _figures(summary, f"-{number}" if grid else ""),
        draw_slots(summary, kept_in),
        drawing,
        DRAWING if drawing and not grid else "",
        budget,
        budget_file if budget else "",
        draw_times(summary),
        draw_fronts(summary),
        estimate_importances(summary),
    )


def _notes(results: Results) -> list[str]:
    """Return what is to be said of blocks without runs, and of runs whose block is no part of the grid now."""
    notes, idle = [], len(idle_runs(results))
    made = {record.spec_hash for record in results.records}
    waiting = [card.block for card in results.cards if card.block and card.spec_hash not in made]
    if waiting:
        notes.append(f"Nothing of these blocks has been run yet: {', '.join(waiting)}.")
    if idle:
        notes.append(
            f"{idle} run{'s' * (idle != 1)} of blocks that the study's file doesn't have any more "
            f"{'count' if idle != 1 else 'counts'} for nothing here."
        )
    return notes


def _environments(blocks: Sequence[Summary]) -> list[Environment]:
    by_fingerprint = {of.fingerprint(): of for summary in reversed(blocks) for of in reversed(summary.environments)}
    return list(reversed(by_fingerprint.values()))


def _figures(summary: Summary, suffix: str) -> dict[str, str]:
    """Return the interactive figures as HTML, by title. suffix: what tells their ids from other blocks'."""
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
            full_html=False, include_plotlyjs=False, config=options, div_id=title.lower().replace(" ", "-") + suffix
        )
        for title, figure in drawn.items()
        if figure is not None
    }


def _script(figures: Sequence[str]) -> str:
    """Return the source of plotly.js, so that the page needs no network; an empty string where it has no figure."""
    if not figures:
        return ""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
