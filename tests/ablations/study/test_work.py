"""What a run's record says is what its request and its study asked for: the same numbers, computed another way."""

import dataclasses
import random

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.fit import FitDivergedError, fit, load_fitted, refinement_budget
from trans4init.ablations.functions import Domain
from trans4init.ablations.net_files import is_whole
from trans4init.ablations.nets import build_net
from trans4init.ablations.study import trained_runs, work
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.trained_runs import run_request
from trans4init.ablations.study.work import (
    build_model,
    build_task,
    fit_nets,
    run_fits,
    run_throughput,
)
from trans4init.ablations.tasks import model_config
from trans4init.ablations.training.loop import train
from trans4init.ablations.transformer import Transformer
from trans4init.reports.machine import capture
from trans4init.reports.records import metrics
from trans4init.reports.records.kept_slots import read_kept, write_kept
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.vocabulary import REFERENCE_COPY
from trans4init.reports.study_report.summary import summarise

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
FINE_TUNED = CellKey("sinusoidal", "learned-fine-tuned", "fourier-mlp")
FROM_SCRATCH = CellKey("sinusoidal", "learned-from-scratch", "fourier-mlp")
MATCHED = CellKey("sinusoidal", "matched", "fourier-mlp")
BASELINE = CellKey("learned-table", "free-table")
NO_TWO_ALIKE = (
    ('"learned-frozen", ', '"learned-frozen", "learned-from-scratch", '),
    ("[fit]\nsteps = 20", "[fit]\nsteps = 17\nlearning_rate = 5e-3\nseed = 5"),
    ("log_every = 2", "log_every = 1"),
    ("rounds = 2\nsteps_per_round = 1", "rounds = 4\nsteps_per_round = 3"),
)
"""Changes of the tiny study after which no two of its numbers are the same by accident."""


def quiet(*_):
    """Ignore how far a run has got."""


def resolved(path, folder):
    spec = load_study(str(path))
    return ResolvedStudy(spec, spec.task.fingerprint(), capture(), folder / "runs" / "tiny", "again")


@pytest.fixture
def study(tiny_study, tmp_path):
    return resolved(tiny_study(*NO_TWO_ALIKE), tmp_path)


@pytest.fixture(scope="module")
def fitted_study(tmp_path_factory, write_study):
    """The same study with its net fitted, for tests that only read it."""
    folder = tmp_path_factory.mktemp("fitted")
    study = resolved(write_study(folder, *NO_TWO_ALIKE), folder)
    [fit] = run_fits(study, study.fit_requests(), quiet)
    assert fit.status == "ok"
    return study


def measured(record):
    """What a run measured, without its seconds."""
    return [m for m in record.measurements if m.metric != metrics.WALL_TIME]


def content_of(study, cell, seed):
    """The fitted or the bare net of a cell, made without the study's own code."""
    if cell.arm in ("learned-frozen", "learned-fine-tuned"):
        return load_fitted(study.checkpoint(cell.net))
    return build_net("fourier-mlp", Domain(0, 31, integer=True), 8, hidden=[8], frequencies=4) if cell.net else None


def by_hand(study, cell, seed, split, **settings):
    """The measurements of a run, from the model's start to the end of training."""
    spec, task = study.spec, build_task(study)
    model = Transformer(model_config(spec.model, task, position=cell.function), seed=seed)
    arm = apply_arm(model, "position", cell.arm, content_of(study, cell, seed), seed=seed)
    config = spec.training.model_copy(update=settings)
    return arm, train(model, task, config, arm, seed=seed, split=split)


@pytest.mark.parametrize(
    ("phase", "cell"),
    [("evaluate", cell) for cell in (ANALYTIC, FROZEN, FINE_TUNED, FROM_SCRATCH, BASELINE)]
    + [("tune", cell) for cell in (ANALYTIC, FINE_TUNED)],
)
def test_a_run_is_the_training_that_its_request_asks_for(fitted_study, cell, phase):
    """Function, arm, net, seed, settings and split are the request's; every number is that of the same run by hand."""
    study, settings = fitted_study, {"learning_rate": 0.034}
    request = {
        "tune": study.tune_request(cell, 1, settings, 1001),
        "evaluate": study.evaluate_request(cell, 3, 1, settings),
    }[phase]
    assert request.seed == {"tune": 1001, "evaluate": 3}[phase]
    record = run_request(study, request, quiet)
    assert record.status == "ok", record.error
    arm, trained = by_hand(study, cell, request.seed, phase, **settings)
    assert [m for m in measured(record) if m in trained] == trained
    assert record.notes == {"moves": " ".join(arm.moves), "frozen": " ".join(arm.frozen)}
    assert record.last("parameters_added") == arm.parameters_added
    if cell != BASELINE:  # which has no closed form to differ from
        assert record.last("output_difference_max") == arm.output_difference_max
        assert record.last("output_difference_rms") == arm.output_difference_rms


def kept_by(study, request):
    """The record of a run, and what it kept of its slots."""
    files = []
    record = run_request(study, request, quiet, files.append)
    assert record.status == "ok", record.error
    assert len(files) <= 1
    for content in files:
        write_kept(study.folder, request.run_id, content)
    return record, read_kept(study.folder, request.run_id)


def test_an_evaluation_keeps_the_slot_that_it_trained(fitted_study):
    study = fitted_study
    request = study.evaluate_request(FINE_TUNED, 3, 1, {"learning_rate": 0.034})
    record, kept = kept_by(study, request)
    model, arm = build_model(study, FINE_TUNED, 3, build_task(study))
    untrained = {name: value.detach().clone() for name, value in model.position.content.named_parameters()}
    config = study.spec.training.model_copy(update={"learning_rate": 0.034})
    train(model, build_task(study), config, arm, seed=3, split="evaluate")
    assert {f"position/{name}" for name in untrained} == set(kept.state)
    for name, value in model.position.content.named_parameters():
        assert torch.equal(torch.tensor(kept.state[f"position/{name}"]), value)
        assert not torch.equal(untrained[name], value), name
    assert torch.equal(torch.tensor(kept.values["position"]), model.position(torch.arange(8)))
    off = torch.tensor(kept.values["position"] - kept.closed).double()
    assert off.square().mean().sqrt().item() == pytest.approx(record.last("slot_drift_rms"), rel=1e-4)
    said = {key: kept.header[key] for key in ("run_id", "study", "spec_hash", "function", "arm", "seed")}
    assert said == {
        "run_id": request.run_id,
        "study": "tiny",
        "spec_hash": study.spec_hash,
        "function": "sinusoidal",
        "arm": "learned-fine-tuned",
        "seed": 3,
    }
    assert kept.header["net"] == {"name": "fourier-mlp", "hidden": [8], "frequencies": 4}


def test_a_training_is_not_lost_when_its_slot_can_not_be_kept(fitted_study, monkeypatch):
    def fail(*_):
        raise ArithmeticError("no values")

    monkeypatch.setattr(trained_runs, "kept_slots", fail)
    files = []
    record = run_request(fitted_study, fitted_study.evaluate_request(FINE_TUNED, 3, 1, {}), quiet, files.append)
    assert (record.status, files) == ("ok", [])
    assert record.notes["slots"] == "not kept: ArithmeticError: no values"
    [note] = [note for note in summarise([record]).notes if "aren't drawn" in note]
    assert note == f"The slots of 1 runs aren't drawn: that of {record.run_id} was {record.notes['slots']}."


def test_nothing_is_kept_of_trials_of_closed_forms_and_of_runs_that_diverge(fitted_study):
    study, files = fitted_study, []
    diverging = study.evaluate_request(FINE_TUNED, 2, 0, {"learning_rate": 1e30})
    for request in (study.tune_request(FINE_TUNED, 1, {}, 1000), study.evaluate_request(ANALYTIC, 0, 0, {}), diverging):
        run_request(study, request, quiet, files.append)
    assert files == []


def test_the_matched_arm_has_as_many_more_values_as_the_net_in_its_feed_forward_layers(fitted_study):
    study = fitted_study
    model, record = build_model(study, MATCHED, 3, build_task(study))
    plain, _ = build_model(study, ANALYTIC, 3, build_task(study))
    net = content_of(study, FROM_SCRATCH, 3)
    added = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    assert (record.arm, record.net, record.moves, record.frozen) == ("matched", "fourier-mlp", (), ())
    assert record.parameters_added == added
    assert net.parameter_count() <= added < net.parameter_count() + 16  # a unit has 8 values in and 8 out
    tokens = plain.example_inputs()
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=0, atol=1e-5)
    assert record.output_difference_max == (model(tokens) - plain(tokens)).abs().max().item()
    assert torch.equal(model.position(torch.arange(9)), plain.position(torch.arange(9)))
    result = run_request(study, study.evaluate_request(MATCHED, 3, None, {}), quiet)
    assert (result.status, result.last("parameters_added")) == ("ok", added)


def test_no_two_columns_of_a_run_are_equal(fitted_study):
    """So that a number in the wrong column is another number. The ranges of a slot's inputs may be alike."""
    record = run_request(fitted_study, fitted_study.evaluate_request(FINE_TUNED, 3, 1, {}), quiet)
    last = {m.metric.name: m.value for m in measured(record) if "/" not in m.metric.name}
    assert len(set(last.values())) == len(last) >= 12
    assert record.last("output_difference_max") > record.last("output_difference_rms") > 0
    assert record.last("slot_drift_max") > record.last("slot_drift_rms") > 0
    model, _ = build_model(fitted_study, FINE_TUNED, 3, build_task(fitted_study))
    plain, _ = build_model(fitted_study, ANALYTIC, 3, build_task(fitted_study))
    assert record.last("parameters") == sum(p.numel() for p in model.parameters())
    assert record.last("parameters_added") == record.last("parameters") - sum(p.numel() for p in plain.parameters())


def test_tuning_never_looks_at_what_the_evaluation_is_measured_on(tmp_path, tiny_study):
    """The evaluation's split is another language: a loss that was measured there is far above the other's."""
    path = tiny_study(("steps = 6", "steps = 60"), ("log_every = 2", "log_every = 10"))
    words = " ".join(random.Random(1).choices(["net", "slot", "arm"], k=900))[:3600]
    digits = "".join(random.Random(2).choices("0123456789", k=400))
    (tmp_path / "text.txt").write_text(words + digits)
    study = resolved(path, tmp_path)
    read = {split: build_task(study).text.held_out(split).tobytes().decode() for split in ("tune", "evaluate")}
    assert read == {"tune": words[3400:], "evaluate": digits}
    tuned = run_request(study, study.tune_request(ANALYTIC, 0, {}, 1000), quiet)
    evaluated = run_request(study, study.evaluate_request(ANALYTIC, 0, 0, {}), quiet)
    assert evaluated.last("validation_loss") > tuned.last("validation_loss") + 1


@pytest.mark.parametrize("phase", ["tune", "evaluate"])
def test_a_run_touches_its_own_split_alone(study, monkeypatch, phase):
    """In training, at every evaluation and in the last one."""
    touched = []

    class Watched:
        """Notes, as a task, which splits it is asked for."""

        def __init__(self, task):
            self.task = task

        def __getattr__(self, name):
            return getattr(self.task, name)

        def batches(self, seed, size, split, **options):
            touched.append(("batches", seed, size, split))
            return self.task.batches(seed, size, split, **options)

        def evaluate(self, model, split, step, *, final):
            touched.append(("evaluate", step, final, split))
            return self.task.evaluate(model, split, step, final=final)

    monkeypatch.setattr(trained_runs, "build_task", lambda study: Watched(build_task(study)))
    request = {
        "tune": study.tune_request(ANALYTIC, 0, {}, 1000),
        "evaluate": study.evaluate_request(ANALYTIC, 7, 0, {}),
    }
    assert run_request(study, request[phase], quiet).status == "ok"
    assert touched == [
        ("batches", request[phase].seed, 2, phase),
        ("evaluate", 3, False, phase),
        ("evaluate", 6, True, phase),
    ]


def test_a_fit_is_the_one_that_the_study_describes(study):
    """Its function, net, size, seed, steps and rate; kept where the arms look for it; told step by step."""
    steps = []
    [record] = run_fits(study, study.fit_requests(), lambda *told: steps.append(told))
    size = {"hidden": [8], "frequencies": 4}
    domain = Domain(0, 31, integer=True)
    expected = fit("sinusoidal", "fourier-mlp", seed=5, domain=domain, size=size, steps=17, learning_rate=5e-3, width=8)
    other = fit("sinusoidal", "fourier-mlp", seed=0, domain=domain, size=size, steps=17, learning_rate=5e-3, width=8)
    kept = load_fitted(study.checkpoint("fourier-mlp"))
    assert [torch.equal(a, b) for a, b in zip(kept.net.parameters(), expected.net.parameters(), strict=True)] == (
        [True] * len(list(expected.net.parameters()))
    )
    timed = ("fit_time", "call_time", "folded_call_time", "analytic_call_time")
    numbers = [m for m in expected.fidelity.measurements() if m.metric.name not in timed]
    assert [m for m in measured(record) if m.metric.name not in timed] == numbers
    assert numbers != [m for m in other.fidelity.measurements() if m.metric.name not in timed]
    assert {total for _, total, _ in steps} == {17 + refinement_budget(17)}
    assert (record.seed, record.phase, record.cell) == (5, "fit", CellKey("sinusoidal", "", "fourier-mlp"))
    assert record.notes["fitted_on"] == "0..31"


@pytest.fixture
def many_fits(tiny_study, tmp_path):
    """A study with a fit for each run; its nets are fitted, and each one's values are moved by its seed."""
    study = resolved(tiny_study(("[fit]\nsteps = 20", '[fit]\nsteps = 5\nseeds = "per-run"')), tmp_path)
    records = run_fits(study, study.fit_requests(), quiet)
    assert [(record.seed, record.status) for record in records] == [(1000, "ok"), (0, "ok"), (1, "ok")]
    for seed in (1000, 0, 1):
        fitted = load_fitted(study.checkpoint("fourier-mlp", seed))
        assert fitted.seed == seed
        with torch.no_grad():
            [*fitted.net.parameters()][-1].add_(1 + seed / 10)
        fitted.save(study.checkpoint("fourier-mlp", seed))
    return study


def test_each_run_uses_the_net_that_was_fitted_with_its_seed(many_fits):
    """The nets differ by a planted shift, and with them how far a model is from its closed form before training."""
    task, shifts = build_task(many_fits), {}
    for seed in (1000, 0, 1):
        fitted = load_fitted(many_fits.checkpoint("fourier-mlp", seed))
        [*_, shift] = fitted.net.parameters()
        [*_, held] = build_model(many_fits, FINE_TUNED, seed, task)[0].position.content.net.parameters()
        assert torch.equal(held, shift)
        shifts[seed] = shift.mean().item()
        tuned = many_fits.tune_request(FROZEN, 0, {}, seed)
        request = tuned if seed == 1000 else many_fits.evaluate_request(FROZEN, seed, 0, {})
        model = Transformer(model_config(many_fits.spec.model, task, position="sinusoidal"), seed=seed)
        arm = apply_arm(model, "position", "learned-frozen", fitted, seed=seed)
        assert run_request(many_fits, request, quiet).last("output_difference_rms") == arm.output_difference_rms
    assert shifts[1000] - 50 > shifts[1] > shifts[0]


def test_fits_that_are_made_together_are_those_that_each_seed_makes_alone(tiny_study, tmp_path):
    """Bit for bit, so that a study which was interrupted among them ends as one that was not."""
    study = resolved(tiny_study(("[fit]\nsteps = 20", '[fit]\nsteps = 40\nseeds = "per-run"')), tmp_path)
    seeds = [1000, 0, 1, 5]
    together = {seeds[index]: fitted for index, fitted in fit_nets(study, "fourier-mlp", seeds, 40)}
    for company in ([0], [1, 0], [5, 1, 1000]):
        for index, fitted in fit_nets(study, "fourier-mlp", company, 40):
            other = together[company[index]]
            assert fitted.seed == other.seed == company[index]
            for mine, theirs in zip(fitted.net.parameters(), other.net.parameters(), strict=True):
                assert torch.equal(mine, theirs)
    alone = fit(
        "sinusoidal",
        "fourier-mlp",
        seed=5,
        domain=Domain(0, 31, integer=True),
        size={"hidden": [8], "frequencies": 4},
        steps=40,
        width=8,
    )
    assert all(torch.equal(a, b) for a, b in zip(alone.net.parameters(), together[5].net.parameters(), strict=True))


def test_a_fit_that_diverges_is_a_row_and_the_others_are_kept(tiny_study, tmp_path, monkeypatch):
    study = resolved(tiny_study(("[fit]\n", '[fit]\nseeds = "per-run"\n')), tmp_path)

    def spoilt(study, net, seeds, *rest):
        for index, fitted in fit_nets(study, net, seeds, *rest):
            yield index, FitDivergedError("the loss is nan") if seeds[index] == 0 else fitted

    monkeypatch.setattr(work, "fit_nets", spoilt)
    records = run_fits(study, study.fit_requests(), quiet)
    assert [(record.seed, record.status, record.error) for record in records] == [
        (1000, "ok", ""),
        (0, "diverged", "the loss is nan"),
        (1, "ok", ""),
    ]
    assert [is_whole(study.checkpoint("fourier-mlp", seed)) for seed in (1000, 0, 1)] == [True, False, True]
    monkeypatch.setattr(work, "fit_nets", lambda *_: 1 / 0)
    assert {record.status for record in run_fits(study, study.fit_requests(), quiet)} == {"failed"}


def test_a_run_that_diverges_keeps_what_it_measured_before(study):
    request = study.evaluate_request(ANALYTIC, 0, 0, {"learning_rate": 1e30})
    record = run_request(study, request, quiet)
    assert record.status == "diverged"
    [lost] = [m for m in record.measurements if m.metric == metrics.VALIDATION_LOSS]
    losses = [m for m in record.measurements if m.metric == metrics.TRAINING_LOSS]
    assert lost.value is None
    assert lost.step == len(losses) + 1 > 1
    assert record.error == f"the training loss is nan at step {lost.step}"
    seconds = record.by_step("wall_time")
    assert sorted(seconds) == [m.step for m in losses] + [lost.step]
    assert list(seconds.values()) == sorted(set(seconds.values()))
    assert record.last("wall_time") == max(seconds.values()) > 0


def test_a_run_that_falls_behind_stops_at_its_evaluation_and_keeps_what_it_measured_until_then(tiny_study, tmp_path):
    """By the whole way of a worker: rivals come with the request, and the judged metric decides at the first of two."""
    pruner = 'trials = 2\npruner = { name = "median", n_startup_trials = 1 }'
    study = resolved(tiny_study(("trials = 2", pruner)), tmp_path)
    request = study.tune_request(ANALYTIC, 1, {"learning_rate": 0.01}, 1000)
    steps: list[int] = []
    unbeatable, hopeless = ({3: level, 6: level} for level in (0.0, 99.0))
    behind, ahead = (
        run_request(study, dataclasses.replace(request, rivals=(rival,) * 3), lambda step, *_: steps.append(step))
        for rival in (unbeatable, hopeless)
    )
    assert (behind.status, behind.error) == ("pruned", "fell behind at step 3")
    assert behind.by_step("validation_loss").keys() == {3}
    assert (ahead.status, ahead.by_step("validation_loss").keys()) == ("ok", {3, 6})
    assert behind.by_step("validation_loss")[3] == ahead.by_step("validation_loss")[3]
    assert steps == [2, 2, 4, 6]  # of the one that was stopped, then of the other
    free = study.evaluate_request(ANALYTIC, 0, 1, {"learning_rate": 0.01})
    assert run_request(study, dataclasses.replace(free, rivals=(unbeatable,) * 3), quiet).status == "ok"


def test_a_tuning_run_measures_its_speed_where_tuning_weighs_it(tiny_study, tmp_path):
    weighed = 'trials = 2\nobjectives = ["validation_loss", "training_throughput"]'
    study = resolved(tiny_study(("trials = 2", weighed)), tmp_path)
    tuned = run_request(study, study.tune_request(ANALYTIC, 0, {"learning_rate": 0.01}, 1000), quiet)
    evaluated = run_request(study, study.evaluate_request(ANALYTIC, 0, 0, {"learning_rate": 0.01}), quiet)
    speed, seconds = tuned.last("training_throughput"), tuned.last("wall_time")
    assert 2 * 8 * 6 / seconds <= speed  # examples × tokens × steps, in less than the whole run
    assert evaluated.last("training_throughput") is None


def test_the_net_of_a_trial_is_fitted_in_the_trials_size_and_used_in_it(tiny_study, tmp_path):
    space = ("learning_rate = { low = 1e-3, high = 1e-1, log = true }", "nets.hidden = { choices = [[6], [8]] }")
    study = resolved(tiny_study(space), tmp_path)
    run = study.tune_request(FROZEN, 1, {"nets.hidden": [6]}, 1000)
    [record] = run_fits(study, [study.fit_of(run)], quiet)
    assert (record.status, record.parameters) == ("ok", {"nets.hidden": [6]})
    assert record.last(metrics.NET_PARAMETERS.name) == 8 * 6 + 6 + 6 * 8 + 8 + 4
    assert study.request_of(record).run_id == record.run_id
    trained = run_request(study, run, quiet)
    assert trained.last(metrics.PARAMETERS_ADDED.name) == record.last(metrics.NET_PARAMETERS.name)
    own = run_request(study, study.tune_request(FROZEN, 0, {"nets.hidden": [8]}, 1000), quiet)
    assert own.status == "failed"  # its net, of another size, was not fitted


def test_a_record_is_of_its_request(study):
    request = study.tune_request(FROZEN, 1, {"learning_rate": 0.02}, 1002)
    found = [Measurement(metrics.VALIDATION_LOSS, 1.5, 6)]
    record = study.record(request, found, accelerator="a GPU", status="oom", error="too large", notes={"a": "b"})
    assert (record.run_id, record.phase, record.cell) == (request.run_id, "tune", FROZEN)
    assert (record.trial, record.seed, record.parameters) == (1, 1002, {"learning_rate": 0.02})
    assert (record.status, record.error, record.notes) == ("oom", "too large", {"a": "b"})
    assert (record.device, record.environment.accelerator) == ("a GPU", "a GPU")
    assert (record.study, record.spec_hash, record.task) == ("tiny", study.spec_hash, "text")
    assert record.measurements == tuple(found)
    assert record.spec["fingerprint"] == study.fingerprint
    assert study.record(request, found).device == study.environment.processor


def test_the_card_of_a_study_is_what_the_study_says(tiny_study, tmp_path):
    """The margin, the metric, the seeds and the reference that the verdict is judged by."""
    path = tiny_study(("seeds = 2", 'seeds = 4\nmetric = "perplexity"'))
    study = resolved(path, tmp_path)
    card = study.card()
    assert (card.name, card.question, card.metric, card.margin) == ("tiny", "Does it run?", "perplexity", 0.05)
    assert (card.seeds, card.reference, card.command) == (4, ANALYTIC, "again")
    assert card.cells == study.spec.cells()
    assert card.setting == f"{study.spec.task}; {study.spec.model}; 6 steps of 2 examples"


def test_a_session_times_each_cell_and_keeps_each_ones_numbers_apart(fitted_study, monkeypatch):
    """Its rounds and steps are the study's; the model and batch of a cell are those that it trains with."""
    study, said = fitted_study, {}

    def timed(builders, **plan):
        said.update(plan, models=[build() for build in builders])
        return [[Measurement(metrics.TRAINING_THROUGHPUT, 100.0 + n, 0)] for n in range(len(said["models"]))]

    monkeypatch.setattr(work, "interleaved", timed)
    requests = study.throughput_requests()
    records = run_throughput(study, requests)
    assert (said["rounds"], said["steps"]) == (4, 3)
    assert [(r.cell, r.last("training_throughput")) for r in records] == [
        (cell, 100.0 + n) for n, cell in enumerate([*study.spec.cells(), study.spec.reference()])
    ]
    assert [r.seed for r in records] == [0] * len(study.spec.cells()) + [REFERENCE_COPY]
    assert [r.run_id for r in records] == [request.run_id for request in requests]
    assert len({r.notes["session"] for r in records}) == 1
    first, second = said["models"][0].step.model, said["models"][-1].step.model
    assert first is not second
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    for cell, model in zip([*study.spec.cells(), study.spec.reference()], said["models"], strict=True):
        _, arm = build_model(study, cell, 0, build_task(study))
        groups = {group["name"]: group["params"] for group in model.step.optimiser.param_groups}
        assert len(groups.get("slot", [])) == len(arm.moves), cell
        assert model.step.model.position.function.name == cell.function
        assert model.batch.inputs.shape == (2, 8)


def test_a_session_uses_as_many_threads_as_a_run(tiny_study, tmp_path, monkeypatch):
    study, said = resolved(tiny_study(("steps = 6", "steps = 6\nthreads = 2")), tmp_path), {}
    rows = [[Measurement(metrics.TRAINING_THROUGHPUT, 1.0, 0)]]
    monkeypatch.setattr(work, "interleaved", lambda builders, **plan: said.update(plan) or rows)
    run_throughput(study, study.throughput_requests()[:1])
    assert said["cores"] == 2


def test_a_session_that_fails_is_a_failed_record_of_every_cell(study):
    """The nets were never fitted."""
    records = run_throughput(study, study.throughput_requests())
    assert {record.status for record in records} == {"failed"}
    assert [record.cell for record in records] == [*study.spec.cells(), study.spec.reference()]
    assert all("holds no fitted net" in record.error for record in records)
