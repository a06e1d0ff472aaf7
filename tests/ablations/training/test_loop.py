"""Training: it learns, groups move at their own pace, divergence is noticed, arms are paired."""

import itertools

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.guard import FrozenMovedError
from trans4init.ablations.tasks.text import TextTask
from trans4init.ablations.training.loop import DivergedError, TrainingStep, train
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement

CONFIG = TrainingConfig(steps=12, batch=4, learning_rate=1e-2, warmup_steps=3, evaluations=3, log_every=5)
MODEL = TransformerConfig(layers=1, width=8, heads=2, vocabulary=256, context=8)


@pytest.fixture
def task(text_file):
    return TextTask(TextConfig(source=str(text_file), evaluation_tokens=64), 8, torch.device("cpu"))


def arm(name="analytic", seed=0):
    model = Transformer(MODEL, seed=seed)
    net = build_net("siren", Domain(0, 7, integer=True), 8, hidden=(8,))
    return model, apply_arm(model, "position", name, net, seed=seed)


def run(task, name="analytic", config=CONFIG, seed=0):
    model, record = arm(name, seed)
    return model, train(model, task, config, record, seed=seed, split="evaluate")


def series(found, metric):
    return [(m.step, m.value) for m in found if m.metric.name == metric]


def test_it_learns(task):
    found = run(task, config=CONFIG.model_copy(update={"steps": 150}))[1]
    losses = [value for _, value in series(found, "training_loss")]
    assert losses[-1] < losses[0] - 1


def test_rows_come_when_they_were_asked_for(task):
    found = run(task)[1]
    assert [step for step, _ in series(found, "training_loss")] == [5, 10, 12]
    assert [step for step, _ in series(found, "validation_loss")] == [4, 8, 12]
    assert [step for step, _ in series(found, "slot_drift_rms")] == [4, 8, 12]
    assert series(found, "slot_input_high/position") == [(12, 31.0)]
    assert series(found, "slot_input_low/position") == [(12, 0.0)]


def test_a_training_loss_is_the_mean_since_the_last(task):
    model, record = arm()
    step = TrainingStep(model, task, CONFIG, record.moves)
    losses = [step(batch).item() for batch in itertools.islice(task.batches(0, 4, "evaluate"), 5)]
    assert series(run(task)[1], "training_loss")[0][1] == pytest.approx(sum(losses) / 5, rel=1e-6)


def test_the_same_seed_gives_the_same_bits_whatever_the_threads(task):
    first = run(task)
    torch.set_num_threads(2)
    second = run(task)
    torch.set_num_threads(1)
    third = run(task)
    assert first[1] == second[1] == third[1]
    for one, other in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(one, other)
    assert run(task, seed=1)[1] != first[1]


def test_a_compiled_training_is_the_same(task, monkeypatch):
    """Graphs of PyTorch's compiler without its own backend and that one's options: the steps are the same operators."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: compile_(model, backend=counting))
    compiled = run(task, config=CONFIG.model_copy(update={"compile": True}))[1]
    assert graphs
    for one, other in zip(compiled, run(task)[1], strict=True):
        assert (one.metric, one.step) == (other.metric, other.step)
        assert one.value == pytest.approx(other.value, rel=1e-5)


def test_arms_of_a_seed_see_the_same_batches_from_the_same_start(task):
    """`corrected` equals `analytic` at step 0, so its first loss is the same number; later ones are not."""
    analytic, corrected = run(task, "analytic")[1], run(task, "corrected")[1]
    eager = CONFIG.model_copy(update={"log_every": 1})
    first = [series(run(task, name, eager)[1], "training_loss")[0] for name in ("analytic", "corrected")]
    assert first[0] == first[1]
    assert series(analytic, "training_loss")[-1] != series(corrected, "training_loss")[-1]


def test_a_validation_loss_that_is_not_a_number_is_a_divergence_too(task):
    """The last update can spoil a model after its last training loss was looked at."""
    model, record = arm()

    def spoiled(model, split, step, *, final):
        return [Measurement(metrics.VALIDATION_LOSS, float("nan") if step == 8 else 2.0, step)]

    task.evaluate = spoiled
    with pytest.raises(DivergedError, match="the validation loss is not a number at step 8") as caught:
        train(model, task, CONFIG, record, seed=0, split="evaluate")
    assert [m.step for m in caught.value.measurements if m.metric == metrics.VALIDATION_LOSS] == [4]


def test_the_gradient_is_clipped_to_its_norm(task):
    model, record = arm()
    step = TrainingStep(model, task, CONFIG.model_copy(update={"clip": 1e-3}), record.moves)
    step(next(task.batches(0, 4, "evaluate")))
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_a_number_stops_the_run_at_the_next_check(task):
    """The rows made before are kept, and the step is that of the check."""
    model, record = arm()
    calls = 0
    plain = task.loss

    def spoiled(model, batch, label_smoothing):
        nonlocal calls
        calls += 1
        return plain(model, batch, label_smoothing) * (float("nan") if calls > 6 else 1)

    task.loss = spoiled
    with pytest.raises(DivergedError, match="nan at step 10") as caught:
        train(model, task, CONFIG.model_copy(update={"evaluations": 1}), record, seed=0, split="evaluate")
    assert caught.value.step == 10
    assert [m.step for m in caught.value.measurements if m.metric == metrics.TRAINING_LOSS] == [5]


def test_a_frozen_value_that_moves_stops_the_run(task):
    model, record = arm("random-frozen")
    model.position.content.content.net.weights[0].requires_grad_(True)
    with pytest.raises(FrozenMovedError):
        train(model, task, CONFIG, record, seed=0, split="evaluate")


def test_what_moves_in_the_slot_has_a_rate_and_a_decay_of_its_own(task):
    model, record = arm("learned-from-scratch")
    config = CONFIG.model_copy(update={"slot_learning_rate_ratio": 0.25, "warmup_steps": 0})
    groups = TrainingStep(model, task, config, record.moves).optimiser.param_groups
    slot = {id(model.get_parameter(name)) for name in record.moves}
    found = {frozenset(id(p) for p in group["params"]) == slot: group for group in groups}
    assert found[True]["initial_lr"] == 0.25 * config.learning_rate
    assert found[True]["weight_decay"] == 0.0
    matrices, norms = (group for group in groups if group is not found[True])
    assert (matrices["weight_decay"], norms["weight_decay"]) == (0.1, 0.0)
    assert all(p.dim() >= 2 for p in matrices["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_rate_goes_up_in_a_line_and_down_on_a_cosine():
    config = TrainingConfig(steps=100, batch=1, warmup_steps=9, final_learning_rate_ratio=0.1)
    factors = [config.learning_rate_factor(step) for step in range(101)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert factors[9] == 1.0
    assert factors[100] == pytest.approx(0.1)
    assert all(after <= before for before, after in itertools.pairwise(factors[9:]))
    assert factors[54] == pytest.approx(0.55, abs=0.01)


def test_the_inverse_square_root_falls_as_in_the_paper():
    """Vaswani et al. 2017, section 5.3: proportional to min(step^-0.5, step * warmup^-1.5), steps counted from 1."""
    config = TrainingConfig(steps=100, batch=1, warmup_steps=9, schedule="inverse-square-root")
    paper = [min(step**-0.5, step * 10**-1.5) for step in range(1, 101)]
    factors = [config.learning_rate_factor(step) for step in range(100)]
    assert factors == pytest.approx([value / max(paper) for value in paper])
    with pytest.raises(ValueError, match="warmup_steps must be at least 1"):
        TrainingConfig(steps=100, batch=1, warmup_steps=0, schedule="inverse-square-root")


def test_a_constant_rate_is_constant_after_the_warm_up():
    config = TrainingConfig(steps=100, batch=1, warmup_steps=3, schedule="constant")
    assert [config.learning_rate_factor(step) for step in (0, 3, 50, 99)] == [0.25, 1.0, 1.0, 1.0]


def test_a_batch_in_pieces_makes_the_same_step(task):
    whole, pieces = (run(task, config=CONFIG.model_copy(update={"accumulate": count}))[1] for count in (1, 4))
    for one, other in zip(whole, pieces, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-4, abs=1e-5), one


def test_the_norms_of_the_groups_make_up_the_norm_of_the_gradient(task):
    model, record = arm("learned-from-scratch")
    step = TrainingStep(model, task, CONFIG.model_copy(update={"clip": 1e9}), record.moves)
    step(next(task.batches(0, 4, "evaluate")), norms=True)
    assert set(step.gradient_norms) == {"matrices", "vectors", "slot"}
    together = sum(norm**2 for norm in step.gradient_norms.values()) ** 0.5
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
    assert together == pytest.approx(norm, rel=1e-5)


def test_training_stops_early_after_as_many_evaluations_as_asked_for(task):
    config = CONFIG.model_copy(update={"steps": 60, "evaluations": 20, "patience": 3})
    model, record = arm()
    plain = task.evaluate
    task.evaluate = lambda model, split, step, *, final: [
        Measurement(m.metric, abs(step - 9.0) if m.metric == metrics.VALIDATION_LOSS else m.value, step)
        for m in plain(model, split, step, final=final)
    ]
    found = train(model, task, config, record, seed=0, split="evaluate")
    assert [step for step, _ in series(found, "validation_loss")] == [3, 6, 9, 12, 15, 18]
    assert series(found, "bits_per_byte")  # the last evaluation is a final one


def test_what_a_half_precision_needs_is_said(task):
    with pytest.raises(InputError, match="precision float16 needs a GPU"):
        TrainingStep(arm()[0], task, CONFIG.model_copy(update={"precision": "float16"}))


def test_bfloat16_trains_as_float32_does(task):
    precise, rough = (
        run(task, config=CONFIG.model_copy(update={"precision": kind}))[1] for kind in ("float32", "bfloat16")
    )
    one, other = (series(found, "training_loss")[-1][1] for found in (precise, rough))
    assert one != other
    assert other == pytest.approx(one, rel=0.02)


def test_drift_tells_a_net_that_leaves_its_function(task):
    still = series(run(task, "random-frozen")[1], "slot_drift_rms")
    moving = series(run(task, "corrected", CONFIG.model_copy(update={"learning_rate": 0.1}))[1], "slot_drift_rms")
    assert len({value for _, value in still}) == 1
    assert moving[0][1] < moving[-1][1]


def test_progress_is_told(task):
    model, record = arm()
    told = []
    train(model, task, CONFIG, record, seed=0, split="tune", on_progress=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [5, 10, 12]
    assert all(0 < loss < 20 for _, loss in told)
