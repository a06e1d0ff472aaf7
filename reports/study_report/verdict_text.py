"""Put the verdict of a study into sentences."""

from collections.abc import Iterator
from dataclasses import dataclass

from trans4init.reports.formats import interval, signed, spoken
from trans4init.reports.records.roles import role
from trans4init.reports.study_report.error_budget import budget_sentence
from trans4init.reports.study_report.summary import CellSummary, Summary
from trans4init.reports.study_report.tunings import BUDGET_DEPENDENT, DEPENDS
from trans4init.reports.study_report.verdict import Comparison

__all__ = ["VerdictText", "verdict_text"]


@dataclass(frozen=True)
class VerdictText:
    """Holds the verdict of a study in sentences; each field is empty where there is nothing to say."""

    verdict: str
    """What the study asked: how the arms with a fitted net did; every cell, in a study without such an arm."""
    cause: str = ""
    """What explains each cell that is better: the function, or a control that gains as much."""
    controls: str = ""
    """How the other cells did: without these controls the verdict means nothing."""
    limits: str = ""
    """Where another metric contradicts the verdict."""
    blocks: tuple[tuple[str, "VerdictText"], ...] = ()
    """The label and the verdict of each block of a grid, whose other fields are empty but `correction`."""
    correction: str = ""
    """Over what the words of a grid are corrected."""

    def paragraphs(self) -> dict[str, str]:
        """Return what there is to say, each paragraph under its heading."""
        named = {"Verdict": self.verdict, "Cause": self.cause, "Controls": self.controls, "Limits": self.limits}
        return {heading: sentences for heading, sentences in named.items() if sentences}

    def lines(self) -> list[str]:
        """Return the paragraphs as lines of plain text: the verdict, and under their headings the rest.

        A grid has a line for each block, led by its label, and one that says how all words are corrected.
        """
        if self.blocks:
            return [*(f"{label}: {' '.join(text.lines())}" for label, text in self.blocks), self.correction]
        return [
            sentences if heading == "Verdict" else f"{heading}: {sentences}"
            for heading, sentences in self.paragraphs().items()
        ]


def verdict_text(summary: Summary) -> VerdictText:
    """Return the verdict in sentences; all are empty for a folder of single fits."""
    card = summary.card
    if card is None:
        return VerdictText("")
    compared = [cell for cell in summary.cells if cell.comparison]
    asked = [cell for cell in compared if role(card, cell.cell) == "question"] or compared
    if not asked:
        return VerdictText("Nothing is compared.")
    pairs = max(cell.comparison.pairs for cell in asked if cell.comparison)
    against = f"Against {card.reference.arm} {card.reference.function}, over {pairs} paired seed{'s' * (pairs != 1)}"
    if card.error_budget is None:
        verdict = f"{'; '.join(_clause(cell, summary) for cell in asked)}."
    else:
        verdict = budget_sentence(summary.error_budget, card, summary.metric.unit if summary.metric else "")
    return VerdictText(
        verdict=f"{against}: {verdict}",
        cause=" ".join(_cause(cell, summary) for cell in asked if cell.gain),
        controls=_listed("", (_control(cell) for cell in compared if cell not in asked)),
        limits=_listed(f"The verdict is about {spoken(card.metric)} alone: ", _disagreements(compared)),
    )


def _clause(cell: CellSummary, summary: Summary) -> str:
    """Return the verdict on a cell with its numbers, as part of a sentence."""
    card, comparison = summary.card, cell.comparison
    assert card is not None
    assert comparison is not None
    if comparison.mean is None:
        return f"{cell.label} has no result yet"
    numbers = f"{spoken(card.metric)} {_difference(comparison)}"
    if cell.share_of_none is not None:
        share = f"{cell.share_of_none:+.0%}".replace("-", "−")
        numbers += f", {share} of what leaving the function out costs"
    if cell.training_speed and summary.session and not summary.session.warnings():
        numbers += f", training speed ×{cell.training_speed.value:.2f}"
    if comparison.verdict == "no verdict":
        return f"{cell.label} has no verdict yet ({numbers}; {comparison.reason})"
    if cell.word == DEPENDS:
        return f"{cell.label} {DEPENDS} ({cell.words()}; the first time {numbers})"
    if cell.word == BUDGET_DEPENDENT:
        return f"{cell.label} is {BUDGET_DEPENDENT} ({cell.words()}; with all {numbers})"
    return f"{cell.label} is {comparison.verdict} ({numbers})"


def _cause(cell: CellSummary, summary: Summary) -> str:
    """Return a sentence on what explains that a cell is better."""
    assert cell.gain is not None
    if cell.word == DEPENDS:
        return f"Why {cell.label} is better is open: whether it is {DEPENDS}."
    if cell.word == BUDGET_DEPENDENT:
        return f"Why {cell.label} is better is open: whether it is depends on the number of trials."
    labels = {other.cell: other for other in summary.cells}
    best, unbeaten = cell.gain.best(), cell.gain.unbeaten()
    if best is None:
        return f"Why {cell.label} is better is open: the study has no control to compare it with."
    if not unbeaten:
        share = f"the most of its gain has {labels[best.cell].label}, {best.share:.0%}"
        share = share if best.share > 0 else "none of which gains anything"
        left_out = summary.card.controls_left_out if summary.card else None
        missing = [*(labels[control.cell].label for control in cell.gain.open()), *(left_out or ())]
        if missing or left_out is None:
            without = f"without {', '.join(missing)}" if missing else "since the results don't say which were left out"
            return (
                f"{cell.label} beats every control that was compared, {share}; that it is better because it learned "
                f"the function is open {without}."
            )
        return f"{cell.label} is better because it learned the function: it beats every control, {share}."
    cheapest = unbeaten[0]
    values = labels[cheapest.cell].parameters_added
    numbers = f"{values:,} values in the slot, ".replace(",", " ", 1) if values else ""
    others = [labels[control.cell].label for control in unbeaten[1:]]
    also = f"; nor does it beat {', '.join(others)}" if others else ""
    return (
        f"That {cell.label} is better is not shown to come of the function: it does not beat "
        f"{labels[cheapest.cell].label} ({numbers}{cheapest.share:.0%} of the gain){also}."
    )


def _control(cell: CellSummary) -> str:
    """Return the verdict on a control and its mean difference, as part of a sentence."""
    assert cell.comparison is not None
    if cell.comparison.mean is None:
        return f"{cell.label} has no result yet"
    if cell.word == DEPENDS:
        return f"{cell.label} {DEPENDS} ({cell.words()}; the first time {signed(cell.comparison.mean)})"
    if cell.word == BUDGET_DEPENDENT:
        return f"{cell.label} {BUDGET_DEPENDENT} ({cell.words()}; with all {signed(cell.comparison.mean)})"
    return f"{cell.label} {cell.comparison.verdict} ({signed(cell.comparison.mean)})"


def _disagreements(compared: list[CellSummary]) -> Iterator[str]:
    """Yield a clause for each metric that calls a cell better or worse where the verdict does not."""
    for cell in compared:
        assert cell.comparison is not None
        for metric, other in cell.elsewhere.items():
            if other.verdict in ("better", "worse") and other.verdict != cell.comparison.verdict:
                tuned = cell.tunings.disagree(other, metric)
                depends = f"; {DEPENDS}: {cell.tunings.counted(other, metric)}" if tuned else ""
                yield f"{cell.label} is {other.verdict} in {spoken(metric)} ({_difference(other)}{depends})"


def _difference(comparison: Comparison) -> str:
    shown = signed(comparison.mean)
    return f"{shown} {interval(comparison.interval)}" if comparison.interval else shown


def _listed(opening: str, parts: Iterator[str]) -> str:
    listed = ", ".join(parts)
    return f"{opening}{listed}." if listed else ""
