"""Put the verdict of a study into sentences."""

from collections.abc import Iterator
from dataclasses import dataclass

from trans4init.reports.formats import interval, signed, spoken
from trans4init.reports.records.schema import StudyCard
from trans4init.reports.study_report.summary import CellSummary, Summary
from trans4init.reports.study_report.verdict import Comparison

__all__ = ["VerdictText", "verdict_text"]


@dataclass(frozen=True)
class VerdictText:
    """The verdict of a study in sentences; each field is empty where there is nothing to say."""

    verdict: str
    """What the study asked: how the arms with a fitted net did; every cell, in a study without such an arm."""
    controls: str = ""
    """How the other cells did: without these controls the verdict means nothing."""
    limits: str = ""
    """Where another metric contradicts the verdict."""

    def paragraphs(self) -> dict[str, str]:
        """Return what there is to say, each paragraph under its heading."""
        named = {"Verdict": self.verdict, "Controls": self.controls, "Limits": self.limits}
        return {heading: sentences for heading, sentences in named.items() if sentences}

    def lines(self) -> list[str]:
        """Return the paragraphs as lines of plain text: the verdict, and under their headings the rest."""
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
    asked = [cell for cell in compared if card.arm(cell.cell.arm).needs_fit] or compared
    if not asked:
        return VerdictText("Nothing is compared.")
    pairs = max(cell.comparison.pairs for cell in asked if cell.comparison)
    return VerdictText(
        verdict=f"Against {card.reference.arm} {card.reference.function}, over {pairs} paired "
        f"seed{'s' if pairs != 1 else ''}: {'; '.join(_clause(cell, card) for cell in asked)}.",
        controls=_listed("", (_control(cell) for cell in compared if cell not in asked)),
        limits=_listed(f"The verdict is about {spoken(card.metric)} alone: ", _disagreements(asked)),
    )


def _clause(cell: CellSummary, card: StudyCard) -> str:
    """Return the verdict on a cell with its numbers, as part of a sentence."""
    comparison = cell.comparison
    assert comparison is not None
    if comparison.mean is None:
        return f"{cell.label} has no result yet"
    numbers = f"{spoken(card.metric)} {_difference(comparison)}"
    if cell.training_speed:
        numbers += f", training speed ×{cell.training_speed.value:.2f}"
    if comparison.verdict == "no verdict":
        return f"{cell.label} has no verdict yet ({numbers}; {comparison.reason})"
    return f"{cell.label} is {comparison.verdict} ({numbers})"


def _control(cell: CellSummary) -> str:
    """Return the verdict on a control and its mean difference, as part of a sentence."""
    assert cell.comparison is not None
    if cell.comparison.mean is None:
        return f"{cell.label} has no result yet"
    return f"{cell.label} {cell.comparison.verdict} ({signed(cell.comparison.mean)})"


def _disagreements(asked: list[CellSummary]) -> Iterator[str]:
    """Yield a clause for each metric that calls a cell better or worse where the verdict does not."""
    for cell in asked:
        assert cell.comparison is not None
        for metric, other in cell.elsewhere.items():
            if other.verdict in ("better", "worse") and other.verdict != cell.comparison.verdict:
                yield f"{cell.label} is {other.verdict} in {spoken(metric)} ({_difference(other)})"


def _difference(comparison: Comparison) -> str:
    shown = signed(comparison.mean)
    return f"{shown} {interval(comparison.interval)}" if comparison.interval else shown


def _listed(opening: str, parts: Iterator[str]) -> str:
    listed = ", ".join(parts)
    return f"{opening}{listed}." if listed else ""
