"""Judge paired runs: is a cell better than the reference, worse, equivalent or inconclusive, and why?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trans4init.reports.records.schema import CellKey
from trans4init.reports.records.vocabulary import VerdictWord
from trans4init.reports.statistics import (
    Interval,
    bca_interval,
    equivalence_test,
    holm,
    seed_floor,
    sign_flip_test,
    smallest_visible_effect,
)

__all__ = ["LEVEL", "Comparison", "PairedRuns", "judge"]

LEVEL = 0.05
"""The chance of a wrong *better* or *worse* anywhere in a study; `judge` and the seed floor are held to it."""


@dataclass(frozen=True)
class PairedRuns:
    """The values of one cell and of the reference by seed; None stands for a run that ended without a value."""

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
    """One cell compared with the reference. Differences are cell minus reference, in the metric's unit."""

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
    """Its 95 % BCa interval, not adjusted for the number of comparisons; None for fewer than two pairs."""
    p_different: float | None
    """p of the exact two-sided sign-flip test, adjusted by Holm over the study's comparisons."""
    p_equivalent: float | None
    """The larger p of two one-sided tests against the margin, adjusted by Holm likewise."""
    visible: float | None
    """The smallest mean difference that the study would have found with probability 0.8 among its comparisons."""


def judge(
    runs: Sequence[PairedRuns], *, comparisons: int, margin: float, higher_is_better: bool
) -> tuple[Comparison, ...]:
    """Compare each cell with the reference, and return the comparisons in the order of `runs`.

    comparisons: how many the study planned (m); cells that have no pair yet count too, and where `runs` are more, their
    number counts. margin: differences within ±margin count as equivalent, which was stated before the study was run.
    An effect that is certain but inside the margin is "equivalent": the margin says what matters. Below the seed floor
    there are numbers and "no verdict".
    """
    planned = max(comparisons, len(runs))
    drafts = [_unjudged(pair, planned, margin) for pair in runs]
    different = _adjust([draft.p_different for draft in drafts], planned)
    equivalent = _adjust([draft.p_equivalent for draft in drafts], planned)
    return tuple(
        _decide(
            replace(draft, p_different=p_different, p_equivalent=p_equivalent), pair, planned, margin, higher_is_better
        )
        for draft, pair, p_different, p_equivalent in zip(drafts, runs, different, equivalent, strict=True)
    )


def _unjudged(pair: PairedRuns, planned: int, margin: float) -> Comparison:
    """Return the numbers of a comparison: no verdict yet, p values not adjusted."""
    differences = list(pair.differences().values())
    return Comparison(
        cell=pair.cell,
        verdict="no verdict",
        reason="",
        pairs=len(differences),
        lost=pair.lost(),
        mean=float(np.mean(differences)) if differences else None,
        interval=bca_interval(differences),
        p_different=sign_flip_test(differences) if differences else None,
        p_equivalent=equivalence_test(differences, margin) if differences else None,
        visible=smallest_visible_effect(differences, planned),
    )


def _adjust(p_values: Sequence[float | None], planned: int) -> list[float | None]:
    """Adjust p values by Holm over the planned comparisons; a comparison without a p counts as p = 1 and stays None."""
    filled = [1.0 if p is None else p for p in p_values]
    adjusted = holm(filled + [1.0] * (planned - len(filled)))
    return [None if p is None else adjusted[index] for index, p in enumerate(p_values)]


def _decide(draft: Comparison, pair: PairedRuns, planned: int, margin: float, higher_is_better: bool) -> Comparison:
    """Return the comparison with its verdict and reason; its p values are adjusted already."""
    floor = seed_floor(planned, LEVEL)
    if draft.mean is None or draft.p_different is None or draft.p_equivalent is None:
        return replace(draft, reason="no pair of finished runs")
    if draft.pairs < floor:
        return replace(
            draft, reason=f"a verdict on {planned} comparisons needs at least {floor} pairs, not {draft.pairs}"
        )
    improved = (draft.mean > 0) == higher_is_better
    word: VerdictWord
    if draft.p_equivalent < LEVEL:
        word, reason = "equivalent", f"within ±{margin:g} (p = {draft.p_equivalent:.2g})"
        if draft.p_different < LEVEL:
            reason += f"; a difference is certain (p = {draft.p_different:.2g}) but inside the margin"
    elif draft.p_different < LEVEL:
        word, reason = ("better" if improved else "worse"), f"p = {draft.p_different:.2g}"
    else:
        word = "inconclusive"
        reason = (
            f"neither different (p = {draft.p_different:.2g}) nor within ±{margin:g} (p = {draft.p_equivalent:.2g})"
        )
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
