"""Sum up a study's throughput session: each cell's speed as a multiple of the reference's, and how far to trust it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trans4init.reports.formats import limits
from trans4init.reports.machine import CONTENDED_SHARE, MOST_CONTENDED
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Metric, RunRecord, StudyCard
from trans4init.reports.records.tuning_design import Setting, shapes_runs
from trans4init.reports.records.vocabulary import REFERENCE_COPY
from trans4init.reports.statistics import Estimate, Interval, sign_flip_interval
from trans4init.reports.study_report.verdict import LEVEL

__all__ = ["FEWEST_BUILDS", "CellSpeed", "Session", "SpeedRatio", "speed_ratio", "throughput_session"]

FEWEST_BUILDS = 8
"""`speed_ratio` gives no interval of fewer builds: what one build happens to be would decide where it ends."""


@dataclass(frozen=True)
class SpeedRatio(Estimate):
    """Holds a speed as a multiple of the reference's; `count` is the number of builds that it was measured on."""

    corrected: Interval | None = None
    """The interval at Bonferroni's level: those of all arms hold together in 95 % of sessions. None where the builds
    are too few for it."""


@dataclass(frozen=True)
class CellSpeed:
    """Says what a throughput session measured of one cell. What was not measured is None."""

    training: SpeedRatio | None
    """Of forward pass, backward pass and optimiser step."""
    forward: SpeedRatio | None
    """Of the forward pass alone."""
    tokens_per_second: float | None
    """The median training throughput."""


@dataclass(frozen=True)
class Session:
    """Says what a throughput session measured, and what it says of itself."""

    reference: CellKey
    cells: Mapping[CellKey, CellSpeed]
    """The speed of each cell that was timed, the reference's own included."""
    copy: CellSpeed | None
    """The speed of the second copy of the reference; the intervals of both kinds hold together in 95 % of sessions.
    None in results that were written before sessions had one."""
    builds: int
    """How often the models were built."""
    builds_rounds: int | None
    """How many rounds were timed between two builds; None in results from before models were built more than once."""
    contended: int
    """The number of stretches of the session, one for each build, in which other processes used the machine."""
    stretches: int
    """The number of stretches of which that is known."""

    def sentences(self) -> tuple[str, ...]:
        """Say what the second copy of the reference showed, and how many builds give an interval if these don't."""
        said = []
        if self.copy is None:
            said.append(f"No second copy of {self.reference.arm} was timed, which would check the intervals of speeds.")
        elif self.copy.training is not None and not self._differing():
            said.append(
                f"A check of the session: a second copy of {self.reference.arm}, timed like any other arm, was "
                f"{self._measured()}."
            )
        if self.builds < FEWEST_BUILDS:
            times = f"{self.builds} time{'s' if self.builds != 1 else ''}"
            said.append(
                f"Speeds have no interval: the models were built {times}, and {FEWEST_BUILDS} builds give one "
                f"({self._advice()})."
            )
        return tuple(said)

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each reason why nothing is claimed from these speeds."""
        found = []
        if self._differing():
            found.append(
                f"Nothing is claimed from the speeds: a second copy of {self.reference.arm}, in truth as fast, was "
                f"measured as {self._measured()}."
            )
        if self.stretches and self.contended > MOST_CONTENDED * self.stretches:
            found.append(
                f"Nothing is claimed from the speeds: other processes used more than {CONTENDED_SHARE:.0%} of the "
                f"machine in {self.contended} of the {self.stretches} stretches that were timed."
            )
        return tuple(found)

    def _advice(self) -> str:
        if self.builds_rounds is None:
            return "measured anew, they have it"
        return f"[throughput] rounds = {FEWEST_BUILDS * self.builds_rounds}"

    def _differing(self) -> bool:
        """Return whether the two copies of the reference were measured as different."""
        ratios = (self.copy.training, self.copy.forward) if self.copy else ()
        return any(ratio and ratio.interval and ratio.interval.excludes(1) for ratio in ratios)

    def _measured(self) -> str:
        """Return the speeds of the second copy, as part of a sentence."""
        assert self.copy is not None
        kinds = (("times as fast in training", self.copy.training), ("in the forward pass", self.copy.forward))
        return " and ".join(
            " ".join(filter(None, [f"{ratio.value:.3f}", limits(ratio.interval, 3), kind]))
            for kind, ratio in kinds
            if ratio
        )


def throughput_session(
    records: Iterable[RunRecord], card: StudyCard, chosen: Mapping[CellKey, Mapping[str, Setting]] | None = None
) -> Session | None:
    """Return the card's throughput session; None where that lacks the reference.

    Of several sessions, as a card that doesn't name its runs may have, the one that timed most of the cells counts.
    chosen: the settings of each cell's best trial: where these change nets or models, others that were timed don't
    count.
    """
    shapes = {cell: shapes_runs(settings) for cell, settings in (chosen or {}).items()}
    sessions: dict[str, dict[tuple[CellKey, int], RunRecord]] = {}
    for record in records:
        as_chosen = not card.spec_hash or (
            record.spec_hash == card.spec_hash and record.parameters == shapes.get(record.cell, {})
        )
        timed = record.run_id in card.throughput_runs or (not card.throughput_runs and as_chosen)
        if record.phase == "throughput" and record.status == "ok" and timed and record.cell in card.cells:
            sessions.setdefault(record.notes.get("session", ""), {})[record.cell, record.seed] = record
    if not sessions:
        return None
    _, runs = max(sessions.items(), key=lambda item: ((card.reference, 0) in item[1], len(item[1]), item[0]))
    reference, copy = runs.get((card.reference, 0)), runs.get((card.reference, REFERENCE_COPY))
    if reference is None:
        return None
    rounds = [m.step for m in reference.measurements if m.metric == metrics.TRAINING_THROUGHPUT]
    stated = int(reference.notes.get("rounds_per_build", "0")) or None
    builds_rounds = stated or len(rounds)  # older sessions built the models once
    confidence, comparisons = 1 - LEVEL, len(card.comparisons())
    shares = reference.by_step(metrics.OTHERS_SHARE.name).values()
    return Session(
        reference=card.reference,
        cells={
            cell: _speed(record, reference, builds_rounds, comparisons, confidence)
            for (cell, seed), record in runs.items()
            if seed != REFERENCE_COPY
        },
        copy=_speed(copy, reference, builds_rounds, 1, 1 - LEVEL / 2) if copy else None,
        builds=len({number // builds_rounds for number in rounds}),
        builds_rounds=stated,
        contended=sum(share > CONTENDED_SHARE for share in shares),
        stretches=len(shares),
    )


def _speed(
    record: RunRecord, reference: RunRecord, builds_rounds: int, comparisons: int, confidence: float
) -> CellSpeed:
    pace = record.by_step(metrics.TRAINING_THROUGHPUT.name).values()
    training, forward = (
        speed_ratio(_by_build(record, reference, metric, builds_rounds), comparisons, confidence)
        for metric in (metrics.TRAINING_THROUGHPUT, metrics.FORWARD_THROUGHPUT)
    )
    return CellSpeed(training, forward, float(np.median(list(pace))) if pace else None)


def _by_build(record: RunRecord, reference: RunRecord, metric: Metric, builds_rounds: int) -> list[list[float]]:
    """Return, build by build, the throughputs of the rounds as multiples of the reference's in the same round."""
    rounds, reference_rounds = record.by_step(metric.name), reference.by_step(metric.name)
    builds: dict[int, list[float]] = {}
    for number in sorted(rounds.keys() & reference_rounds.keys()):
        builds.setdefault(number // builds_rounds, []).append(rounds[number] / reference_rounds[number])
    return list(builds.values())


def speed_ratio(
    builds: Sequence[Sequence[float]], comparisons: int = 1, confidence: float = 1 - LEVEL
) -> SpeedRatio | None:
    """Return the geometric mean over builds of the median ratio of a build's rounds, with its interval.

    builds: the ratios of the rounds, build by build; without one the answer is None. comparisons: how many intervals
    like `corrected` hold together.

    The rounds of a build share where its memory lies, which by itself changes a ratio by a percent or two: the builds
    are the sample, and the median keeps the long tail of their rounds out. The interval has the means of the builds'
    logarithms that the sign-flip test doesn't reject. The logarithm of the ratio of two copies of one model, built and
    timed in random order, is as likely to have the other sign, however long the tails of either are, which is all that
    the test assumes. In simulated sessions (`test_speed.py`) it holds the truth in .937 to .948 for 8 or 10 builds; a
    percentile bootstrap of the builds in .88 to .89, and of 4 or 2 builds in .82 or .50. The sign test's interval is
    twice as wide for 8 builds; Student's holds as often as this one.
    """
    if len(builds) == 0:
        return None
    logs = [math.log(float(np.median(build))) for build in builds]
    plain, corrected = (
        sign_flip_interval(logs, of) if len(logs) >= FEWEST_BUILDS else None
        for of in (confidence, 1 - (1 - confidence) / max(1, comparisons))
    )
    return SpeedRatio(math.exp(float(np.mean(logs))), _exp(plain), len(builds), _exp(corrected))


def _exp(logs: Interval | None) -> Interval | None:
    return None if logs is None else Interval(math.exp(logs.low), math.exp(logs.high))
