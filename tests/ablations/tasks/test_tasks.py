"""Task `text`: batches by seed, evaluation on the same tokens at every context."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trans4init.ablations.data.text import SPLITS, TextConfig
from trans4init.ablations.errors import InputError
from trans4init.ablations.tasks.text import TextTask
from trans4init.ablations.transformer import Transformer, TransformerConfig

CPU = torch.device("cpu")


@pytest.fixture
def task(text_file):
    return TextTask(TextConfig(source=str(text_file), evaluation_tokens=200), 8, CPU)


def model(position="sinusoidal"):
    return Transformer(TransformerConfig(layers=1, width=8, heads=2, vocabulary=256, context=8, position=position))


def test_the_same_seed_gives_the_same_batches_and_another_others(task):
    def first(seed):
        return torch.stack([batch.inputs for batch in itertools.islice(task.batches(seed, 4, "evaluate"), 5)])

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert first(1).shape == (5, 4, 8)


@pytest.mark.parametrize("split", SPLITS)
def test_batches_are_windows_of_the_text_before_the_split_and_reach_its_end(task, split):
    train = bytes(task.text.training(split))
    starts = set()
    for batch in itertools.islice(task.batches(0, 256, split), 40):
        for window in torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1):
            place = train.find(bytes(window.tolist()))
            assert place >= 0
            starts.add(place)
    assert min(starts) < 20
    assert max(starts) > len(train) - 100


def test_every_context_predicts_the_same_tokens(task):
    windows = {multiple: task._windows("evaluate", multiple) for multiple in (1, 2, 4)}
    targets = {multiple: found[:, 1:].reshape(-1) for multiple, found in windows.items()}
    assert torch.equal(targets[1], targets[2])
    assert torch.equal(targets[1], targets[4])
    assert windows[1].shape[1:] == (9,)
    assert windows[4].shape[1:] == (33,)
    assert len(targets[1]) == 192  # of the 200 asked for, in stretches of 4 contexts


def test_bits_per_byte_are_of_the_bytes_that_are_predicted(tmp_path):
    """A text whose held-out part has characters of two bytes, and what is before it of one."""
    path = tmp_path / "mixed.txt"
    path.write_text("plain letters. " * 600 + "слово " * 150)
    task = TextTask(TextConfig(source=str(path), unit="character", evaluation_tokens=200), 8, CPU)
    net = Transformer(TransformerConfig(layers=1, width=8, heads=2, vocabulary=task.text.vocabulary, context=8))
    found = {m.metric.name: m.value for m in task.evaluate(net, "evaluate", 0, final=True)}
    predicted = "".join(task.text.alphabet[token] for token in task._windows("evaluate", 1)[:, 1:].flatten().tolist())
    count = len(predicted.encode())
    assert count > 1.5 * len(predicted)
    assert found["bits_per_byte"] == pytest.approx(found["validation_loss"] / math.log(2) * len(predicted) / count)


def test_the_loss_is_the_mean_over_all_tokens(task):
    net = model()
    found = {m.metric.name: m.value for m in task.evaluate(net, "evaluate", 0, final=True)}
    windows = task._windows("evaluate", 1)
    logits = net(windows[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert found["validation_loss"] == pytest.approx(expected, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(expected / math.log(2), rel=1e-5)
    assert {"validation_loss_2x", "validation_loss_4x"} <= set(found)


def test_a_table_is_not_asked_beyond_its_end(task):
    found = [m.metric.name for m in task.evaluate(model("learned-table"), "evaluate", 0, final=True)]
    assert found == ["validation_loss", "bits_per_byte", "perplexity"]


def test_evaluation_leaves_the_model_as_it_was(task):
    net = model().train()
    task.evaluate(net, "evaluate", 0, final=True)
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_splits_are_evaluated_apart(task):
    net = model()
    tune, evaluate = (task.evaluate(net, split, 0, final=False)[0].value for split in ("tune", "evaluate"))
    assert tune != evaluate


def test_a_text_shorter_than_the_longest_test_is_refused_with_the_length_it_needs(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("too short")
    with pytest.raises(InputError, match="has 9 tokens, too few for context 8: each split") as caught:
        TextTask(TextConfig(source=str(path)), 8, CPU)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 50))
def test_the_length_that_is_asked_for_is_enough(tmp_path, context):
    path = tmp_path / "text.txt"
    path.write_text("x")
    with pytest.raises(InputError, match="at least") as caught:
        TextTask(TextConfig(source=str(path)), context, CPU)
    path.write_text("x" * int(re.search(r"at least (\d+)", str(caught.value))[1]))
    windows = TextTask(TextConfig(source=str(path)), context, CPU)._windows("tune", 4)
    assert windows.shape[1] == 4 * context + 1
