"""What a run's record says is what its request and its study asked for: the same numbers, computed another way."""

import random

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.fit import fit, load_fitted, refinement_budget
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net
from trans4init.ablations.study import work
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import load_study
from trans4init.ablations.study.work import build_model, build_task, run_request, run_throughput
from trans4init.ablations.tasks import model_config
from trans4init.ablations.training.loop import train
from trans4init.ablations.transformer import Transformer
from trans4init.reports.machine import capture
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
FINE_TUNED = CellKey("sinusoidal", "learned-fine-tuned", "fourier-mlp")
FROM_SCRATCH = CellKey("sinusoidal", "learned-from-scratch", "fourier-mlp")
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
    assert run_request(study, study.fit_request("fourier-mlp"), quiet).status == "ok"
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
        "tune": study.tune_request(cell, 1, settings),
        "evaluate": study.evaluate_request(cell, 3, 1, settings),
    }[phase]
    assert request.seed == {"tune": 1000, "evaluate": 3}[phase]
    record = run_request(study, request, quiet)
    assert record.status == "ok", record.error
    arm, trained = by_hand(study, cell, request.seed, phase, **settings)
    assert [m for m in measured(record) if m in trained] == trained
    assert record.notes == {"moves": " ".join(arm.moves), "frozen": " ".join(arm.frozen)}
    assert record.last("parameters_added") == arm.parameters_added
    if cell != BASELINE:  # which has no closed form to differ from
        assert record.last("output_difference_max") == arm.output_difference_max
        assert record.last("output_difference_rms") == arm.output_difference_rms


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
    tuned = run_request(study, study.tune_request(ANALYTIC, 0, {}), quiet)
    evaluated = run_request(study, study.evaluate_request(ANALYTIC, 0, 0, {}), quiet)
    assert evaluated.last("validation_loss") > tuned.last("validation_loss") + 1


@pytest.mark.parametrize("phase", ["tune", "evaluate"])
def test_a_run_touches_its_own_split_alone(study, monkeypatch, phase):
    """In training, at every evaluation and in the last one."""
    touched = []

    class Watched:
        """A task that notes which splits it is asked for."""

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

    monkeypatch.setattr(work, "build_task", lambda study: Watched(build_task(study)))
    request = {"tune": study.tune_request(ANALYTIC, 0, {}), "evaluate": study.evaluate_request(ANALYTIC, 7, 0, {})}
    assert run_request(study, request[phase], quiet).status == "ok"
    assert touched == [
        ("batches", request[phase].seed, 2, phase),
        ("evaluate", 3, False, phase),
        ("evaluate", 6, True, phase),
    ]


def test_a_fit_is_the_one_that_the_study_describes(study):
    """Its function, net, size, seed, steps and rate; kept where the arms look for it; told step by step."""
    steps = []
    record = run_request(study, study.fit_request("fourier-mlp"), lambda *told: steps.append(told))
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


def test_a_record_is_of_its_request(study):
    request = study.tune_request(FROZEN, 1, {"learning_rate": 0.02})
    found = [Measurement(metrics.VALIDATION_LOSS, 1.5, 6)]
    record = study.record(request, found, accelerator="a GPU", status="oom", error="too large", notes={"a": "b"})
    assert (record.run_id, record.phase, record.cell) == (request.run_id, "tune", FROZEN)
    assert (record.trial, record.seed, record.parameters) == (1, 1000, {"learning_rate": 0.02})
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

    def timed(build, **plan):
        said.update(plan, models=build())
        return [[Measurement(metrics.TRAINING_THROUGHPUT, 100.0 + n, 0)] for n in range(len(said["models"]))]

    monkeypatch.setattr(work, "interleaved", timed)
    requests = study.throughput_requests()
    records = run_throughput(study, requests)
    assert (said["rounds"], said["steps"]) == (4, 3)
    assert [(r.cell, r.last("training_throughput")) for r in records] == [
        (cell, 100.0 + n) for n, cell in enumerate(study.spec.cells())
    ]
    assert [r.run_id for r in records] == [request.run_id for request in requests]
    assert len({r.notes["session"] for r in records}) == 1
    for cell, model in zip(study.spec.cells(), said["models"], strict=True):
        _, arm = build_model(study, cell, 0, build_task(study))
        groups = {group["name"]: group["params"] for group in model.step.optimiser.param_groups}
        assert len(groups.get("slot", [])) == len(arm.moves), cell
        assert model.step.model.position.function.name == cell.function
        assert model.batch.inputs.shape == (2, 8)


def test_a_session_uses_as_many_threads_as_a_run(tiny_study, tmp_path, monkeypatch):
    study, said = resolved(tiny_study(("steps = 6", "steps = 6\nthreads = 2")), tmp_path), {}
    rows = [[Measurement(metrics.TRAINING_THROUGHPUT, 1.0, 0)]]
    monkeypatch.setattr(work, "interleaved", lambda build, **plan: said.update(plan) or rows)
    run_throughput(study, study.throughput_requests()[:1])
    assert said["cores"] == 2


def test_a_session_that_fails_is_a_failed_record_of_every_cell(study):
    """The nets were never fitted."""
    records = run_throughput(study, study.throughput_requests())
    assert {record.status for record in records} == {"failed"}
    assert [record.cell for record in records] == list(study.spec.cells())
    assert all("holds no fitted net" in record.error for record in records)
