"""Compare the arms of several studies with their references over all of them: each study is a task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trans4init.reports.aggregates import (
    Profile,
    Scores,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from trans4init.reports.statistics import Estimate
from trans4init.reports.study_report.summary import CellSummary, Summary

__all__ = ["AcrossStudies", "across_studies"]

_THRESHOLDS = tuple(float(value) for value in np.linspace(-3, 3, 61))
"""The gains at which performance profiles are computed, in margins."""


@dataclass(frozen=True)
class AcrossStudies:
    """Sums up an arm over several studies. A score is one seed's gain over the reference, in margins of its study."""

    arm: str
    """The arm and its net, without the function, which may be another in each study."""
    studies: tuple[str, ...]
    seeds: int
    """How many seeds of each study count."""
    gain: Estimate
    """The interquartile mean of all scores."""
    improvement: Estimate
    """The share of seeds that are better than the reference with the same seed, averaged over the studies."""
    profile: Profile
    """The share of seeds whose gain is above so many margins."""


def across_studies(summaries: Sequence[Summary]) -> tuple[AcrossStudies, ...]:
    """Return what each arm gains over all studies that have it, in the order in which the studies name them.

    An arm that fewer than two studies have is left out. Those seeds count that have a difference; of each study as
    many as of the one with the fewest, the first ones. A study's scores are its differences in the direction that is
    better, over its margin, so that studies with other metrics can be put together. Raises ValueError for a summary
    of single fits.
    """
    cells: dict[str, dict[str, Scores]] = {}
    for summary in summaries:
        if summary.card is None or summary.metric is None:
            raise ValueError("single fits have no arms that could be compared over studies")
        for cell in summary.cells:
            gains = _gains(cell, bool(summary.metric.higher_is_better), summary.card.margin)
            if gains.size:
                by_study = cells.setdefault(cell.label, {})
                if summary.card.name in by_study:
                    raise ValueError(f"two studies are called {summary.card.name!r}: name one of them anew")
                by_study[summary.card.name] = gains
    return tuple(_aggregate(arm, by_study) for arm, by_study in cells.items() if len(by_study) > 1)


def _gains(cell: CellSummary, higher_is_better: bool, margin: float) -> Scores:
    """Return the gain of each seed in margins, [seeds]; empty for the reference."""
    differences = list(cell.comparison.differences.values()) if cell.comparison else []
    return np.array(differences, dtype=np.float64) * (1 if higher_is_better else -1) / margin


def _aggregate(arm: str, by_study: dict[str, Scores]) -> AcrossStudies:
    seeds = min(len(gains) for gains in by_study.values())
    scores = np.column_stack([gains[:seeds] for gains in by_study.values()])  # [seeds, studies]
    level = np.zeros((1, scores.shape[1]))  # the reference gains nothing over itself
    return AcrossStudies(
        arm=arm,
        studies=tuple(by_study),
        seeds=seeds,
        gain=stratified_bootstrap(interquartile_mean, scores),
        improvement=stratified_bootstrap(probability_of_improvement, scores, level),
        profile=performance_profile(scores, _THRESHOLDS),
    )
