"""Count how often a study's words are right and wrong, on studies whose truth is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trans4init.reports.records.schema import CellKey, RunRecord
from trans4init.reports.statistics import Interval
from trans4init.reports.study_report.verdict import Comparison, PairedRuns, judge

__all__ = ["Count", "as_markdown", "calibrate", "whole_path"]

_ARMS, _SEEDS = 9, 10
"""What a study that is drawn has: a reference and eight arms beside it, each run with ten seeds."""
_WRONG = ("better", "worse")


@dataclass(frozen=True)
class Count:
    """Counts how often something happened in `total` studies or comparisons."""

    what: str
    happened: int
    total: int
    asked: str
    """What the share is meant to be, in words."""

    def share(self) -> float:
        """Return how often it happened, as a share."""
        return self.happened / self.total

    def interval(self) -> Interval:
        """Return the exact 95 % interval of the share (Clopper and Pearson 1934)."""
        from scipy.special import betaincinv  # here, since SciPy takes a second

        k, n = self.happened, self.total
        low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
        return Interval(low, high)


def calibrate(values: Sequence[float | None], draws: int, seed: int = 0) -> list[Count]:
    """Draw studies of nine arms and ten seeds from values of one model, and count their words.

    values: a metric of trainings that differ in their seed alone; lower is better. No arm of a study differs, except
    where an effect is planted in one of them: it is the smallest visible effect, the mean over all comparisons.
    """
    pool = np.array([value for value in values if value is not None])
    if len(pool) < _ARMS * _SEEDS:
        raise ValueError(f"a study takes {_ARMS * _SEEDS} trainings, and the pool has {len(pool)}")
    generator = np.random.default_rng(seed)
    studies = [generator.choice(pool, (_ARMS, _SEEDS), replace=False) for _ in range(draws)]
    comparisons = _ARMS - 1
    plain = [_judge(study, margin=1e-12) for study in studies]
    visible = float(np.mean([comparison.visible for study in plain for comparison in study]))
    counts = [
        Count(
            "studies with a false *better* or *worse*", _families(plain), draws, "at most 5 %, the interval at most 7 %"
        ),
        Count(
            "plain 95 % intervals that hold the true 0", _held(plain, lambda c: c.interval), draws * comparisons, "95 %"
        ),
        Count("studies whose corrected intervals all hold it", _all_held(plain), draws, "at least 95 %"),
    ]
    for factor, asked in ((1.0, "75 to 85 %"), (1.5, "at least 95 %")):
        planted = [_judge(_shifted(study, factor * visible), margin=1e-12)[0] for study in studies]
        found = sum(comparison.verdict == "worse" for comparison in planted)
        counts.append(Count(f"planted effects of {factor:g} × the visible one that were found", found, draws, asked))
    equal = [_judge(study, margin=1.5 * visible) for study in studies]
    words = sum(comparison.verdict == "equivalent" for study in equal for comparison in study)
    asked = "at least 90 %"
    counts.append(Count("comparisons *equivalent* within 1.5 × the visible effect", words, draws * comparisons, asked))
    return counts


def whole_path(studies: Sequence[Sequence[Comparison]]) -> list[Count]:
    """Count the false words of studies that were run from their files, whose arms don't differ."""
    return [
        Count(
            "studies run from file to verdict with a false *better* or *worse*",
            _families(studies),
            len(studies),
            "at most 5 %",
        )
    ]


def as_markdown(counts: Sequence[Count], run: RunRecord, trainings: int) -> str:
    """Return the counts as a page. run: one of the trainings, for what they were made with."""
    lines = [
        "# Calibration",
        "",
        f"{trainings:,} trainings of one model differ in nothing but their seed. Studies of {_ARMS - 1} arms beside a "
        f"reference and {_SEEDS} seeds are drawn from them. Made by `nox -s calibration`.",
        "",
        "| what was counted | times | share [95 %] | asked |",
        "| --- | --- | --- | --- |",
    ]
    for count in counts:
        ends = count.interval()
        share = f"{count.share():.1%} [{ends.low:.1%}, {ends.high:.1%}]"
        lines.append(f"| {count.what} | {count.happened:,} of {count.total:,} | {share} | {count.asked} |")
    environment = run.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    lines += ["", f"{environment.processor}, {environment.cores} cores; Python {environment.python}; {versions}.", ""]
    return "\n".join(lines)


def _judge(study: np.ndarray, margin: float) -> tuple[Comparison, ...]:
    reference, *arms = (dict(enumerate(map(float, row))) for row in study)
    runs = [PairedRuns(CellKey("f", str(number)), arm, reference) for number, arm in enumerate(arms)]
    return judge(runs, comparisons=len(runs), margin=margin, higher_is_better=False)


def _shifted(study: np.ndarray, effect: float) -> np.ndarray:
    """Return the study with an effect planted in its first arm."""
    planted = study.copy()
    planted[1] += effect
    return planted


def _families(studies: Sequence[Sequence[Comparison]]) -> int:
    return sum(any(comparison.verdict in _WRONG for comparison in study) for study in studies)


def _held(studies: Sequence[Sequence[Comparison]], interval_of: Callable[[Comparison], Interval | None]) -> int:
    ends = [interval_of(comparison) for study in studies for comparison in study]
    return sum(interval is not None and not interval.excludes(0) for interval in ends)


def _all_held(studies: Sequence[Sequence[Comparison]]) -> int:
    return sum(_held([study], lambda c: c.interval_adjusted) == len(study) for study in studies)
