"""Read an error budget: how large the error of a net in a function's place may be, from the words of its cells."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trans4init.reports.formats import number, signed_number, spoken
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, RunRecord, StudyCard
from trans4init.reports.study_report.verdict import Comparison

__all__ = ["BudgetPoint", "ErrorBudget", "budget_sentence", "next_pieces", "read_budget"]


@dataclass(frozen=True)
class BudgetPoint:
    """Describes one net of the budget: its size, its error on its function, and what became of the model with it."""

    cell: CellKey
    pieces: int
    error: float
    comparison: Comparison


@dataclass(frozen=True)
class ErrorBudget:
    """Holds the nets of an error budget that are fitted and compared."""

    points: tuple[BudgetPoint, ...]
    """By error, the smallest first."""
    unit: str
    """The unit of the errors; "1" for relative ones."""
    factor: float
    """How close bisection was to come."""
    sizes: tuple[int, ...]
    """The numbers of pieces of all nets, those included that are not fitted or not compared yet."""
    tolerated: BudgetPoint | None
    """The one whose error is ε*: the largest with the word equivalent, below every error that is certainly worse or
    better. None if there is no such net."""
    refused: BudgetPoint | None
    """The one with the next larger error; None where ε* is the largest error or there is none."""

    def in_doubt(self) -> tuple[BudgetPoint, ...]:
        """Return the nets with errors below ε* whose word is not equivalent: their number of seeds was too small."""
        if self.tolerated is None:
            return ()
        smaller = self.points[: self.points.index(self.tolerated)]
        return tuple(point for point in smaller if point.comparison.verdict != "equivalent")


def read_budget(
    card: StudyCard, records: Iterable[RunRecord], comparisons: Mapping[CellKey, Comparison]
) -> ErrorBudget | None:
    """Return the study's error budget; None for a study that has none, or no net of it compared yet.

    comparisons: of the cells with the reference, in the metric that the verdict is about.
    """
    design = card.error_budget
    if design is None:
        return None
    errors, unit = _errors(records)
    pieces = dict(design.pieces)
    found = [
        BudgetPoint(cell, pieces[cell.net], errors[cell.net], comparison)
        for cell, comparison in comparisons.items()
        if cell.net in pieces and cell.net in errors and (comparison.mean is not None or comparison.lost)
    ]
    points = tuple(sorted(found, key=lambda point: (point.error, -point.pieces)))
    if not points:
        return None
    tolerated = None
    for index, point in enumerate(points):
        if point.comparison.verdict in ("better", "worse") or point.comparison.mean is None:
            break
        if point.comparison.verdict == "equivalent":
            tolerated = index
    refused = None if tolerated in (None, len(points) - 1) else points[tolerated + 1]
    reached = None if tolerated is None else points[tolerated]
    return ErrorBudget(points, unit, design.factor, tuple(pieces.values()), reached, refused)


def next_pieces(budget: ErrorBudget | None) -> int | None:
    """Return the size of the net that bisection tries next: between ε* and the next larger error.

    None where these two are close enough, where no size lies between them, and where there is no ε*.
    """
    if budget is None or budget.tolerated is None or budget.refused is None:
        return None
    more, fewer = budget.tolerated, budget.refused
    if fewer.error <= budget.factor * more.error:
        return None
    middle = round(math.sqrt(more.pieces * fewer.pieces))
    return middle if fewer.pieces < middle < more.pieces and middle not in budget.sizes else None


def budget_sentence(budget: ErrorBudget | None, card: StudyCard, unit: str) -> str:
    """Say what ε* is, or why there is none. unit: of the metric that the verdict is about."""
    function = card.reference.function
    if budget is None:
        return f"No net in the place of {function} has been compared yet."
    same = f"equivalent (within ±{card.margin:g} {unit} of {spoken(card.metric)})"
    smallest, largest = budget.points[0], budget.points[-1]
    if budget.tolerated is None:
        first = smallest.comparison
        if first.verdict == "no verdict":
            return f"There is no ε*: {first.reason}."
        return (
            f"There is no ε*: already at the smallest fitted error of {function}, "
            f"{_error(smallest, budget)}, the model is {_outcome(smallest)}."
        )
    if budget.refused is None:
        text = (
            f"ε* is at least {_error(largest, budget)}, the largest fitted error of {function}: "
            f"the model stays {same}, {_difference(largest)}."
        )
    else:
        text = (
            f"ε* = {_error(budget.tolerated, budget)}: a net in the place of {function} may be so far off, and the "
            f"model stays {same}, {_difference(budget.tolerated)}. At {_error(budget.refused, budget)} it is "
            f"{_outcome(budget.refused)}."
        )
    doubtful = ", ".join(f"{number(p.error, 2)} ({p.comparison.verdict})" for p in budget.in_doubt())
    return f"{text} Smaller errors without this word: {doubtful}." if doubtful else text


def _errors(records: Iterable[RunRecord]) -> tuple[dict[str, float], str]:
    """Return the error of each fitted net by its name, the largest of its fits, and the unit."""
    errors: dict[str, float] = {}
    unit = metrics.FITTED_ERROR.unit
    for record in records:
        for m in record.measurements if record.phase == "fit" and record.status == "ok" else ():
            if m.metric.name == metrics.FITTED_ERROR.name and m.value is not None:
                errors[record.cell.net] = max(m.value, errors.get(record.cell.net, 0.0))
                unit = m.metric.unit
    return errors, unit


def _error(point: BudgetPoint, budget: ErrorBudget) -> str:
    relative = " relative" if budget.unit == metrics.RELATIVE_FITTED_ERROR.unit else ""
    return f"{number(point.error, 2)}{relative} ({point.pieces} piece{'s' if point.pieces > 1 else ''})"


def _outcome(point: BudgetPoint) -> str:
    if point.comparison.mean is None:
        return "without a value in any run"
    return f"{point.comparison.verdict} ({_difference(point)})"


def _difference(point: BudgetPoint) -> str:
    comparison = point.comparison
    bounds = comparison.interval
    within = f" [{signed_number(bounds.low)}, {signed_number(bounds.high)}]" if bounds else ""
    return f"{signed_number(comparison.mean)}{within}"
