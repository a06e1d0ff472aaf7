"""Time models in turn, round after round, so that changes of the machine's speed affect all of them alike."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trans4init.ablations.device import threads
from trans4init.ablations.tasks import Batch
from trans4init.ablations.training.loop import TrainingStep
from trans4init.reports.machine import Contention
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement

__all__ = ["ROUNDS_PER_BUILD", "WARM_UP_ROUNDS", "TimedModel", "interleaved"]

ROUNDS_PER_BUILD = 4
"""Rounds before the models are built again; recorded with each session, since builds differ by a percent or two. More
give fewer builds of as many rounds, and reports give speeds an interval only from eight builds on."""
WARM_UP_ROUNDS = 1
"""Rounds after each build that are not recorded."""


@dataclass(frozen=True)
class TimedModel:
    """Holds a model with its training step, and the batch that it is timed on."""

    step: TrainingStep
    batch: Batch


def interleaved(
    builders: Sequence[Callable[[], TimedModel]], *, rounds: int, steps: int, cores: int
) -> list[list[Measurement]]:
    """Return tokens per second of training steps and of forward passes, and seconds so far, by round, for each model.

    Every round times each model once, over `steps` steps, in a new random order, so that no model always follows the
    same other. The models are made again every few rounds, likewise in a new order, since where their memory happens to
    lie changes their speed by a percent or two; after each build, rounds that are not recorded warm them up. Each model
    also has the share of the machine that other processes used, once for each build, at its last round.

    builders: make a model each. cores: CPU threads.
    """
    rows_by_model: list[list[Measurement]] = [[] for _ in builders]
    order, began = random.Random(0), time.perf_counter()
    with threads(cores):
        for first in range(0, rounds, ROUNDS_PER_BUILD):
            last = min(first + ROUNDS_PER_BUILD, rounds) - 1
            models = {index: builders[index]() for index in _shuffled(len(builders), order)}
            usage = Contention()
            for round_ in range(first - WARM_UP_ROUNDS, last + 1):
                for index in _shuffled(len(models), order):
                    training = _tokens_per_second(models[index], steps, training=True)
                    forward = _tokens_per_second(models[index], steps, training=False)
                    if round_ >= first:
                        rows_by_model[index].append(Measurement(metrics.TRAINING_THROUGHPUT, training, round_))
                        rows_by_model[index].append(Measurement(metrics.FORWARD_THROUGHPUT, forward, round_))
                        seconds = time.perf_counter() - began
                        rows_by_model[index].append(Measurement(metrics.WALL_TIME, seconds, round_))
            others = Measurement(metrics.OTHERS_SHARE, usage.others_share(), last)
            for rows in rows_by_model:
                rows.append(others)
    return rows_by_model


def _shuffled(count: int, order: random.Random) -> list[int]:
    return order.sample(range(count), count)


def _tokens_per_second(timed: TimedModel, steps: int, *, training: bool) -> float:
    batch = timed.batch
    _wait(batch)
    start = time.perf_counter()
    if training:
        for _ in range(steps):
            timed.step(batch)
    else:
        with torch.no_grad():
            for _ in range(steps):
                timed.step.task.loss(timed.step.model, batch)
    _wait(batch)
    return steps * timed.step.task.tokens_in(batch) / (time.perf_counter() - start)


def _wait(batch: Batch) -> None:
    if batch.inputs.is_cuda:
        torch.cuda.synchronize(batch.inputs.device)
