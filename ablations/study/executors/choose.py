"""Choose an executor by its name."""

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors.local import InlineExecutor, ProcessExecutor
from trans4init.ablations.study.executors.protocol import Executor, R, T_co, Work

__all__ = ["EXECUTORS", "make_executor"]

EXECUTORS = ("inline", "process", "ray")


def make_executor(name: str, work: Work[R, T_co], workers: int, preload: str) -> Executor[R, T_co]:
    """Return the executor called `name`; raises InputError for an unknown name, or if Ray isn't installed.

    preload: the module that the server of worker processes imports before it forks the first.
    """
    if name == "inline":
        return InlineExecutor(work)
    if name == "process":
        return ProcessExecutor(work, workers, preload)
    if name == "ray":
        from trans4init.ablations.study.executors.on_ray import RayExecutor

        return RayExecutor(work, workers)
    raise InputError(f"unknown executor {name!r}; there are: {', '.join(EXECUTORS)}.")
