"""Throughput sessions time every model in every round, and their ratios find a slow one."""

import itertools

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
def build(text_file):
    """Two models alike, and one of four times the layers."""
    task = TextTask(TextConfig(source=str(text_file), evaluation_tokens=64), 8, torch.device("cpu"))
    built = []

    def make():
        built.append(len(built))
        models = []
        for layers in (2, 2, 8):
            model = Transformer(TransformerConfig(layers=layers, width=16, heads=2, vocabulary=256, context=8))
            record = apply_arm(model, "position", "analytic")
            step = TrainingStep(model, task, TrainingConfig(steps=10, batch=4), record.moves)
            models.append(TimedModel(step, next(task.batches(0, 4, "evaluate"))))
        return models

    make.built = built
    return make


def by_metric(rows, name):
    return {m.step: m.value for m in rows if m.metric.name == name}


def test_every_model_is_timed_in_every_round(build):
    rounds = ROUNDS_PER_BUILD + 2
    found = interleaved(build, rounds=rounds, steps=1, cores=1)
    assert len(found) == 3
    for rows in found:
        for name in ("training_throughput", "forward_throughput"):
            assert sorted(by_metric(rows, name)) == list(range(rounds))
            assert all(value > 0 for value in by_metric(rows, name).values())
        assert len(by_metric(rows, "others_share")) == 1
        seconds = by_metric(rows, "wall_time")
        assert [seconds[round_] for round_ in range(rounds)] == sorted(set(seconds.values()))
    assert len(build.built) == 2


def test_a_model_with_more_to_do_is_slower_in_the_same_rounds(build):
    one, same, deep = interleaved(build, rounds=10, steps=2, cores=1)
    ratios = {}
    for name, other in (("same", same), ("deep", deep)):
        mine, theirs = by_metric(one, "training_throughput"), by_metric(other, "training_throughput")
        ratios[name] = sorted(theirs[round_] / mine[round_] for round_ in mine)[5]
    assert ratios["deep"] < 0.6
    assert 0.7 < ratios["same"] < 1.4


def test_forward_is_faster_than_training(build):
    for rows in interleaved(build, rounds=6, steps=2, cores=1):
        forward, training = by_metric(rows, "forward_throughput"), by_metric(rows, "training_throughput")
        assert sum(forward[round_] > training[round_] for round_ in forward) >= 5


def test_orders_differ_between_rounds(build, monkeypatch):
    """No model always follows the same other."""
    order = []
    import trans4init.ablations.training.throughput as module

    plain = module._tokens_per_second

    def noted(timed, steps, *, training):
        if training:
            order.append(id(timed.step.model))
        return plain(timed, steps, training=training)

    monkeypatch.setattr(module, "_tokens_per_second", noted)
    interleaved(build, rounds=5, steps=1, cores=1)
    rounds = [tuple(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert all(len(set(round_)) == 3 for round_ in rounds)
    assert any(one != other for one, other in itertools.pairwise(rounds))


def test_a_speed_is_all_tokens_of_all_steps_by_the_seconds(build, monkeypatch):
    """By a clock that goes on by 4 seconds for each look: 3 steps of 4 windows of 8 tokens are 96 tokens."""
    import trans4init.ablations.training.throughput as module

    clock = itertools.count(step=4.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    for training in (True, False):
        assert module._tokens_per_second(build()[0], 3, training=training) == 96 / 4
