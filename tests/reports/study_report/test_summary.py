"""The summary: the right runs are put together, and what went wrong is said."""

import dataclasses
import time
from datetime import UTC, datetime, timedelta

import pytest

from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement, Metric
from trans4init.reports.study_report.summary import summarise

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")


def evaluations(make_record, shift=0.0, seeds=10):
    """Both cells, with the second one's loss shifted."""
    return [
        make_record(cell=cell, seed=seed, value=2 + seed / 100 + (shift if cell == FROZEN else 0))
        for cell in (ANALYTIC, FROZEN)
        for seed in range(seeds)
    ]


def speed(make_record, cell, per_second, session, later=0):
    """A cell's record of a session in which the models were built anew for each round."""
    rows = [Measurement(metrics.TRAINING_THROUGHPUT, value, step) for step, value in enumerate(per_second)]
    rows += [Measurement(metrics.FORWARD_THROUGHPUT, 3 * value, step) for step, value in enumerate(per_second)]
    record = make_record(
        cell=cell, phase="throughput", measurements=tuple(rows), notes={"session": session, "rounds_per_build": "1"}
    )
    return dataclasses.replace(
        record, run_id=f"t-{cell}-{session}", created_at=record.created_at + timedelta(hours=1 + later)
    )


def test_the_verdict_is_on_seed_by_seed_differences(make_record):
    summary = summarise(evaluations(make_record, shift=0.2))
    reference, frozen = summary.cells
    assert reference.comparison is None
    assert frozen.comparison.verdict == "worse"
    assert frozen.comparison.mean == pytest.approx(0.2)
    assert frozen.metric.count == 10


def test_the_value_of_a_run_is_the_one_at_its_last_step(make_record):
    summary = summarise(evaluations(make_record))
    assert summary.cells[0].metric.value == pytest.approx(2.045)
    assert summary.cells[0].curve.steps == (1, 2)
    assert summary.cells[0].curve.mean[0] == 3.0
    assert summary.cells[0].curve.lowest[1] == 2.0
    assert summary.cells[0].curve.highest[1] == pytest.approx(2.09)


def test_tuning_runs_are_not_evidence(make_record):
    tuned = [make_record(phase="tune", run_id=f"tune-{i}", trial=i, value=0.0, cell=FROZEN) for i in range(3)]
    summary = summarise([*evaluations(make_record), *tuned])
    assert summary.cells[1].metric.value == pytest.approx(2.045)
    assert summary.tuning_trials == 3


def tuned(make_record):
    """A study with two trials of each cell, whose second is better, and two seeds evaluated with either's settings.

    By their clocks the runs with the first trial's settings are the later ones.
    """
    records = []
    for cell in (ANALYTIC, FROZEN):
        for trial, rate in enumerate((0.1, 0.2)):
            trial_run = {"cell": cell, "parameters": {"learning_rate": rate}}
            name, moment = f"{cell} {trial}", datetime(2026, 1, 3 - trial, tzinfo=UTC)
            tried = make_record(**trial_run, phase="tune", run_id=name, trial=trial, seed=1000, value=5.0 - trial)
            records.append(tried)
            for seed in (0, 1):
                value = (3.0 if cell == ANALYTIC else 1.5) + 10 * trial + seed / 7
                run = make_record(**trial_run, seed=seed, run_id=f"{name} {seed}", value=value, created_at=moment)
                records.append(run)
    return records


@pytest.mark.parametrize(("trials", "mean", "rate"), [(1, 3.0, 0.1), (2, 13.0, 0.2)])
def test_the_verdict_is_about_the_best_of_the_trials_that_the_card_names_whenever_they_were_run(
    make_record, card, trials, mean, rate
):
    summary = summarise(tuned(make_record), dataclasses.replace(card, trials=trials))
    assert summary.cells[0].metric.value == pytest.approx(mean + 1 / 14)
    assert [cell.settings for cell in summary.cells] == [{"learning_rate": rate}] * 2
    assert summary.cells[1].comparison.mean == pytest.approx(-1.5)
    assert summary.tuning_trials == trials


def test_runs_of_two_budgets_are_never_compared(make_record, card):
    """Stopped when one cell had its second trial and the other had not: 1.5 would be compared with 13."""
    records = [record for record in tuned(make_record) if not record.run_id.startswith(f"{FROZEN} 1")]
    summary = summarise(records, dataclasses.replace(card, trials=2))
    assert summary.cells[0].metric.count == 2
    assert summary.cells[1].metric is None
    assert summary.cells[1].comparison.mean is None


def test_seeds_and_conditions_beyond_the_cards_are_no_evidence(make_record, card):
    records = [make_record(seed=seed, value=2.0 + seed) for seed in range(3)]
    records.append(make_record(seed=0, run_id="elsewhere", spec_hash="other", value=50.0))
    summary = summarise(records, dataclasses.replace(card, seeds=2, trials=0, spec_hash="h"))
    assert summary.cells[0].metric.value == pytest.approx(2.5)
    assert summary.cells[0].metric.count == 2


def test_without_a_card_beside_the_runs_the_largest_among_them_counts(make_record, card):
    small, large = (dataclasses.replace(card, seeds=seeds) for seeds in (1, 2))
    later = datetime(2030, 1, 1, tzinfo=UTC)
    runs = [make_record(seed=1, card=large), make_record(seed=0, card=small, created_at=later)]
    assert summarise(runs).card == large


def test_the_inputs_of_the_slots_are_the_widest_over_the_seeds_of_the_reference(make_record):
    def run(cell, seed, low, high):
        rows = [Measurement(metrics.VALIDATION_LOSS, 2.0, 2)]
        rows += [Measurement(metrics.in_slot(metrics.SLOT_INPUT_LOW, "position"), low, 2)]
        rows += [Measurement(metrics.in_slot(metrics.SLOT_INPUT_HIGH, "position"), high, 2)]
        return make_record(cell=cell, seed=seed, measurements=tuple(rows))

    summary = summarise([run(ANALYTIC, 0, -1.0, 5.0), run(ANALYTIC, 1, -2.0, 4.0), run(FROZEN, 0, -9.0, 9.0)])
    assert summary.inputs == {"position": (-2.0, 5.0)}


def test_a_diverged_run_is_shown_and_not_averaged(make_record):
    records = evaluations(make_record)
    records[-1] = make_record(cell=FROZEN, seed=9, value=None, status="diverged", error="nan at step 2")
    summary = summarise(records)
    assert [record.status for record in summary.failures] == ["diverged"]
    assert summary.cells[1].metric.count == 9
    assert summary.cells[1].comparison.lost == (9,)
    assert summary.cells[1].comparison.verdict == "inconclusive"


def test_speed_is_the_ratio_in_the_same_round(make_record):
    """The machine halves its pace in the middle: each cell's own numbers jump, their ratio doesn't."""
    pace = [100.0] * 4 + [50.0] * 4
    records = [
        speed(make_record, ANALYTIC, pace, "a"),
        speed(make_record, FROZEN, [0.9 * value for value in pace], "a"),
    ]
    summary = summarise([*evaluations(make_record), *records])
    frozen = summary.cells[1].training_speed
    assert (frozen.value, frozen.interval.low, frozen.interval.high) == pytest.approx((0.9, 0.9, 0.9))
    assert summary.cells[0].training_speed.value == 1.0
    assert summary.cells[0].tokens_per_second == 75.0


def test_the_throughput_session_that_the_card_names_counts_and_sessions_are_not_mixed(make_record, card):
    records = [
        speed(make_record, ANALYTIC, [100.0] * 4, "old"),
        speed(make_record, FROZEN, [50.0] * 4, "old"),
        speed(make_record, ANALYTIC, [10.0] * 4, "new", later=1),
        speed(make_record, FROZEN, [20.0] * 4, "new", later=1),
    ]
    for session, ratio in (("old", 0.5), ("new", 2.0)):
        named = dataclasses.replace(card, throughput_runs=tuple(f"t-{cell}-{session}" for cell in card.cells))
        summary = summarise([*evaluations(make_record), *records], named)
        assert summary.cells[1].training_speed.value == ratio
    mixed = dataclasses.replace(card, throughput_runs=(f"t-{ANALYTIC}-old", f"t-{FROZEN}-new"))
    assert summarise([*evaluations(make_record), *records], mixed).cells[1].training_speed is None


def test_a_busy_machine_is_noted(make_record):
    busy = speed(make_record, ANALYTIC, [1.0, 1.0], "a")
    busy = dataclasses.replace(busy, measurements=(*busy.measurements, Measurement(metrics.OTHERS_SHARE, 0.4)))
    [note] = summarise([*evaluations(make_record), busy]).notes
    assert "more than 10% of the machine in 1 of the 1 stretches" in note


def test_other_judged_metrics_are_those_measured_once_with_a_direction(make_record):
    extra = (
        Measurement(Metric("bleu", "%", higher_is_better=True), 30.0, 2),
        Measurement(Metric("parameters", "count"), 10.0),
        Measurement(metrics.TRAINING_LOSS, 2.0, 1),
        Measurement(metrics.TRAINING_LOSS, 1.0, 2),
    )
    record = make_record()
    summary = summarise([dataclasses.replace(record, measurements=(*record.measurements, *extra))])
    assert summary.other_metrics() == ("bleu",)


def test_different_environments_are_noted(make_record):
    records = evaluations(make_record)
    elsewhere = dataclasses.replace(records[0].environment, python="3.13.0")
    later = dataclasses.replace(records[0].environment, clock_mhz=1.0)
    assert not summarise([dataclasses.replace(records[0], environment=later), *records[1:]]).notes
    mixed = summarise([dataclasses.replace(records[0], environment=elsewhere), *records[1:]])
    assert any("same environment" in note for note in mixed.notes)
    assert len(mixed.environments) == 2


def test_a_study_that_has_only_begun_can_be_summarised(make_record):
    summary = summarise([make_record(phase="tune", run_id="t", trial=0)])
    assert summary.cells[1].comparison.verdict == "no verdict"


def test_fidelity_rows_know_the_fitted_region(make_record):
    fit = make_record(
        phase="fit",
        card=None,
        cell=CellKey("sinusoidal", "", "siren"),
        notes={"fitted_on": "0..7"},
        measurements=(
            Measurement(metrics.over_region("max_error", "0..7"), 0.1),
            Measurement(metrics.over_region("max_error", "8..15"), 0.5),
            Measurement(metrics.NET_PARAMETERS, 12),
        ),
    )
    rows = summarise([fit]).fidelity
    assert [(row.region, row.fitted, row.errors["max_error"]) for row in rows] == [
        ("0..7", True, 0.1),
        ("8..15", False, 0.5),
    ]
    assert rows[0].costs == {"net_parameters": 12}


def test_no_results_are_refused():
    with pytest.raises(ValueError, match="no results"):
        summarise([])


def test_a_run_of_many_steps_is_summarised_in_time_that_grows_with_them(make_record):
    """Where each row is looked for among all of its run, 40,000 of them take twenty times as long."""
    runs = [
        make_record(
            cell=cell,
            seed=seed,
            measurements=(
                *(Measurement(metrics.TRAINING_LOSS, 1.0, step) for step in range(40_000)),
                Measurement(metrics.VALIDATION_LOSS, 2 + seed / 100, 40_000),
            ),
        )
        for cell in (ANALYTIC, FROZEN)
        for seed in range(3)
    ]
    began = time.process_time()
    summarise(runs)
    assert time.process_time() - began < 10
