"""Judge paired runs: is a cell better than the reference, worse, equivalent or inconclusive, and why?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trans4init.reports.records.schema import CellKey
from trans4init.reports.records.vocabulary import VerdictWord
from trans4init.reports.statistics import (
    Interval,
    holm,
    outliers,
    seed_floor,
    sign_flip_interval,
    smallest_visible_effect,
)
from trans4init.reports.study_report.evidence import Evidence, gather

__all__ = ["LEVEL", "Comparison", "PairedRuns", "judge"]

LEVEL = 0.05
"""The chance of a wrong *better* or *worse* anywhere in a study; `judge` and the seed floor are held to it."""


@dataclass(frozen=True)
class PairedRuns:
    """Holds the values of one cell and of the reference by seed; None stands for a run that ended without a value."""

    cell: CellKey
    values: Mapping[int, float | None]
    reference: Mapping[int, float | None]

    def differences(self) -> dict[int, float]:
        """Return cell minus reference for each seed that has both values."""
        return {
            seed: value - reference
            for seed, value in sorted(self.values.items())
            if value is not None and (reference := self.reference.get(seed)) is not None
        }

    def lost(self) -> tuple[int, ...]:
        """Return the seeds whose run in this cell ended without a value: diverged, out of memory, failed."""
        return tuple(seed for seed, value in sorted(self.values.items()) if value is None)

    def reference_lost(self) -> tuple[int, ...]:
        """Return the seeds whose run in the reference ended without a value."""
        return tuple(seed for seed, value in sorted(self.reference.items()) if value is None)


@dataclass(frozen=True)
class Comparison:
    """Says how one cell compares with the reference. Differences are cell minus reference, in the metric's unit."""

    cell: CellKey
    verdict: VerdictWord
    reason: str
    """Why this verdict, for a report to print after it."""
    pairs: int
    """The number of seeds that have a difference."""
    lost: tuple[int, ...]
    """The seeds whose run in the cell ended without a value."""
    mean: float | None
    """The mean paired difference; None without a pair."""
    interval: Interval | None
    """Its 95 % interval by the sign-flip test, not adjusted for the number of comparisons; None below six pairs."""
    interval_adjusted: Interval | None
    """The interval at Bonferroni's level, level/m, so that all of a study's hold together in 95 % of studies; where
    Holm alone finds a difference, at the level that it tests at. It excludes 0 exactly where `p_different` is below
    the level, and is as careful as that (`Evidence`). None below the seed floor."""
    p_different: float | None
    """p of the exact two-sided sign-flip test, adjusted by Holm over the study's comparisons; where symmetry is in
    doubt, the largest of the tests that `Evidence` asks."""
    p_equivalent: float | None
    """The larger p of two one-sided tests against the margin, adjusted by Holm likewise."""
    visible: float | None
    """The smallest mean difference that the study would have found with probability 0.8 among its comparisons; None
    below the seed floor."""
    differences: Mapping[int, float] = field(default_factory=dict)
    """The difference of each seed that has one."""
    skewed: bool = False
    """Whether the differences speak against the symmetry that the sign-flip test assumes."""
    outliers: tuple[int, ...] = ()
    """The seeds whose difference lies far from the others."""
    supposed: bool = False
    """Whether the cell was also judged as if one more run had landed as badly as runs of other cells did."""


def judge(
    runs: Sequence[PairedRuns],
    *,
    comparisons: int,
    margin: float,
    higher_is_better: bool,
    level: float = LEVEL,
) -> tuple[Comparison, ...]:
    """Compare each cell with the reference, and return the comparisons in the order of `runs`.

    comparisons: how many the study planned (m), cells × metrics; cells that have no pair yet count too, and where
    `runs` are more, their number counts. margin: differences within ±margin count as equivalent, which was stated
    before the study was run. An effect that is certain but inside the margin is "equivalent": the margin says what
    matters. Below the seed floor there are numbers and "no verdict". level: the chance of a wrong word that this look
    at the study may take.
    """
    family = _Family(max(comparisons, len(runs)), level)
    evidence = gather([list(pair.differences().values()) for pair in runs])
    raw = [cell.p_different() for cell in evidence]
    different = family.adjust(raw)
    equivalent = family.adjust([cell.p_equivalent(margin) for cell in evidence])
    found = []
    for index, (pair, cell) in enumerate(zip(runs, evidence, strict=True)):
        draft = replace(
            _numbers(pair, cell, family),
            p_different=different[index],
            p_equivalent=equivalent[index],
            interval_adjusted=family.interval(cell, different[index], sum(_less(p, raw[index]) for p in raw)),
        )
        found.append(_decide(draft, pair, family, margin, higher_is_better))
    return tuple(found)


@dataclass(frozen=True)
class _Family:
    """Describes the comparisons that are corrected together: how many are planned, and the level that they share."""

    planned: int
    level: float

    @property
    def floor(self) -> int:
        """The fewest pairs with which a comparison can get a word."""
        return seed_floor(self.planned, self.level)

    def adjust(self, p_values: Sequence[float | None]) -> list[float | None]:
        """Adjust by Holm over the planned comparisons; one without a p counts as p = 1 and stays None."""
        filled = [1.0 if p is None else p for p in p_values]
        adjusted = holm(filled + [1.0] * (self.planned - len(filled)))
        return [None if p is None else adjusted[index] for index, p in enumerate(p_values)]

    def interval(self, cell: Evidence, adjusted: float | None, smaller: int) -> Interval | None:
        """Return the adjusted interval of a cell. smaller: how many cells have a smaller p before adjustment."""
        strictest = cell.interval(self.level / self.planned)
        if strictest is None or adjusted is None or adjusted >= self.level or strictest.excludes(0):
            return strictest
        return cell.interval(self.level / (self.planned - smaller))


def _less(p: float | None, other: float | None) -> bool:
    return p is not None and other is not None and p < other


def _numbers(pair: PairedRuns, cell: Evidence, family: _Family) -> Comparison:
    """Return the numbers of a comparison that don't depend on the others: no verdict yet, no p values."""
    by_seed = pair.differences()
    differences = list(by_seed.values())
    far = outliers(differences)
    return Comparison(
        cell=pair.cell,
        verdict="no verdict",
        reason="",
        pairs=len(differences),
        lost=pair.lost(),
        mean=float(np.mean(differences)) if differences else None,
        interval=sign_flip_interval(differences),
        interval_adjusted=None,
        p_different=None,
        p_equivalent=None,
        visible=smallest_visible_effect(differences, family.planned, family.level),
        differences=by_seed,
        skewed=cell.skewed,
        outliers=tuple(seed for place, seed in enumerate(by_seed) if place in far),
        supposed=bool(cell.supposed),
    )


def _decide(draft: Comparison, pair: PairedRuns, family: _Family, margin: float, higher_is_better: bool) -> Comparison:
    """Return the comparison with its verdict and reason; its p values are adjusted already."""
    floor, level = family.floor, family.level
    if draft.mean is None or draft.p_different is None or draft.p_equivalent is None:
        return replace(draft, reason="no pair of finished runs")
    if draft.pairs < floor:
        return replace(
            draft, reason=f"a verdict on {family.planned} comparisons needs at least {floor} pairs, not {draft.pairs}"
        )
    improved = (draft.mean > 0) == higher_is_better
    word: VerdictWord
    if draft.p_equivalent < level:
        word, reason = "equivalent", f"within ±{margin:g} (p = {draft.p_equivalent:.2g})"
        if draft.p_different < level:
            reason += f"; a difference is certain (p = {draft.p_different:.2g}) but inside the margin"
    elif draft.p_different < level:
        word, reason = ("better" if improved else "worse"), f"p = {draft.p_different:.2g}"
    else:
        word = "inconclusive"
        reason = (
            f"neither different (p = {draft.p_different:.2g}) nor within ±{margin:g} (p = {draft.p_equivalent:.2g})"
        )
    if draft.skewed:
        reason += "; the differences are skewed, so that the sign test was asked too"
    if draft.supposed:
        reason += "; judged as if one more run had landed as far off as some of other cells did"
    return _weigh_losses(replace(draft, verdict=word, reason=reason), pair)


def _weigh_losses(draft: Comparison, pair: PairedRuns) -> Comparison:
    """Turn a verdict that favours the side which lost runs into "inconclusive": a run that diverged is evidence too."""
    lost, reference_lost = pair.lost(), pair.reference_lost()
    flattered = (lost and draft.verdict in ("better", "equivalent")) or (
        reference_lost and draft.verdict in ("worse", "equivalent")
    )
    if not flattered:
        return draft
    total = len(pair.values)
    count = f"{len(lost)} of {total} runs" if lost else f"{len(reference_lost)} of {total} reference runs"
    return replace(
        draft,
        verdict="inconclusive",
        reason=f"{count} ended without a value; the {draft.pairs} pairs left would say {draft.verdict}",
    )
