"""Choose an executor by its name."""

from collections.abc import Mapping, Sequence

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors.local import InlineExecutor, ProcessExecutor
from trans4init.ablations.study.executors.protocol import Executor, PortableWork, R, T_co

__all__ = ["EXECUTORS", "make_executor"]

EXECUTORS = ("inline", "process", "ray")


def make_executor(
    name: str,
    work: PortableWork[R, T_co],
    workers: int,
    preload: str,
    *,
    address: str | None = None,
    places: Sequence[Mapping[str, str]] = (),
) -> Executor[R, T_co]:
    """Return the executor called `name`; raises InputError for an unknown name, or if Ray isn't installed.

    preload: the module that the server of worker processes imports before it forks the first. address: of a Ray
    cluster; None for the one that RAY_ADDRESS names, or a new one on this machine. places: environment variables of
    each of the worker processes that go side by side, such as its GPU; empty where they are alike.
    """
    if name == "inline":
        return InlineExecutor(work)
    if name == "process":
        return ProcessExecutor(work, workers, preload, places)
    if name == "ray":
        from trans4init.ablations.study.executors.on_ray import RayExecutor

        return RayExecutor(work, workers, address)
    raise InputError(f"unknown executor {name!r}; there are: {', '.join(EXECUTORS)}.")
