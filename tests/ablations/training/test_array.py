"""Arrays of runs: each member is the run that it would be alone, whatever becomes of the others."""

import dataclasses
import functools

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.data.classification import ClassificationConfig
from trans4init.ablations.data.modular import ModularConfig
from trans4init.ablations.data.sequences import CopyConfig
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import get_function
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.arms import arms_of, get_arm
from trans4init.ablations.slots.contents import Analytic
from trans4init.ablations.slots.slot import slots_named
from trans4init.ablations.tasks import TASKS
from trans4init.ablations.tasks.text import TextTask
from trans4init.ablations.training.array import ArrayStep, Member, train_array
from trans4init.ablations.training.loop import DivergedError, PrunedError, TrainingStep, train
from trans4init.ablations.training.stacked import NotStackableError
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.reports.records.schema import Measurement

CONFIG = TrainingConfig(steps=12, batch=3, learning_rate=1e-2, warmup_steps=3, evaluations=3, log_every=5)
MODEL = TransformerConfig(layers=2, width=8, heads=2, vocabulary=256, context=8)
RATES = (1e-2, 3e-3, 1e-2)
EVERY_ARM = {"position": "sinusoidal", "activation": "gelu"}
OTHERS = {
    "position": ("rope", "alibi", "fire-query"),
    "softmax": ("softmax-exp", "softmax-row"),
    "softmax_reciprocal": ("reciprocal",),
    "normalization": ("layernorm-rsqrt", "rmsnorm-rsqrt", "derf"),
    "head_mixing": ("head-mixing",),
}
FEW_ARMS = {"analytic", "learned-frozen", "learned-fine-tuned", "free-table", "scaled", "gained"}
CASES = [
    *((key, name, arm) for key, name in EVERY_ARM.items() for arm in arms_of(get_function(name)) if arm != "matched"),
    *(
        (key, name, arm)
        for key, names in OTHERS.items()
        for name in names
        for arm in arms_of(get_function(name))
        if arm in FEW_ARMS
    ),
]


@pytest.fixture
def task(text_file):
    return TextTask(TextConfig(source=str(text_file), evaluation_tokens=64), 8, torch.device("cpu"))


def member(task, seed, arm="analytic", function="sinusoidal", key="position", config=CONFIG, size=MODEL):
    """A run in float64, with a net of its own drawn from its seed."""
    model = Transformer(size.model_copy(update={key: function}), seed=seed).double()
    slot = key.replace("_", "-")
    place = next(iter(slots_named(model, slot).values()))
    net = None
    if get_arm(arm).uses_net:
        name = {"rows": "deep-set", "vectors": "linear"}.get(place.function.takes, "mlp")
        net = fitted(function, name, seed, place.domain if place.domain.integer else None, tuple(place.shape.items()))
    record = apply_arm(model, slot, arm, net, seed=seed)
    return Member(model.double(), config, record, seed, task)


@functools.cache
def fitted(function, name, seed, domain, shape):
    """A net that was hardly fitted: it differs by seed."""
    return fit(function, name, seed=seed, domain=domain, steps=1, budget=1, **dict(shape))


def rated(make, config=CONFIG):
    return [make(seed, config=config.model_copy(update={"learning_rate": rate})) for seed, rate in enumerate(RATES)]


def alone(run, split="evaluate"):
    try:
        return train(run.model, run.task, run.config, run.record, seed=run.seed, split=split, prune=run.prune)
    except (DivergedError, PrunedError) as error:
        return error


def assert_alike(together, by_itself):
    """The same rows in the same order, and values but for rounding."""
    rows = [[(m.metric, m.step) for m in found] for found in (together, by_itself)]
    assert rows[0] == rows[1]
    for mine, other in zip(together, by_itself, strict=True):
        tolerance = 1e-9 if "loss" in mine.metric.name else 1e-6  # a loss moves less than the rest
        assert mine.value == pytest.approx(other.value, rel=tolerance, abs=tolerance), mine


@pytest.mark.parametrize(("key", "function", "arm"), CASES)
def test_a_member_is_the_run_that_it_would_be_alone(task, key, function, arm):
    def make(seed, config):
        return member(task, seed, arm, function, key, config)

    for together, run in zip(train_array(rated(make), split="evaluate"), rated(make), strict=True):
        assert_alike(together, alone(run))


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_fifty_steps_of_sequences_that_differ_in_length(kind):
    config = CopyConfig(longest=6, tested_longest=7, evaluation_examples=5)
    task = TASKS.get("copy")(config, 16, torch.device("cpu"), kind)
    size = TransformerConfig(
        **MODEL.model_dump(exclude={"vocabulary", "context", "kind"}) | task.model_fields, context=16, kind=kind
    )
    longer = CONFIG.model_copy(update={"steps": 50})

    def make(seed, config):
        return member(task, seed, "gained", config=config, size=size)

    for together, run in zip(train_array(rated(make, longer), split="tune"), rated(make, longer), strict=True):
        assert_alike(together, alone(run, "tune"))


@pytest.mark.parametrize(
    "changes",
    [
        {"gated": True, "tied_output": False},
        {"norm_placement": "post", "bias": False},
        {"key_value_heads": 1, "output_transform": True},
    ],
)
def test_models_of_other_shapes(task, changes):
    size = MODEL.model_copy(update=changes)

    def make(seed, config):
        return member(task, seed, config=config, size=size)

    for together, run in zip(train_array(rated(make), split="evaluate"), rated(make), strict=True):
        assert_alike(together, alone(run))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_classes_of_texts_of_different_lengths(pooling):
    task = TASKS.get("classification")(ClassificationConfig(), 64, torch.device("cpu"), "encoder")
    sizes = MODEL.model_dump(exclude={"vocabulary", "context", "kind"}) | task.model_fields
    size = TransformerConfig(**sizes, context=64, kind="encoder", pooling=pooling)

    def make(seed, config):
        return member(task, seed, "gained", config=config, size=size)

    for together, run in zip(train_array(rated(make), split="tune"), rated(make), strict=True):
        assert_alike(together, alone(run, "tune"))


def test_the_shortcuts_of_modular_addition_give_the_same():
    task = TASKS.get("modular-addition")(ModularConfig(modulus=7), 3, torch.device("cpu"))
    size = MODEL.model_copy(update={"vocabulary": 8, "context": 3})

    def make(seed, config):
        return member(task, seed, config=config, size=size)

    for together, run in zip(train_array(rated(make), split="evaluate"), rated(make), strict=True):
        assert_alike(together, alone(run))


def test_a_member_that_diverges_or_is_pruned_touches_no_other(task):
    def make():
        runs = [member(task, seed) for seed in range(4)]
        runs[1].config = CONFIG.model_copy(update={"learning_rate": 1e300})
        runs[2].prune = lambda step, measured: step == 8
        return runs

    together, by_itself = train_array(make(), split="evaluate"), [alone(run) for run in make()]
    assert [type(outcome) for outcome in together] == [list, DivergedError, PrunedError, list]
    for row in (0, 3):
        assert_alike(together[row], by_itself[row])
    for row in (1, 2):
        assert (str(together[row]), together[row].step) == (str(by_itself[row]), by_itself[row].step)
        assert_alike(together[row].measurements, by_itself[row].measurements)


def test_the_models_themselves_are_trained_and_what_is_frozen_stays(task):
    def make(seed, config):
        return member(task, seed, "learned-frozen", config=config)

    runs, others = rated(make), rated(make)
    train_array(runs, split="evaluate")
    for run, other in zip(runs, others, strict=True):
        before = {name: value.clone() for name, value in other.model.state_dict().items()}
        alone(other)
        now, expected = run.model.state_dict(), other.model.state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(now[name], value, rtol=1e-9, atol=1e-9)
            assert torch.equal(value, before[name]) == (name in other.record.frozen)


def test_an_array_that_was_ended_goes_on_from_its_checkpoint_with_the_same_bits(task, tmp_path):
    def make():
        runs = [member(task, seed, "learned-fine-tuned") for seed in range(3)]
        runs[1].prune = lambda step, measured: step == 4
        return runs

    class EndedError(Exception):
        pass

    def end(step, loss):
        if step == 10:
            raise EndedError

    path = tmp_path / "checkpoints" / "array.safetensors"
    with pytest.raises(EndedError):
        train_array(make(), split="evaluate", on_progress=end, checkpoint=path, checkpoint_seconds=0)
    assert path.exists()
    steps = []
    resumed = train_array(make(), split="evaluate", on_progress=lambda step, loss: steps.append(step), checkpoint=path)
    whole = train_array(make(), split="evaluate")
    assert steps == [10, 12]
    assert not path.exists()
    assert (resumed[0], resumed[2]) == (whole[0], whole[2])
    assert (str(resumed[1]), resumed[1].measurements) == (str(whole[1]), whole[1].measurements)


@pytest.mark.parametrize(
    ("size", "config", "why"),
    [
        ({"dropout": 0.1}, {}, "dropout draws random numbers"),
        ({"randomised_positions": 32}, {}, "randomised positions"),
        ({}, {"patience": 1}, "patience"),
        ({}, {"accumulate": 2}, "in pieces"),
        ({}, {"compile": True}, "compiled"),
        ({}, {"workers": 1}, "processes of its own"),
        ({}, {"batch_unit": "tokens"}, "batches of tokens"),
    ],
)
def test_what_cant_be_stacked_is_refused_with_the_reason(task, size, config, why):
    settings = CONFIG.model_copy(update=config)
    runs = [member(task, seed, config=settings, size=MODEL.model_copy(update=size)) for seed in range(2)]
    with pytest.raises(NotStackableError, match=why):
        ArrayStep(runs)


def test_runs_that_differ_in_more_than_values_are_refused(task):
    other = member(task, 1, config=CONFIG.model_copy(update={"beta2": 0.9}))
    with pytest.raises(NotStackableError, match="settings differ in more than rates and decays"):
        ArrayStep([member(task, 0), other])
    with pytest.raises(NotStackableError, match="other sizes"):
        ArrayStep([member(task, 0), member(task, 1, size=MODEL.model_copy(update={"width": 16}))])
    with pytest.raises(NotStackableError, match="slot 'scale' holds differs"):
        ArrayStep([member(task, seed, "scaled", "attention-scale", "scale") for seed in range(2)])


def test_contents_of_a_users_own_are_not_stacked(task):
    """They may draw random numbers, or hold more than tensors, in which members then differ unseen."""

    class Mine(Analytic):
        pass

    runs = [member(task, seed, function="gelu", key="activation") for seed in range(2)]
    for run in runs:
        place = run.model.blocks[0].feed_forward.activation
        place.content = Mine(place.function, place.shape)
    with pytest.raises(NotStackableError, match="Mine isn't one of the project's own"):
        ArrayStep(runs)
    runs = [member(task, seed) for seed in range(2)]
    for run in runs:
        run.model.blocks[0].feed_forward.out = torch.nn.Bilinear(8, 8, 8)
    with pytest.raises(NotStackableError, match="Bilinear isn't written for members"):
        ArrayStep(runs)


def test_a_step_of_an_array_has_the_members_own_norms(task):
    runs, others = [member(task, seed) for seed in range(2)], [member(task, seed) for seed in range(2)]
    step = ArrayStep(runs)
    batches = [next(task.batches(seed, 3, "evaluate")) for seed in range(2)]
    losses = step(batches, norms=True)
    for row, (other, batch) in enumerate(zip(others, batches, strict=True)):
        single = TrainingStep(other.model, task, other.config, other.record.moves)
        assert single(batch, norms=True).item() == pytest.approx(losses[row].item(), rel=1e-12)
        assert runs[row].gradient_norms == pytest.approx(single.gradient_norms, rel=1e-12)


@pytest.mark.parametrize(("clip", "frozen"), [(0.05, False), (0.05, True), (100.0, False)])
def test_clipping_decay_smoothing_and_frozen_layers_are_each_members_own(task, clip, frozen):
    changes = {"clip": clip, "weight_decay": 0.3, "beta1": 0.8, "beta2": 0.95, "label_smoothing": 0.1}

    def make(seed, config):
        run = member(task, seed, config=config.model_copy(update=changes))
        run.model.blocks[0].requires_grad_(not frozen)
        return run

    for together, run in zip(train_array(rated(make), split="evaluate"), rated(make), strict=True):
        assert_alike(together, alone(run))


def test_bfloat16_is_that_of_a_run_alone_but_for_rounding(task):
    half = CONFIG.model_copy(update={"precision": "bfloat16"})
    runs = [dataclasses.replace(member(task, seed, config=half)) for seed in range(2)]
    for run in runs:
        run.model.float()
    together = train_array(runs, split="evaluate")
    others = [member(task, seed, config=half) for seed in range(2)]
    for found, other in zip(together, others, strict=True):
        other.model.float()
        last = [m.value for m in alone(other) if isinstance(m, Measurement) and m.metric.name == "validation_loss"]
        assert [m.value for m in found if m.metric.name == "validation_loss"] == pytest.approx(last, rel=2e-2)
