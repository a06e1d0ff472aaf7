"""Say what the cells of a study are for: the reference, what is asked about, or controls, the cheapest first."""

from trans4init.reports.records.schema import CellKey, StudyCard
from trans4init.reports.records.vocabulary import ArmRole

__all__ = ["controls", "role"]


def role(card: StudyCard, cell: CellKey) -> ArmRole:
    """Return what a cell of the card's study is for; a cell of another function is a control, whatever its arm.

    In results that were written before arms had roles, the study asks about the arms with a fitted net.
    """
    if cell == card.reference:
        return "reference"
    if cell.function != card.reference.function:
        return "control"
    arm = card.arm(cell.arm)
    return arm.role or ("question" if arm.needs_fit else "control")


def controls(card: StudyCard) -> tuple[CellKey, ...]:
    """Return the cells that are controls, the cheapest explanation of a gain first.

    The order is that of the arms' stated `cost_rank`, and the card's where two have the same.
    """
    cells = [cell for cell in card.cells if role(card, cell) == "control"]
    return tuple(sorted(cells, key=lambda cell: card.arm(cell.arm).cost_rank))
