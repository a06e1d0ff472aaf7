"""Trials: put together from their seeds, ranked by their means, with gaps and edges; and the page that shows them."""

import dataclasses

import pytest

from trans4init.reports.records import metrics
from trans4init.reports.records.metrics import ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement, Metric
from trans4init.reports.records.store import load_results, write_card, write_run
from trans4init.reports.records.tuning_design import TunedRange, TuningDesign
from trans4init.reports.study_report.comparing import Compared
from trans4init.reports.study_report.counted_runs import fits_that_count
from trans4init.reports.study_report.fidelity import fidelity
from trans4init.reports.study_report.figures import tuning_trials
from trans4init.reports.study_report.gain import Control, Gain
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.summary import summarise
from trans4init.reports.study_report.tuning import Weighing, best_first, pareto_front, sum_up_tuning, trials_of
from trans4init.reports.study_report.tunings import Tunings
from trans4init.reports.study_report.verdict_text import verdict_text

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
SEEDS = (1000, 1001, 1002)
RATE = TunedRange("learning_rate", 1e-3, 1e-1, log=True)
SLOT = TunedRange("slot_learning_rate_ratio", 0.1, 10.0, log=True)
DESIGN = TuningDesign(SEEDS, (RATE, SLOT))


@pytest.fixture
def tried(make_record):
    """Makes the runs of a cell: for each trial its losses by seed, None for one that diverged, and its settings."""

    def make(losses, settings=None, cell=ANALYTIC, metric=VALIDATION_LOSS, moves="a.slot"):
        settings = settings or [{"learning_rate": 0.01 + n / 1000, "slot_learning_rate_ratio": 1.0} for n in range(9)]
        return [
            make_record(
                cell=cell,
                phase="tune",
                trial=number,
                seed=seed,
                run_id=f"tune-{cell}-{number}-{seed}".replace(" · ", "-"),
                parameters=settings[number],
                notes={"moves": moves},
                status="diverged" if loss is None else "ok",
                measurements=(Measurement(metric, loss, 2),),
            )
            for number, by_seed in enumerate(losses)
            for seed, loss in zip(SEEDS, by_seed, strict=False)
        ]

    return make


def order(runs, metric=VALIDATION_LOSS, budget=9, seeds=SEEDS):
    return [trial.number for trial in best_first(trials_of(runs, metric, budget, seeds), metric)]


def test_trials_are_ranked_by_the_mean_over_their_seeds(tried):
    """The first has the best single run, the last the best worst one."""
    runs = tried([(1.0, 5.0, 6.0), (3.0, 3.0, 3.0), (2.5, 2.5, 3.25)])
    assert order(runs) == [2, 1, 0]
    by_number = {trial.number: trial for trial in trials_of(runs, VALIDATION_LOSS, 9, SEEDS)}
    assert by_number[0].mean == pytest.approx(4.0)
    assert by_number[0].spread == pytest.approx(7**0.5)
    assert by_number[0].values == {1000: 1.0, 1001: 5.0, 1002: 6.0}
    assert by_number[1].settings["learning_rate"] == 0.011


def test_the_best_by_an_accuracy_is_the_highest_and_the_earlier_of_equal_ones(tried):
    assert order(tried([(0.5, 0.5, 0.5), (0.7, 0.7, 0.7), (0.7, 0.7, 0.7)], metric=ACCURACY), ACCURACY) == [1, 2, 0]
    assert order(tried([(2.0, 2.0, 2.0)] * 3)) == [0, 1, 2]


def test_a_trial_that_diverged_on_a_seed_comes_after_all_that_did_not(tried):
    assert order(tried([(0.1, 0.1, None), (9.0, 9.0, 9.0)])) == [1, 0]
    assert order(tried([(None, None, None), (5.0, None, None), (0.1, None, None)])) == [2, 1, 0]
    assert order(tried([(None,) * 3, (None,) * 3])) == [0, 1]
    [trial] = trials_of(tried([(0.25, None, 0.75)]), VALIDATION_LOSS, 9, SEEDS)
    assert (trial.failures, trial.mean) == (1, 0.5)


def test_a_value_of_a_run_that_failed_does_not_count(tried):
    runs = tried([(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
    assert order([dataclasses.replace(runs[0], status="failed"), *runs[1:]]) == [1, 0]


def test_a_trial_is_finished_when_it_has_every_seed_and_trials_beyond_the_budget_do_not_count(tried):
    runs = tried([(3.0, 3.0, 3.0), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)])
    assert order(runs, budget=2) == [1, 0]
    assert order([run for run in runs if (run.trial, run.seed) != (1, 1001)]) == [2, 0]
    assert order(runs, seeds=(*SEEDS, 1003)) == []
    fewer = trials_of(tried([(3.0, 1.0, 90.0)]), VALIDATION_LOSS, 9, SEEDS[:2])
    assert [trial.mean for trial in fewer] == [2.0]  # a seed beyond those that count


def test_results_from_before_cards_named_the_seeds_have_trials_of_one(tried):
    [trial, _] = trials_of(tried([(1.5,), (2.5,)]), VALIDATION_LOSS, 9)
    assert (trial.values, trial.mean, trial.spread) == ({1000: 1.5}, 1.5, None)


def test_the_gap_is_the_mean_difference_of_the_runner_up_seed_by_seed(tried):
    """On one seed the runner-up is the better one."""
    trials = trials_of(tried([(1.0, 2.0, 3.0), (9.0, 9.0, 9.0), (1.5, 1.75, 3.5)]), VALIDATION_LOSS, 9, SEEDS)
    tuning = sum_up_tuning(trials, VALIDATION_LOSS, DESIGN)
    assert (tuning.best.number, tuning.runner_up.number) == (0, 2)
    assert tuning.gaps == {1000: 0.5, 1001: -0.25, 1002: 0.5}
    assert tuning.gap == pytest.approx(0.25)
    alone = sum_up_tuning(trials[:1], VALIDATION_LOSS, DESIGN)
    assert (alone.runner_up, alone.gap, alone.gaps) == (None, None, {})
    assert sum_up_tuning([], VALIDATION_LOSS, DESIGN) is None


@pytest.mark.parametrize(
    ("tuned", "value", "end"),
    [
        (RATE, 1e-3, "low"),
        (RATE, 1.25e-3, "low"),  # 10^0.1 is 5 % of two decades
        (RATE, 1.27e-3, ""),
        (RATE, 1e-2, ""),
        (RATE, 7.9e-2, ""),
        (RATE, 8e-2, "high"),
        (TunedRange("beta2", 0.0, 10.0), 0.5, "low"),
        (TunedRange("beta2", 0.0, 10.0), 0.51, ""),
        (TunedRange("beta2", 0.0, 10.0), 9.5, "high"),
        (TunedRange("beta2", 0.0, 10.0), 9.49, ""),
    ],
)
def test_an_edge_is_a_twentieth_of_the_range_on_its_own_scale(tuned, value, end):
    assert tuned.edge(value) == end
    assert tuned.at(tuned.place(value)) == pytest.approx(value)


def test_a_best_value_at_an_edge_is_flagged_with_its_end(tried):
    settings = [
        {"learning_rate": 0.01, "slot_learning_rate_ratio": 1.0},
        {"learning_rate": 0.099, "slot_learning_rate_ratio": 0.1},
    ]
    middle, edge = (
        sum_up_tuning(trials_of(tried(losses, settings), VALIDATION_LOSS, 9, SEEDS), VALIDATION_LOSS, DESIGN)
        for losses in ([(1.0,) * 3, (2.0,) * 3], [(2.0,) * 3, (1.0,) * 3])
    )
    assert middle.edges == ()
    assert [(e.setting, e.value, e.end) for e in edge.edges] == [
        ("learning_rate", 0.099, "high"),
        ("slot_learning_rate_ratio", 0.1, "low"),
    ]


def test_a_slot_rate_is_no_edge_where_nothing_of_the_slot_is_trained(tried):
    settings = [{"learning_rate": 0.099, "slot_learning_rate_ratio": 10.0}]
    frozen = trials_of(tried([(1.0,) * 3], settings, moves=""), VALIDATION_LOSS, 9, SEEDS)
    assert [edge.setting for edge in sum_up_tuning(frozen, VALIDATION_LOSS, DESIGN).edges] == ["learning_rate"]


@pytest.fixture
def tuned_study(tried, make_record, card):
    """Two cells of two trials on three seeds, the second trial the better one, at an edge in one cell; evaluated."""
    settings = {
        ANALYTIC: [{"learning_rate": 0.011}, {"learning_rate": 0.013}],
        FROZEN: [{"learning_rate": 0.011}, {"learning_rate": 0.0998}],
    }
    losses = {ANALYTIC: [(3.0, 3.2, 3.7), (2.0, 2.3, 2.9)], FROZEN: [(4.0, 4.1, 4.6), (3.5, 3.75, 4.75)]}
    card = dataclasses.replace(card, trials=2, tuning=TuningDesign(SEEDS, (RATE,)))
    runs = [run for cell in (ANALYTIC, FROZEN) for run in tried(losses[cell], settings[cell], cell)]
    runs += [
        make_record(cell=cell, seed=seed, value=2 + seed / 100, parameters=settings[cell][1])
        for cell in (ANALYTIC, FROZEN)
        for seed in range(10)
    ]
    return [dataclasses.replace(run, card=card) for run in runs], card


def test_a_cell_is_judged_on_the_runs_with_its_best_trials_settings(tuned_study):
    records, card = tuned_study
    cells = summarise(records, card).cells
    assert [cell.tuning.best.number for cell in cells] == [1, 1]
    assert [cell.runs for cell in cells] == [10, 10]
    assert [cell.settings["learning_rate"] for cell in cells] == [0.013, 0.0998]
    lost = [run for run in records if (run.trial, run.seed, run.cell, run.phase) != (0, 1002, FROZEN, "tune")]
    reference, frozen = summarise(lost, card).cells
    assert (reference.runs, frozen.runs) == (10, 0)  # which of its settings is best isn't known yet
    assert [trial.number for trial in frozen.tuning.trials] == [1]


def tuned_again(records, card, by_cell, seeds=(2000, 2001, 2002)):
    """The study tuned once more, with settings of its own; each cell's evaluation runs of that time are `by_cell`'s."""
    again = dataclasses.replace(card, tuning=dataclasses.replace(card.tuning, again=(*card.tuning.again, seeds)))
    settings = {"learning_rate": 0.02 + seeds[0] / 1e6}
    first = {record.cell: record for record in records if record.phase == "tune"}
    more = [
        dataclasses.replace(
            first[cell],
            run_id=f"tune-again-{cell.arm}-{trial}-{seed}",
            trial=trial,
            seed=seed,
            parameters=settings if trial else first[cell].parameters,
            measurements=(Measurement(VALIDATION_LOSS, 5.0 - trial, 2),),
        )
        for cell in by_cell
        for trial in (0, 1)
        for seed in seeds
    ]
    evaluated = {record.cell: record for record in records if record.phase == "evaluate"}
    more += [
        dataclasses.replace(
            evaluated[cell],
            run_id=f"evaluate-again-{cell.arm}-{seeds[0]}-{seed}",
            seed=seed,
            parameters=settings,
            measurements=(Measurement(VALIDATION_LOSS, value, 2),),
        )
        for cell, values in by_cell.items()
        for seed, value in enumerate(values)
    ]
    return [*records, *more], again


def test_a_word_that_another_tuning_changes_depends_on_tuning(tuned_study, tmp_path):
    records, card = tuned_study
    flat = [2 + seed / 100 for seed in range(10)]
    worse = {ANALYTIC: flat, FROZEN: [value + 0.2 + seed / 1000 for seed, value in enumerate(flat)]}
    _, once = summarise(records, card).cells
    assert (once.word, once.tunings.words(once.comparison)) == ("equivalent", ("equivalent",))
    records, card = tuned_again(records, card, {ANALYTIC: flat, FROZEN: flat})
    summary = summarise(records, card)
    assert (summary.cells[1].word, summary.times_tuned()) == ("equivalent", 2)
    records, card = tuned_again(records, card, worse, (3000, 3001, 3002))
    summary = summarise(records, card)
    reference, frozen = summary.cells
    assert (reference.word, frozen.word) == ("", "depends on tuning")
    assert (frozen.runs, frozen.comparison.mean) == (10, 0.0)  # the numbers are those of the first time
    assert frozen.tunings.words(frozen.comparison) == ("equivalent", "equivalent", "worse")
    assert verdict_text(summary).verdict == (
        "Against analytic sinusoidal, over 10 paired seeds: learned-frozen · fourier-mlp depends on tuning (equivalent "
        "2 of 3 times, worse 1; the first time validation loss +0.0000 [+0.0000, +0.0000])."
    )
    for record in records:
        write_run(record, tmp_path / "results")
    write_card(card, tmp_path / "results")
    report = write_report(tmp_path)
    markdown, page = report.markdown.read_text(), report.html.read_text()
    row = "| learned-frozen · fourier-mlp | equivalent 2 of 3 times, worse 1 | +0.0000 +0.0000 +0.2045 |"
    assert row in markdown
    assert "depends on tuning: equivalent 2 of 3 times, worse 1" in markdown
    assert "Does the word depend on tuning?" in page
    assert "tuned once" not in markdown + page


def test_a_word_that_fewer_trials_change_is_budget_dependent(tuned_study, make_record, tmp_path):
    """The best of one trial is another one, with which the arm is worse."""
    records, card = tuned_study
    card = dataclasses.replace(card, tuning=dataclasses.replace(card.tuning, budgets=(1,)))
    more = [
        make_record(
            cell=cell,
            seed=seed,
            run_id=f"budget-{cell.arm}-{seed}",
            value=2 + seed / 100 + (0.2 + seed / 1000) * (cell == FROZEN),
            parameters={"learning_rate": 0.011},
        )
        for cell in (ANALYTIC, FROZEN)
        for seed in range(10)
    ]
    _, unfinished = summarise([*records, *more[:-1]], card).cells
    assert unfinished.word == "equivalent"
    summary = summarise([*records, *more], card)
    assert summary.cells[1].word == "budget-dependent"
    assert verdict_text(summary).verdict.endswith(
        "learned-frozen · fourier-mlp is budget-dependent (worse with 1, equivalent with 2 trials; with all validation "
        "loss +0.0000 [+0.0000, +0.0000])."
    )
    for record in [*records, *more]:
        write_run(record, tmp_path / "results")
    write_card(card, tmp_path / "results")
    assert load_results(tmp_path / "results").card == card
    report = write_report(tmp_path)
    markdown, page = report.markdown.read_text(), report.html.read_text()
    assert "budget-dependent: worse with 1, equivalent with 2 trials" in markdown
    line = "By the best of fewer trials: learned-frozen · fourier-mlp is worse with 1, equivalent with 2 trials."
    assert line in markdown
    assert line in page


def test_several_objectives_have_a_pareto_front(make_record):
    """Of five trials one is beaten in both; the chosen one is the cheapest within half the margin."""
    values = {0: (1.0, 9), 1: (1.04, 2), 2: (1.06, 1), 3: (1.02, 9.5), 4: (1.03, 3)}
    runs = [
        make_record(
            cell=FROZEN,
            phase="tune",
            trial=number,
            seed=1000,
            run_id=f"t-{number}",
            measurements=(Measurement(VALIDATION_LOSS, loss, 2), Measurement(metrics.PARAMETERS, count, 0)),
        )
        for number, (loss, count) in values.items()
    ]
    trials = trials_of(runs, VALIDATION_LOSS, 9, (1000,), ("parameters",))
    weighing = Weighing(0.1, {"parameters": False})
    assert [trial.number for trial in pareto_front(trials, VALIDATION_LOSS, weighing)] == [0, 4, 1, 2]
    assert best_first(trials, VALIDATION_LOSS, weighing)[0].number == 1
    assert best_first(trials, VALIDATION_LOSS, Weighing(0.001, {"parameters": False}))[0].number == 0
    assert best_first(trials, VALIDATION_LOSS, Weighing(0.1, {"parameters": True}))[0].number == 3
    summed = sum_up_tuning(trials, VALIDATION_LOSS, DESIGN, weighing)
    assert (summed.best.number, [trial.number for trial in summed.on_front()]) == (1, [0, 4, 1, 2])


def test_a_time_whose_runs_are_not_all_finished_changes_no_word(tuned_study):
    records, card = tuned_study
    flat = [2 + seed / 100 for seed in range(10)]
    records, card = tuned_again(records, card, {ANALYTIC: flat, FROZEN: [value + 0.2 for value in flat[:9]]})
    summary = summarise(records, card)
    assert (summary.cells[1].word, summary.times_tuned()) == ("equivalent", 1)


def test_a_gain_is_explained_by_a_control_that_any_tuning_leaves_unbeaten():
    first = Gain((Control(ANALYTIC, 0.5, beaten=True), Control(FROZEN, 0.25, beaten=True)))
    second = Gain((Control(ANALYTIC, 0.9, beaten=False), Control(FROZEN, 0.3, beaten=True, compared=False)))
    together = Tunings((Compared(None, gain=second), Compared(None))).gain(first)
    assert together == Gain((Control(ANALYTIC, 0.5, beaten=False), Control(FROZEN, 0.25, beaten=True, compared=False)))
    assert Tunings().gain(None) is None


def test_the_report_shows_every_trial_the_gap_and_the_edge(tuned_study, tmp_path):
    records, card = tuned_study
    for record in records:
        write_run(record, tmp_path / "results")
    write_card(card, tmp_path / "results")
    assert load_results(tmp_path / "results").card == card
    report = write_report(tmp_path)
    markdown = report.markdown.read_text()
    for line in (
        "on the tuning seeds 1000, 1001, 1002; the best one is chosen by its mean",
        "> The best setting is at the edge of its range for learned-frozen · fourier-mlp (learning rate 0.1): a better",
        "| analytic | 1 | 2.4 | 0 | +0.9000 [+0.8000, +1.0000] | – |",
        "| learned-frozen · fourier-mlp | 1 | 4 | 0 | +0.2333 [−0.1500, +0.5000] | learning rate 0.1 |",
        "| analytic | 1 | learning rate 0.013 | 2.4 | 0.46 | 2 2.3 2.9 |",
        "| analytic | 0 | learning rate 0.011 | 3.3 | 0.36 | 3 3.2 3.7 |",
        "| learned-frozen · fourier-mlp | 0 | learning rate 0.011 | 4.2333 | 0.32 | 4 4.1 4.6 |",
    ):
        assert line in markdown, line
    page = " ".join(report.html.read_text().split())
    assert "Every arm was tried with the same settings, each on the tuning seeds 1000, 1001, 1002" in page
    assert '<span class="word">learning rate 0.1</span> (high end)' in page
    assert "<td>4.2333</td><td>0.32</td> <td>4 4.1 4.6</td>" in page
    assert "Tuning trials" in page


def test_the_figure_has_each_arms_means_and_the_range_of_its_seeds(tuned_study):
    records, card = tuned_study
    figure = tuning_trials(summarise(records, card))
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in marks] == ["analytic", "learned-frozen · fourier-mlp"]
    frozen = marks[1]
    assert list(frozen.x) == [0, 1]
    assert list(frozen.y) == pytest.approx([12.7 / 3, 4.0])
    assert list(frozen.error_y.array) == pytest.approx([4.6 - 12.7 / 3, 0.75])
    assert list(frozen.error_y.arrayminus) == pytest.approx([12.7 / 3 - 4.0, 0.5])
    assert list(frozen.marker.size) == [8, 14]
    assert frozen.text[1] == "learning rate 0.0998"
    nothing = [run for run in records if run.phase == "evaluate"]
    assert tuning_trials(summarise(nothing, dataclasses.replace(card, trials=0))) is None


def test_the_figure_has_optunas_history_as_a_line_that_only_gets_better(tried, card):
    losses = [(3.0, 3.0, 3.0), (None, 1.0, 1.0), (2.0, 2.0, 2.25), (5.0, 5.0, 5.0), (1.5, 1.75, 1.5)]
    tuned = dataclasses.replace(card, trials=5, tuning=DESIGN)
    [line] = [trace for trace in tuning_trials(summarise(tried(losses), tuned)).data if trace.mode == "lines"]
    assert list(line.x) == [0, 1, 2, 3, 4]
    assert list(line.y) == pytest.approx([3.0, 3.0, 6.25 / 3, 6.25 / 3, 4.75 / 3])  # trial 1 diverged on a seed


def fit_of(make_record, seed, error, region="0..7", **special):
    rows = (Measurement(metrics.over_region("max_error", region), error), Measurement(metrics.NET_PARAMETERS, 12.0))
    rows += (Measurement(metrics.over_region("max_error", "8..15"), 10 * error), Measurement(metrics.FIT_TIME, error))
    plain = {"phase": "fit", "cell": CellKey("sinusoidal", "", "siren"), "notes": {"fitted_on": "0..7"}}
    return make_record(seed=seed, run_id=f"fit-{seed}", measurements=rows, **plain | special)


def test_many_fits_of_a_net_are_a_mean_with_its_spread(make_record):
    fits = [fit_of(make_record, seed, error) for seed, error in ((0, 0.1), (1, 0.2), (2, 0.6))]
    nothing = (Measurement(metrics.FIT_LOSS, None),)
    lost = dataclasses.replace(fit_of(make_record, 3, 9.0), status="diverged", error="nan", measurements=nothing)
    inside, outside = summarise([*fits, lost]).fidelity
    assert (inside.fits, inside.fitted, outside.fitted, inside.leads, outside.leads) == (3, True, False, True, False)
    assert inside.errors["max_error"] == pytest.approx(0.3)
    assert inside.spreads["max_error"] == pytest.approx(0.07**0.5)
    assert outside.errors["max_error"] == pytest.approx(3.0)
    assert inside.costs == pytest.approx({"net_parameters": 12.0, "fit_time": 0.3})
    assert summarise([*fits, lost]).fits_per_net == 3


def test_single_fits_and_fits_under_other_conditions_are_rows_of_their_own(make_record):
    apart = [fit_of(make_record, 0, 0.1), fit_of(make_record, 1, 0.2, spec_hash="other")]
    assert [row.fits for row in summarise(apart).fidelity] == [1, 1, 1, 1]
    single = [fit_of(make_record, seed, 0.1 + seed, card=None) for seed in (0, 1)]
    rows = summarise(single).fidelity
    assert [(row.fits, row.spreads) for row in rows] == [(1, {})] * 4
    assert [row.errors["max_error"] for row in rows[::2]] == [0.1, 1.1]


@pytest.mark.parametrize(("seeds", "words"), [((0,), "All seeds use the same fit"), ((0, 1), "means over 2 fits")])
def test_the_report_says_which_fits_the_verdict_is_about(make_record, tmp_path, seeds, words):
    for record in [*(make_record(seed=seed) for seed in range(3)), *(fit_of(make_record, s, 0.1 + s) for s in seeds)]:
        write_run(record, tmp_path / "results")
    report = write_report(tmp_path)
    page = " ".join(report.html.read_text().split())
    assert words in page
    assert ("0.6 ± 0.71" in report.markdown.read_text()) == (len(seeds) == 2)
    assert ("Each seed has a fit of its own" in page) == (len(seeds) == 2)


def test_fidelity_is_that_of_the_sizes_that_were_evaluated_and_names_them(make_record):
    """Of a net whose size each trial chooses there is a fit for each; those of the other trials are left out."""
    sizes = {0: {"net": "spline", "nets.intervals": 4}, 1: {"net": "mlp-relu", "nets.hidden": [8, 8]}}
    error = Metric("max_error/-4..4", "1", False)
    trials = [
        make_record(
            cell=FROZEN, phase="tune", trial=number, seed=1000, run_id=f"t-{number}", parameters=size, value=value
        )
        for (number, size), value in zip(sizes.items(), (2.0, 1.0), strict=True)
    ]
    net = CellKey(FROZEN.function, "", FROZEN.net)
    fits = [
        make_record(
            cell=net, phase="fit", run_id=f"f-{number}", parameters=size, measurements=(Measurement(error, number),)
        )
        for number, size in [*sizes.items(), (2, {})]
    ]
    tuned = {FROZEN: sum_up_tuning(trials_of(trials, VALIDATION_LOSS, 2, (1000,)), VALIDATION_LOSS, DESIGN)}
    assert [fit.run_id for fit in fits_that_count([*trials, *fits], tuned)] == ["f-1", "f-2"]
    named = {row.net for row in fidelity(fits_that_count([*trials, *fits], tuned))}
    assert named == {FROZEN.net, f"{FROZEN.net} (mlp-relu, hidden 8×8)"}
