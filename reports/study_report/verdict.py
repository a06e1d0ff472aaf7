"""The verdict on a comparison of paired runs: better, worse, equivalent or inconclusive, and why."""

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


@dataclass(frozen=True)
class PairedRuns:
    """The values of one cell and of the reference, by seed; None where the run of that seed has no value."""

    cell: CellKey
    values: Mapping[int, float | None]
    reference: Mapping[int, float | None]

    def differences(self) -> dict[int, float]:
        """Cell minus reference, for the seeds that have both."""
        return {
            seed: value - other
            for seed, value in sorted(self.values.items())
            if value is not None and (other := self.reference.get(seed)) is not None
        }

    def lost(self) -> tuple[int, ...]:
        """The seeds whose run in this cell ended without a value: diverged, out of memory, failed."""
        return tuple(seed for seed, value in sorted(self.values.items()) if value is None)

    def reference_lost(self) -> tuple[int, ...]:
        """The seeds whose run in the reference ended without a value."""
        return tuple(seed for seed, value in sorted(self.reference.items()) if value is None)


@dataclass(frozen=True)
class Comparison:
    """One cell against the reference. Differences are cell minus reference, in the metric's own unit."""

    cell: CellKey
    verdict: VerdictWord
    reason: str
    pairs: int
    lost: tuple[int, ...]
    mean: float | None
    interval: Interval | None
    p_different: float | None
    """Exact two-sided sign-flip test, Holm-adjusted over the study's comparisons."""
    p_equivalent: float | None
    """The larger of two one-sided tests against the margin, Holm-adjusted likewise."""
    visible: float | None
    """The smallest mean difference that the study would have found with probability 0.8."""


def judge(
    runs: Sequence[PairedRuns], *, comparisons: int, margin: float, higher_is_better: bool
) -> tuple[Comparison, ...]:
    """Compare each cell with the reference.

    comparisons: how many the study planned (m); cells that have no pair yet still count. margin: differences
    within ±margin are equivalent, stated before the study was run. An effect that is certain but inside the margin
    is "equivalent": the margin says what matters. Below the seed floor there is no verdict, only numbers.
    """
    drafts = [_measure(pair, comparisons, margin) for pair in runs]
    planned = max(comparisons, len(drafts))
    different = _adjust([draft.p_different for draft in drafts], planned)
    equivalent = _adjust([draft.p_equivalent for draft in drafts], planned)
    return tuple(
        _decide(
            replace(draft, p_different=p_different, p_equivalent=p_equivalent), pair, planned, margin, higher_is_better
        )
        for draft, pair, p_different, p_equivalent in zip(drafts, runs, different, equivalent, strict=True)
    )


def _measure(pair: PairedRuns, comparisons: int, margin: float) -> Comparison:
    differences = list(pair.differences().values())
    some = bool(differences)
    return Comparison(
        cell=pair.cell,
        verdict="no verdict",
        reason="",
        pairs=len(differences),
        lost=pair.lost(),
        mean=float(np.mean(differences)) if some else None,
        interval=bca_interval(differences),
        p_different=sign_flip_test(differences) if some else None,
        p_equivalent=equivalence_test(differences, margin) if some else None,
        visible=smallest_visible_effect(differences, comparisons),
    )


def _adjust(p_values: Sequence[float | None], planned: int) -> list[float | None]:
    """Holm over the planned comparisons; one without a value counts as p = 1."""
    known = [1.0 if p is None else p for p in p_values]
    adjusted = holm(known + [1.0] * (planned - len(known)))
    return [None if p is None else adjusted[index] for index, p in enumerate(p_values)]


def _decide(draft: Comparison, pair: PairedRuns, planned: int, margin: float, higher_is_better: bool) -> Comparison:
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
    """A run that diverged is evidence too: the side that lost runs can't come out as well as the pairs left say."""
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
