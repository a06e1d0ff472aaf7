"""How much each setting matters: what the trials say, and that few trials say nothing."""

import dataclasses
import sys

import pytest

from trans4init.reports.records.metrics import ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.store import write_card, write_run
from trans4init.reports.records.tuning_design import TunedRange, TuningDesign
from trans4init.reports.study_report.importances import FEWEST_TRIALS, Importances, estimate_importances
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.summary import summarise

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
MATTERS, IDLE = TunedRange("learning_rate", 1e-3, 1e-1, log=True), TunedRange("weight_decay", 0.0, 0.2)
TRIALS = 24


@pytest.fixture
def tuned(make_record, card):
    """Makes the trials of both cells, whose value hangs on the learning rate, in one cell on the other setting."""

    def make(trials=TRIALS, diverged=(), metric=VALIDATION_LOSS):
        design = TuningDesign((1000,), (IDLE, MATTERS))
        records = []
        for number in range(trials):
            places = ((number * 7 % trials) / trials, (number * 5 % trials) / trials)
            settings = {"learning_rate": MATTERS.at(places[0]), "weight_decay": IDLE.at(places[1])}
            for cell, place in ((ANALYTIC, places[0]), (FROZEN, places[1])):
                bad = cell == FROZEN and number in diverged
                records.append(
                    make_record(
                        cell=cell,
                        phase="tune",
                        trial=number,
                        seed=1000,
                        run_id=f"tune-{cell.arm}-{number}",
                        parameters=settings,
                        status="diverged" if bad else "ok",
                        measurements=(Measurement(metric, None if bad else 2.0 + place, 2),),
                    )
                )
        return records, dataclasses.replace(card, trials=trials, tuning=design, metric=metric.name)

    return make


@pytest.mark.parametrize("metric", [VALIDATION_LOSS, ACCURACY])
def test_the_setting_that_moves_the_metric_has_the_importance(tuned, metric):
    found = estimate_importances(summarise(*tuned(metric=metric)))
    assert found.settings() == ("learning_rate", "weight_decay")
    assert found.shares[ANALYTIC]["learning_rate"] > 0.8
    assert found.shares[FROZEN]["weight_decay"] > 0.8
    assert sum(found.shares[ANALYTIC].values()) == pytest.approx(1)
    assert found.why_not == ""
    assert estimate_importances(summarise(*tuned(metric=metric))) == found


def test_trials_without_a_value_do_not_count_and_too_few_are_said_to_be(tuned):
    assert estimate_importances(summarise(*tuned(FEWEST_TRIALS))).why_not == ""
    found = estimate_importances(summarise(*tuned(FEWEST_TRIALS, diverged=(3,))))
    assert set(found.shares) == {ANALYTIC}
    assert found.why_not == "How much each setting matters is not estimated from fewer than 10 trials with a value."


def test_a_study_that_tunes_nothing_has_no_importances(card, make_record):
    assert estimate_importances(summarise([make_record()], card)) == Importances()


def test_the_report_has_a_row_for_each_arm(tuned, tmp_path):
    records, card = tuned()
    for record in records:
        write_run(record, tmp_path / "results")
    write_card(card, tmp_path / "results")
    report = write_report(tmp_path)
    shares = estimate_importances(summarise(records, card)).shares
    lines = report.markdown.read_text().splitlines()
    place = lines.index("| importance in | learning rate | weight decay | ")
    assert lines[place + 1] == "| --- | --- | --- | "
    for row, cell in enumerate((ANALYTIC, FROZEN)):
        rate, decay = (f"{100 * shares[cell][name]:.0f} %" for name in ("learning_rate", "weight_decay"))
        assert lines[place + 2 + row] == f"| {cell} | {rate} | {decay} | "
    page = " ".join(report.html.read_text().split())
    assert f"<tr><td>analytic</td><td>{100 * shares[ANALYTIC]['learning_rate']:.0f} %</td>" in page


def test_without_optuna_the_report_says_so(tuned, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    found = estimate_importances(summarise(*tuned()))
    assert found == Importances({}, "How much each setting matters is not estimated: optuna is not installed here.")


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "optuna":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
