"""What every executor does: it takes requests, and hands back progress, finished records or a death."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.records.schema import RunRecord

__all__ = ["Died", "Event", "Executor", "Finished", "OnEvent", "Progress", "do"]


@dataclass(frozen=True)
class Progress:
    """A run got this far."""

    requests: tuple[Request, ...]
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Finished:
    """Runs ended, well or not, and here is what they found."""

    requests: tuple[Request, ...]
    records: tuple[RunRecord, ...]


@dataclass(frozen=True)
class Died:
    """The process of a run ended without a word, for example killed for its memory."""

    requests: tuple[Request, ...]
    reason: str


Event = Progress | Finished | Died


OnEvent = Callable[[Event], None]


class Executor(Protocol):
    """Runs requests. A tuple of more than one request is a throughput session, run as one."""

    capacity: int

    def submit(self, requests: tuple[Request, ...]) -> None:
        """Start the requests."""

    def wait(self, on_event: OnEvent, timeout: float) -> None:
        """Hand over what happens, for at least one event or for about `timeout` seconds."""

    def running(self) -> int:
        """How many are under way."""

    def stop(self) -> None:
        """End everything now."""


def do(study: ResolvedStudy, requests: tuple[Request, ...], send: OnEvent) -> None:
    """Run the requests here, and send what happens."""
    from trans4init.ablations.study.work import run_request, run_throughput

    def progress(step: int, steps: int, loss: float) -> None:
        send(Progress(requests, step, steps, loss))

    if requests[0].phase == "throughput":
        records = run_throughput(study, list(requests))
    else:
        records = [run_request(study, requests[0], progress)]
    send(Finished(requests, tuple(records)))
