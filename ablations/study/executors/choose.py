"""The executors by name."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors.local import InlineExecutor, ProcessExecutor, worker_context
from trans4init.ablations.study.executors.protocol import Executor
from trans4init.ablations.study.requests import ResolvedStudy

__all__ = ["EXECUTORS", "make_executor", "warm_up"]

EXECUTORS = ("inline", "process", "ray")


def make_executor(name: str, study: ResolvedStudy, workers: int) -> Executor:
    """The executor called `name`; raises InputError where it can't be had."""
    if name == "inline":
        return InlineExecutor(study)
    if name == "process":
        return ProcessExecutor(study, workers)
    if name == "ray":
        from trans4init.ablations.study.executors.on_ray import RayExecutor

        return RayExecutor(study, workers)
    raise InputError(f"executor {name!r} is not one of {', '.join(EXECUTORS)}.")


def warm_up() -> None:
    """Start the server that worker processes are forked from, so that it loads torch while the caller does."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        worker_context()
        multiprocessing.forkserver.ensure_running()
