"""A speed's interval holds the truth as often as it says, and a session that can't be believed says so."""

import itertools

import numpy as np
import pytest

from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.vocabulary import REFERENCE_COPY
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.speed import FEWEST_BUILDS, speed_ratio, throughput_session
from trans4init.reports.study_report.summary import summarise
from trans4init.reports.study_report.verdict_text import verdict_text

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
PER_BUILD = 4


def a_models_speeds(generator, builds, rounds, drift, sampled):
    """Logarithms [builds, rounds]: what a build happens to be, long-tailed rounds, some far slower, and drift."""
    build = sampled(generator, builds)[:, None]
    noise = 0.01 * generator.standard_t(2.5, (builds, rounds))
    disturbed = (generator.random((builds, rounds)) < 0.08) * generator.exponential(0.3, (builds, rounds))
    return build + noise - disturbed + generator.normal(1, 0.02) * drift


def ratios_of(generator, builds, rounds, sampled):
    """The rounds' ratios of two copies of one model, whose machine's speed drifts: in truth 1."""
    drift = np.cumsum(generator.normal(0, 0.03, builds * rounds)).reshape(builds, rounds)
    one, other = (a_models_speeds(generator, builds, rounds, drift, sampled) for _ in range(2))
    return np.exp(one - other)


SAMPLED = {
    "normal": lambda generator, n: generator.normal(0, 0.015, n),
    "long tails": lambda generator, n: 0.012 * generator.standard_t(2.5, n),
    "two kinds": lambda generator, n: np.where(generator.random(n) < 0.3, -0.05, 0) + generator.normal(0, 0.005, n),
}
"""What a build adds to the logarithm of a model's speed: as much as the noise of a round, or more."""


@pytest.mark.parametrize("kind", SAMPLED)
@pytest.mark.parametrize("builds", [FEWEST_BUILDS, 10])
def test_the_interval_holds_the_truth_in_93_of_100_sessions(builds, kind):
    generator = np.random.default_rng(builds)
    found = [speed_ratio(ratios_of(generator, builds, PER_BUILD, SAMPLED[kind])) for _ in range(1500)]
    held = [not ratio.interval.excludes(1) for ratio in found]
    assert 0.93 <= np.mean(held) <= 0.98
    assert all(ratio.interval.low <= ratio.value <= ratio.interval.high for ratio in found)


def test_the_corrected_intervals_of_eight_arms_hold_together():
    """The arms share a reference, whose builds enter every ratio."""
    generator, held = np.random.default_rng(0), []
    for _ in range(300):
        drift = np.zeros((10, PER_BUILD))
        logs = [a_models_speeds(generator, 10, PER_BUILD, drift, SAMPLED["normal"]) for _ in range(9)]
        arms = [speed_ratio(np.exp(arm - logs[0]), 8) for arm in logs[1:]]
        held.append([[not getattr(arm, name).excludes(1) for arm in arms] for name in ("interval", "corrected")])
    plain, corrected = np.mean(np.all(held, axis=2), axis=0)
    assert corrected >= 0.94
    assert plain < 0.9


def test_rounds_of_one_build_are_no_sample():
    """However many rounds each has, the builds decide."""
    builds = np.exp(np.random.default_rng(0).normal(0, 0.02, 10))
    once = speed_ratio(builds[:, None])
    often = speed_ratio(np.repeat(builds[:, None], 50, axis=1))
    assert often == once
    assert once.count == 10
    assert once.value == pytest.approx(np.prod(builds) ** 0.1)


def test_one_slow_round_of_a_build_changes_nothing():
    quiet = np.full((8, 3), 0.9)
    disturbed = quiet.copy()
    disturbed[:, 1] = 0.2
    assert speed_ratio(disturbed) == speed_ratio(quiet)


def test_a_ratio_turned_over_has_its_interval_turned_over():
    builds = np.exp(np.random.default_rng(1).normal(0.1, 0.05, (9, 3)))
    ratio, turned = speed_ratio(builds), speed_ratio(1 / builds)
    assert (turned.value, turned.interval.low, turned.interval.high) == pytest.approx(
        (1 / ratio.value, 1 / ratio.interval.high, 1 / ratio.interval.low)
    )


def test_builds_too_few_for_an_interval_have_none():
    builds = np.exp(np.random.default_rng(2).normal(0, 0.05, (9, 3)))
    assert speed_ratio([]) is None
    assert speed_ratio(builds[: FEWEST_BUILDS - 1]).interval is None
    eight, nine = speed_ratio(builds[:8], 8), speed_ratio(builds, 8)
    assert eight.interval is not None
    assert eight.corrected is None  # 2/2^8 is more than .05/8
    assert nine.corrected.low < nine.interval.low < nine.interval.high < nine.corrected.high


@pytest.fixture
def session(make_record):
    """Records of a session: cells with a speed in each build, the copy of the reference, others' share by build."""

    def make(frozen=0.9, copy=1.0, builds=10, others=0.0, old=False):
        generator = np.random.default_rng(3)
        pace = generator.uniform(100, 200, (builds, PER_BUILD))
        models = [
            (ANALYTIC, 0, 1.0),
            (FROZEN, 0, frozen),
            *([] if copy is None else [(ANALYTIC, REFERENCE_COPY, copy)]),
        ]
        records = []
        for cell, seed, speed in models:
            spread = np.exp(generator.normal(0, 0.01, (builds, 1))) if seed or cell == FROZEN else np.ones((builds, 1))
            values = (pace * speed * spread).flatten()
            rows = [Measurement(metrics.TRAINING_THROUGHPUT, value, n) for n, value in enumerate(values)]
            rows += [Measurement(metrics.FORWARD_THROUGHPUT, 3 * value, n) for n, value in enumerate(values)]
            shares = [others] if old else [others if n < 3 else 0.01 for n in range(builds)]
            last = 0 if old else PER_BUILD - 1
            rows += [Measurement(metrics.OTHERS_SHARE, v, n * PER_BUILD + last) for n, v in enumerate(shares)]
            notes = {"session": "a"} | ({} if old else {"rounds_per_build": str(PER_BUILD)})
            run = {"run_id": f"t-{cell}-{seed}", "seed": seed, "notes": notes, "measurements": tuple(rows)}
            records.append(make_record(cell=cell, phase="throughput", **run))
        return records

    return make


def test_the_advice_names_rounds_where_the_session_says_how_many_a_build_has(session, card):
    new, old = (throughput_session(session(builds=3, old=old), card) for old in (False, True))
    assert f"([throughput] rounds = {8 * PER_BUILD})" in " ".join(new.sentences())
    assert "the models were built 1 time, and 8 builds give one (measured anew, they have it)" in " ".join(
        old.sentences()
    )


def evaluated(make_record):
    return [
        make_record(cell=cell, seed=seed, value=2 + seed / 100 + 0.2 * (cell == FROZEN))
        for cell, seed in itertools.product((ANALYTIC, FROZEN), range(10))
    ]


def test_a_session_knows_its_builds_and_its_copy(session, card):
    found = throughput_session(session(copy=1.001), card)
    assert set(found.cells) == {ANALYTIC, FROZEN}
    assert found.cells[ANALYTIC].training.value == 1
    assert found.cells[FROZEN].training.value == pytest.approx(0.9, rel=0.01)
    assert (found.builds, found.builds_rounds, found.cells[FROZEN].forward.count) == (10, PER_BUILD, 10)
    assert found.copy.training.value == pytest.approx(1.001, rel=0.01)
    assert found.copy.training.value != 1
    assert found.warnings() == ()
    [sentence] = found.sentences()
    ratio = found.copy.training
    numbers = f"{ratio.value:.3f} [{ratio.interval.low:.3f}, {ratio.interval.high:.3f}]"
    assert sentence == (
        f"A check of the session: a second copy of analytic, timed like any other arm, was {numbers} times as fast in "
        f"training and {numbers} in the forward pass."
    )


def test_the_intervals_of_both_kinds_of_the_copy_hold_together(session, card):
    records = session(copy=1.0)
    copy = throughput_session(records, card).copy
    for ratio, metric in ((copy.training, "training_throughput"), (copy.forward, "forward_throughput")):
        second, first = (np.array(list(records[place].by_step(metric).values())) for place in (2, 0))
        assert ratio.interval == speed_ratio((second / first).reshape(10, PER_BUILD), 2).corrected


def test_nothing_is_claimed_from_a_session_that_calls_two_copies_different(session, make_record, tmp_path):
    good, bad = ([*evaluated(make_record), *session(copy=copy)] for copy in (1.0, 0.9))
    assert "training speed ×0.90" in verdict_text(summarise(good)).verdict
    summary = summarise(bad)
    assert "speed" not in verdict_text(summary).verdict
    assert summary.cells[1].training_speed.value == pytest.approx(0.9, rel=0.01)
    [warning] = summary.session.warnings()
    assert warning in summary.notes
    assert warning.startswith("Nothing is claimed from the speeds: a second copy of analytic, in truth as fast, was")


def test_nothing_is_claimed_from_a_session_of_which_more_than_a_fifth_was_contended(session, card):
    busy = throughput_session(session(others=0.11), card)
    assert (busy.contended, busy.stretches) == (3, 10)
    assert busy.warnings() == (
        "Nothing is claimed from the speeds: other processes used more than 10% of the machine in 3 of the 10 "
        "stretches that were timed.",
    )
    assert throughput_session(session(others=0.1), card).warnings() == ()


def test_a_session_without_copy_or_builds_is_still_read(session, card):
    """As it was recorded before: one share for all of it, and no word of builds."""
    old = throughput_session(session(copy=None, old=True, others=0.02), card)
    assert old.copy is None
    assert old.builds == 1
    assert old.cells[FROZEN].training.interval is None
    assert old.cells[FROZEN].training.value == pytest.approx(0.9, rel=0.02)
    assert old.warnings() == ()
    assert old.sentences() == (
        "No second copy of analytic was timed, which would check the intervals of speeds.",
        "Speeds have no interval: the models were built 1 time, and 8 builds give one (measured anew, they have it).",
    )
    [warning] = throughput_session(session(old=True, others=0.4), card).warnings()
    assert "in 1 of the 1 stretches" in warning


def test_both_pages_show_the_corrected_interval_and_the_check(session, make_record, tmp_path):
    from trans4init.reports.records.store import write_run

    for record in [*evaluated(make_record), *session()]:
        write_run(record, tmp_path / "results")
    report = write_report(tmp_path)
    speed = summarise(report.results.records, report.results.card).session.cells[FROZEN].training
    for page in (report.markdown, report.html):
        text = page.read_text(encoding="utf-8")
        for interval in (speed.interval, speed.corrected):
            assert f"[{interval.low:.3f}, {interval.high:.3f}]" in text
        assert "A check of the session: a second copy of analytic" in text
