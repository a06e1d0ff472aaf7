"""Throughput sessions time every model in every round, and their ratios find a slow one."""

import itertools
from functools import partial

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.tasks.text import TextTask
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.training.throughput import ROUNDS_PER_BUILD, TimedModel, interleaved
from trans4init.ablations.transformer import Transformer, TransformerConfig


@pytest.fixture
def builders(text_file):
    """Two models alike, and one of four times the layers."""
    task = TextTask(TextConfig(source=str(text_file), evaluation_tokens=64), 8, torch.device("cpu"))

    def make(layers):
        model = Transformer(TransformerConfig(layers=layers, width=16, heads=2, vocabulary=256, context=8))
        record = apply_arm(model, "position", "analytic")
        step = TrainingStep(model, task, TrainingConfig(steps=10, batch=4), record.moves)
        return TimedModel(step, next(task.batches(0, 4, "evaluate")))

    return [partial(make, layers) for layers in (2, 2, 8)]


def by_metric(rows, name):
    return {m.step: m.value for m in rows if m.metric.name == name}


def test_every_model_is_timed_in_every_round(builders):
    rounds, built = ROUNDS_PER_BUILD + 2, []

    def noted(index):
        built.append(index)
        return builders[index]()

    found = interleaved([partial(noted, index) for index in range(3)], rounds=rounds, steps=1, cores=1)
    assert len(found) == 3
    for rows in found:
        for name in ("training_throughput", "forward_throughput"):
            assert sorted(by_metric(rows, name)) == list(range(rounds))
            assert all(value > 0 for value in by_metric(rows, name).values())
        shares = [m.step for m in rows if m.metric.name == "others_share"]
        assert shares == [ROUNDS_PER_BUILD - 1, rounds - 1]
        seconds = by_metric(rows, "wall_time")
        assert [seconds[round_] for round_ in range(rounds)] == sorted(set(seconds.values()))
    assert sorted(built) == [0, 0, 1, 1, 2, 2]


def test_models_are_built_in_another_order_each_time(builders):
    """Which of them is made first can decide where its memory lies."""
    built = []
    interleaved(
        [lambda index=index: built.append(index) or builders[index]() for index in range(3)],
        rounds=6 * ROUNDS_PER_BUILD,
        steps=1,
        cores=1,
    )
    orders = [tuple(built[start : start + 3]) for start in range(0, len(built), 3)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(set(orders)) > 1


def test_a_model_with_more_to_do_is_slower_in_the_same_rounds(builders):
    one, same, deep = interleaved(builders, rounds=10, steps=2, cores=1)
    ratios = {}
    for name, other in (("same", same), ("deep", deep)):
        mine, theirs = by_metric(one, "training_throughput"), by_metric(other, "training_throughput")
        ratios[name] = sorted(theirs[round_] / mine[round_] for round_ in mine)[5]
    assert ratios["deep"] < 0.6
    assert 0.7 < ratios["same"] < 1.4


def test_forward_is_faster_than_training(builders):
    for rows in interleaved(builders, rounds=6, steps=2, cores=1):
        forward, training = by_metric(rows, "forward_throughput"), by_metric(rows, "training_throughput")
        assert sum(forward[round_] > training[round_] for round_ in forward) >= 5


def test_orders_differ_between_rounds(builders, monkeypatch):
    """No model always follows the same other."""
    order = []
    import trans4init.ablations.training.throughput as module

    plain = module._tokens_per_second

    def noted(timed, steps, *, training):
        if training:
            order.append(id(timed.step.model))
        return plain(timed, steps, training=training)

    monkeypatch.setattr(module, "_tokens_per_second", noted)
    interleaved(builders, rounds=5, steps=1, cores=1)
    rounds = [tuple(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert all(len(set(round_)) == 3 for round_ in rounds)
    assert any(one != other for one, other in itertools.pairwise(rounds))


def test_a_speed_is_all_tokens_of_all_steps_by_the_seconds(builders, monkeypatch):
    """By a clock that goes on by 4 seconds for each look: 3 steps of 4 windows of 8 tokens are 96 tokens."""
    import trans4init.ablations.training.throughput as module

    clock = itertools.count(step=4.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    for training in (True, False):
        assert module._tokens_per_second(builders[0](), 3, training=training) == 96 / 4
