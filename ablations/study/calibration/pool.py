"""Train one small model many times, with another seed each time and nothing else."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.trained_runs import run_request
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import RunRecord

__all__ = ["train_pool"]

FILE = Path(__file__).with_name("pool.toml")


def train_pool(count: int) -> Iterator[RunRecord]:
    """Yield the records of `count` trainings, of seeds 0 to count - 1, in their order."""
    spec = load_study(str(FILE))
    command = "python -m trans4init.ablations.study.calibration"
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), Path(), command)
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(processes, _begin, (study,)) as pool:
        yield from pool.imap(_train, range(count), chunksize=20)


_STUDY: list[ResolvedStudy] = []
"""The study that a process of the pool trains."""


def _begin(study: ResolvedStudy) -> None:
    torch.set_num_threads(1)
    _STUDY[:] = [study]


def _train(seed: int) -> RunRecord:
    [study] = _STUDY
    request = study.evaluate_request(study.spec.reference(), seed, None, {})
    return run_request(study, request, lambda step, steps, loss: None)
