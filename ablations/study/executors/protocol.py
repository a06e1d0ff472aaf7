"""What executors and their caller agree on: requests go in, and progress, finished records or deaths come back.

An executor knows nothing about what it runs. It is given a callable, `Work`, that runs requests and sends events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

__all__ = [
    "Advanced",
    "Apart",
    "Died",
    "Event",
    "Executor",
    "Finished",
    "OnEvent",
    "Parcel",
    "PortableWork",
    "Refused",
    "Resources",
    "Runnable",
    "Work",
]


class Runnable(Protocol):
    """Describes a request as executors see it: it can be pickled, and it has an id."""

    @property
    def run_id(self) -> str:
        """The id of the run that is asked for."""

    def begun_anew(self, why: str) -> Self:
        """Return the request once more, after what was done for it was lost; its run's record says why."""


R = TypeVar("R", bound=Runnable)
T_co = TypeVar("T_co", covariant=True)
"""R is the type of a request, T_co that of the record that a run returns."""


@dataclass(frozen=True)
class Advanced(Generic[R]):
    """A run has done `step` of its `steps`, with this training loss."""

    requests: tuple[R, ...]
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Finished(Generic[R, T_co]):
    """Runs ended, well or not; these are their records."""

    requests: tuple[R, ...]
    records: tuple[T_co, ...]
    kept: Mapping[str, bytes] = field(default_factory=dict)
    """What runs made besides their records, by the run's id: contents of files, for the caller to write."""


@dataclass(frozen=True)
class Died(Generic[R]):
    """The process of a run ended without a record, for example because it was killed for its memory."""

    requests: tuple[R, ...]
    reason: str


@dataclass(frozen=True)
class Apart(Generic[R]):
    """Runs that were asked for together can't be, or not faster: nothing is done, and each is to be asked for alone."""

    requests: tuple[R, ...]
    reason: str
    """A sentence."""
    smaller: bool = False
    """Whether fewer of them might be run together."""


@dataclass(frozen=True)
class Refused(Generic[R]):
    """The machine refused what runs need besides their computation, such as room on a disk: nothing is recorded."""

    requests: tuple[R, ...]
    reason: str


Event = Advanced[R] | Finished[R, T_co] | Died[R] | Apart[R] | Refused[R]

OnEvent = Callable[[Event[R, T_co]], None]

Work = Callable[[tuple[R, ...], OnEvent[R, T_co]], None]
"""Runs the requests in the calling process and sends what happens, `Finished` last; must be picklable."""


@dataclass(frozen=True)
class Resources:
    """Says what one unit of work takes of a machine."""

    cpus: float
    gpus: float | None
    """None: one, where there are any."""
    memory: int
    """Bytes."""


class PortableWork(Protocol[R, T_co]):
    """Is work that can be done on machines that have none of the caller's files; it is pickled by itself."""

    def __call__(self, requests: tuple[R, ...], on_event: OnEvent[R, T_co]) -> None:
        """Run the requests in the calling process, as `Work`."""

    def resources(self) -> Resources:
        """Return what a unit takes of a machine."""

    def parcel(self) -> "Parcel[R, T_co]":
        """Return the work with all files that it needs anywhere."""

    def needs(self, requests: tuple[R, ...]) -> Mapping[str, bytes]:
        """Return the contents of further files that these requests need, by name."""

    def take(self, files: Mapping[str, bytes]) -> None:
        """Write what requests made elsewhere, contents by name; raises FaultError where the disk refuses."""


class Parcel(Protocol[R, T_co]):
    """Is what of portable work is sent to another machine."""

    def do(self, requests: bytes, files: Mapping[str, bytes], on_event: OnEvent[R, T_co]) -> Mapping[str, bytes]:
        """Run pickled requests there, with what they need; return the contents of the files that they made."""


class Executor(Protocol[R, T_co]):
    """Runs requests somewhere. A tuple of more than one request is run as one unit, such as a throughput session."""

    capacity: int

    def submit(self, requests: tuple[R, ...]) -> None:
        """Start the requests."""

    def wait(self, on_event: OnEvent[R, T_co], timeout: float) -> None:
        """Pass on events as they happen; return after at least one event or about `timeout` seconds."""

    def running(self) -> int:
        """Return how many submitted tuples are not finished."""

    def forget_waiting(self) -> None:
        """Forget submitted requests that are not started."""

    def stop(self) -> None:
        """End everything at once."""
