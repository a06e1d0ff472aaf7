"""Find what explains that an arm with a fitted net is better: does it beat every control, or what a control gains?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trans4init.reports.records.roles import controls, role
from trans4init.reports.records.schema import CellKey, StudyCard
from trans4init.reports.study_report.verdict import LEVEL, Comparison, PairedRuns, judge

__all__ = ["Control", "Gain", "explain", "in_every"]


@dataclass(frozen=True)
class Control:
    """Says how a control compares with an arm that is better than the reference."""

    cell: CellKey
    share: float
    """Its mean difference from the reference, as a share of the arm's."""
    beaten: bool
    """Whether the arm is certainly better than it."""
    compared: bool = True
    """Whether both have runs with a value; where they don't, nothing is known of it."""


@dataclass(frozen=True)
class Gain:
    """Says how all controls of a study compare with an arm that is better than the reference; the cheapest first."""

    controls: tuple[Control, ...]

    def unbeaten(self) -> tuple[Control, ...]:
        """Return the controls that the arm is not certainly better than: any of them may explain its gain."""
        return tuple(control for control in self.controls if control.compared and not control.beaten)

    def open(self) -> tuple[Control, ...]:
        """Return the controls that nothing is known of, since their runs are missing or ended without a value."""
        return tuple(control for control in self.controls if not control.compared)

    def best(self) -> Control | None:
        """Return the control with the largest share of the gain."""
        known = [control for control in self.controls if control.compared]
        return max(known, key=lambda control: control.share, default=None)


def in_every(gains: Sequence[Gain]) -> Gain:
    """Return the first gain, where a control counts as beaten, and as compared, only if it does in all of them.

    The gains are of one arm, and have the same controls.
    """
    return Gain(
        tuple(
            Control(
                found[0].cell,
                found[0].share,
                all(control.beaten for control in found),
                all(control.compared for control in found),
            )
            for found in zip(*(gain.controls for gain in gains), strict=True)
        )
    )


def explain(
    card: StudyCard,
    comparisons: Mapping[CellKey, Comparison],
    values: Mapping[CellKey, Mapping[int, float | None]],
    higher_is_better: bool,
) -> dict[CellKey, Gain]:
    """Compare each better arm of the question with every control, seed by seed, and return what that says, by cell.

    values: the judged metric of each cell by seed. These comparisons are corrected together, apart from those with the
    reference: they are made only where an arm is better than that. Planned looks share the level here too.
    """
    level = LEVEL / max(1, len(card.looks))
    better = [
        cell
        for cell, comparison in comparisons.items()
        if role(card, cell) == "question" and comparison.verdict == "better" and comparison.mean
    ]
    others = [cell for cell in controls(card) if cell in comparisons]
    pairs = [PairedRuns(control, values[arm], values[control]) for arm in better for control in others]
    judged = iter(
        judge(pairs, comparisons=len(pairs), margin=card.margin, higher_is_better=higher_is_better, level=level)
    )
    gains = {}
    for arm in better:
        found = []
        for control in others:
            against = next(judged)
            certain = against.p_different is not None and against.p_different < level and not against.lost
            improved = against.mean is not None and (against.mean > 0) == higher_is_better
            share = (comparisons[control].mean or 0.0) / (comparisons[arm].mean or 1.0)
            compared = against.mean is not None and comparisons[control].mean is not None
            found.append(Control(control, share, certain and improved, compared))
        gains[arm] = Gain(tuple(found))
    return gains
