"""Every task trains, evaluates, and measures what it promised; metrics against cases made by hand."""

import math
import pickle

import numpy as np
import pytest
import sacrebleu
import torch
from pydantic import TypeAdapter
from torch import nn

from trans4init.ablations.data.config import TaskConfig
from trans4init.ablations.data.modular import GROKKED, GROKKING_STEP, ModularConfig
from trans4init.ablations.data.pairs import BEGIN, END, SPECIALS, Pairs
from trans4init.ablations.data.sequences import CopyConfig
from trans4init.ablations.data.tasks import AnyTaskConfig
from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.model import ModelSize, TransformerConfig
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.contents import OutsideDomainError
from trans4init.ablations.tasks import TASKS, Batch, list_tasks, model_config
from trans4init.ablations.tasks.base import IGNORED
from trans4init.ablations.tasks.labels import label_scores
from trans4init.ablations.tasks.modular import ModularAddition
from trans4init.ablations.tasks.sequences import Copy
from trans4init.ablations.tasks.translation import bleu, bleu_signature
from trans4init.ablations.training.loop import train
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement

CPU = torch.device("cpu")
CONFIGS: TypeAdapter[TaskConfig] = TypeAdapter(AnyTaskConfig)
SMALL = {
    "translation": {"numbers": 150, "held_out": 12, "interim_sentences": 4},
    **{name: {"evaluation_examples": 3, "tested_longest": 11} for name in ("copy", "reverse", "sort")},
    "addition": {"evaluation_examples": 3},
    "modular-addition": {"modulus": 17},
    "scan": {"split": "length"},
    "text": {"evaluation_tokens": 500},
}


def configured(name, **options):
    return CONFIGS.validate_python({"name": name} | SMALL.get(name, {}) | options)


def made(config, kind):
    extra = {"image_size": 8, "patch": 4, "classes": 10} if kind == "image" else {}
    size = ModelSize(kind=kind, layers=1, width=8, heads=2, context=64, **extra)
    task = TASKS.get(config.name)(config, 64, CPU, kind)
    if config.name == "scan":
        task._held_out = {split: pairs[:12] for split, pairs in task._held_out.items()}
    return task, Transformer(model_config(size, task))


EVERY = [(name, kind) for name in list_tasks() for kind in configured(name).kinds]


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_a_task_trains_and_measures_what_it_promised(name, kind):
    config = configured(name)
    task, model = made(config, kind)
    found = train(model, task, TrainingConfig(steps=3, batch=4, evaluations=2, log_every=1), seed=0, split="tune")
    promised = {metric.name for metric in config.metrics}
    assert promised <= {m.metric.name for m in found}
    assert all(m.value is not None for m in found)
    losses = [m.value for m in found if m.metric == metrics.TRAINING_LOSS]
    assert losses[0] == pytest.approx(math.log(model.config.classes or model.config.vocabulary), abs=1.5)
    tested = task.evaluate(model, "evaluate", 3, final=True)
    assert {m.metric.name for m in tested} >= promised - {GROKKED.name, GROKKING_STEP.name}


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_a_task_goes_to_a_worker_process_and_makes_the_same_batches_there(name, kind):
    """Also where processes are not forked: pickled as it is, after its first use."""
    task, _ = made(configured(name), kind)
    unit = "examples"
    here = next(task.batches(3, 4, "tune", unit=unit))
    there = next(pickle.loads(pickle.dumps(task)).batches(3, 4, "tune", unit=unit))
    for name_of, tensor in vars(here).items():
        other = getattr(there, name_of)
        assert torch.equal(tensor, other) if isinstance(tensor, torch.Tensor) else tensor == other


def test_there_is_a_config_and_a_recipe_for_every_task():
    from trans4init.ablations.training.recipe import load_recipe, shipped_recipes

    recipes = {name: load_recipe(name) for name in shipped_recipes()}
    for name in list_tasks():
        assert recipes[name].task.name == name
    assert all(recipe.about for recipe in recipes.values())


def test_a_model_of_the_wrong_kind_or_size_is_refused():
    config = configured("scan")
    with pytest.raises(InputError, match="task scan needs a model of kind encoder-decoder or decoder, not encoder"):
        TASKS.get("scan")(config, 64, CPU, "encoder")
    task, _ = made(configured("images"), "image")
    size = ModelSize(kind="image", layers=1, width=8, heads=2, image_size=8, patch=4, classes=7)
    with pytest.raises(InputError, match=r"\[model\] classes must be 10 for the data of task images, not 7"):
        model_config(size, task)


class Scripted(nn.Module):
    """Gives logits that name the tokens it is told to, whatever it reads: [B, L] of them."""

    def __init__(self, named, vocabulary):
        super().__init__()
        self.logits = 20.0 * nn.functional.one_hot(named, vocabulary).float()

    def forward(self, tokens, **given):
        return self.logits[: len(tokens)]


def test_teacher_forced_exact_match_counts_whole_sequences():
    """Three copies of two symbols: right; one symbol wrong; its end wrong."""
    task = Copy(CopyConfig(), 64, CPU, "encoder-decoder")
    pairs = Pairs([[1, 2]] * 3, [[1, 2]] * 3)
    right = [1 + SPECIALS, 2 + SPECIALS, END]
    named = torch.tensor([right, [1 + SPECIALS, 3 + SPECIALS, END], [*right[:2], BEGIN]])
    rows = task.taught(Scripted(named, 14), pairs)
    assert rows[:, 2].tolist() == [1, 0, 0]
    assert rows[:, 1].tolist() == [3, 3, 3]
    assert rows[:, 0] == pytest.approx([0, 20, 20], abs=0.01)


def test_generated_exact_match_needs_the_end_in_the_right_place(monkeypatch):
    from trans4init.ablations.tasks import pairs as module

    task = Copy(CopyConfig(), 64, CPU, "encoder-decoder")
    pairs = Pairs([[1, 2]] * 4, [[1, 2]] * 4)
    right = [1 + SPECIALS, 2 + SPECIALS]
    made = [right, right[:1], [*right, right[0]], [right[0], BEGIN, right[1]]]
    monkeypatch.setattr(module.PairTask.generated, "__defaults__", (lambda model, given, maximum: made,))
    model = Transformer(model_config(ModelSize(kind="encoder-decoder", layers=1, width=8, heads=2), task))
    assert task.generated_exactly(model, pairs).tolist() == [True, False, False, False]


def table_model(kind, context, **options):
    """A task of copies, and a model of it that has no positions beyond its context."""
    task = Copy(configured("copy", shortest=3, longest=4, evaluation_examples=4, **options), context, CPU, kind)
    size = ModelSize(kind=kind, layers=1, width=8, heads=2, context=context, position="learned-table")
    return task, Transformer(model_config(size, task))


@pytest.mark.parametrize(("kind", "context"), [("decoder", 9), ("encoder-decoder", 5)])
def test_generation_ends_where_the_positions_do_and_longer_groups_are_left_out(kind, context):
    task, model = table_model(kind, context, tested_longest=6)
    measured = {m.metric.name for m in task.evaluate(model, "evaluate", 1, final=True)}
    groups = {name.partition("/")[2] for name in measured if name.startswith("generated_exact_match/")}
    assert "generated_exact_match" in measured
    assert groups == {"length_3", "length_4"}


def test_a_long_source_takes_no_room_from_a_short_one():
    """Together in a batch, the first would be cut short by the second's length."""
    task, model = table_model("decoder", 9, tested_longest=4)
    room = {}

    def decode(model, given, maximum):
        room[given.tokens.shape[1]] = maximum
        return [[] for _ in given.tokens]

    task.generated(model, Pairs([[1, 2], [1] * 6], [[1] * 6, [1, 2]]), decode)
    assert room == {3: 7, 7: 3}
    with pytest.raises(OutsideDomainError):
        task.generated(model, Pairs([[1] * 9], [[1]]), decode)


def test_padding_and_smoothing_are_as_in_the_formula():
    """(1 − ε) · −log p(target) + ε · the mean of −log p over the vocabulary; padding nowhere."""
    task = Copy(CopyConfig(), 64, CPU, "encoder-decoder")
    logits = torch.randn(2, 3, 14, generator=torch.Generator().manual_seed(0))
    task.logits = lambda model, batch: logits
    targets = torch.tensor([[4, 5, END], [6, END, IGNORED]])
    batch = Batch(torch.zeros(2, 3, dtype=torch.long), targets)
    surprise = -logits.log_softmax(-1)
    counted = [(row, column) for row in range(2) for column in range(3) if targets[row, column] != IGNORED]
    plain = sum(surprise[row, column, targets[row, column]] for row, column in counted) / 5
    spread = sum(surprise[row, column].mean() for row, column in counted) / 5
    assert task.loss(nn.Identity(), batch).item() == pytest.approx(plain.item(), rel=1e-6)
    smoothed = task.loss(nn.Identity(), batch, 0.1).item()
    assert smoothed == pytest.approx((0.9 * plain + 0.1 * spread).item(), rel=1e-6)


def test_scores_of_labels_by_hand():
    """Right: 0 0 1 2; named: 0 1 1 1. F1 of 0 is 2/3, of 1 is 1/2, of 2 is 0."""
    task, _ = made(configured("classification"), "encoder")
    batch = Batch(torch.zeros(4, 1, dtype=torch.long), torch.tensor([0, 0, 1, 2]), lengths=torch.ones(4).long())
    scores = label_scores(task, Scripted(torch.tensor([0, 1, 1, 1]), 3), [batch], np.array([1, 1, 0, 2]))
    assert scores[metrics.ACCURACY] == 0.5
    assert scores[metrics.MACRO_F1] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores[metrics.MAJORITY_ACCURACY] == 0.25
    assert scores[metrics.VALIDATION_LOSS] == pytest.approx(10.0, abs=0.01)


def test_bleu_is_sacrebleus():
    right = ["the cat sat on the mat", "a dog runs"]
    assert bleu(right, right) == pytest.approx(100)
    assert bleu(["something else entirely here", "nothing at all"], right) < 5
    assert "|tok:13a|" in bleu_signature()
    assert f"|version:{sacrebleu.__version__}" in bleu_signature()


def test_grokking_is_the_first_step_below_the_threshold_and_censored_where_it_never_was():
    task = ModularAddition(ModularConfig(modulus=17), 3, CPU)

    def summary(losses):
        found = [Measurement(metrics.VALIDATION_LOSS, loss, 10 * n) for n, loss in enumerate(losses, start=1)]
        return {m.metric: m.value for m in task.summary(found, 10 * len(losses))}

    assert summary([3.0, 0.2, 0.09, 0.2]) == {GROKKING_STEP: 30, GROKKED: 1.0}
    assert summary([3.0, 0.2, 0.11]) == {GROKKING_STEP: 30, GROKKED: 0.0}


def test_a_small_model_learns_to_copy():
    """Of inputs that it was never shown, given the right tokens and by itself."""
    task, _ = made(configured("copy", shortest=3, longest=4, tested_longest=4), "encoder-decoder")
    size = ModelSize(kind="encoder-decoder", layers=1, width=32, heads=4, context=16)
    model = Transformer(model_config(size, task))
    training = TrainingConfig(steps=250, batch=32, learning_rate=1e-2, warmup_steps=20, evaluations=1)
    found = {m.metric: m.value for m in train(model, task, training, seed=0, split="tune")}
    assert found[metrics.EXACT_MATCH] > 0.9
    assert found[metrics.GENERATED_EXACT_MATCH] > 0.9


def test_sizes_come_from_the_data():
    task, model = made(configured("classification"), "encoder")
    assert model.config == TransformerConfig(
        kind="encoder", layers=1, width=8, heads=2, context=64, vocabulary=task.codec.size, classes=6
    )


def test_what_is_translated_knows_nothing_of_the_right_translation():
    """The same sources with other targets are given the same room, so that they become the same sentences."""
    task, _ = made(configured("translation"), "encoder-decoder")
    sources = [[1, 2, 3], [4]]
    assert task.most_tokens(Pairs(sources, [[5], [6]])) == task.most_tokens(Pairs(sources, [[5] * 40, [6]])) == 16
