"""Run requests that are alike together: collects them before another executor starts them, as units of several."""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Generic

from trans4init.ablations.study.executors.protocol import Apart, Died, Event, Executor, OnEvent, R, T_co

__all__ = ["ArrayExecutor"]

_WAITING = 512
"""How many requests wait at most: of a study's next runs so many are looked through for some that are alike."""


class ArrayExecutor(Generic[R, T_co]):
    """Hands requests with the same key to another executor as one unit, as many as `size` allows.

    A unit that its worker gives back, since its runs can't be made together, is split: into halves where memory was too
    small, or its process was ended, else into single runs, as all later ones with its key then are.
    """

    def __init__(
        self,
        executor: Executor[R, T_co],
        key: Callable[[R], Hashable | None],
        size: int,
        say: Callable[[str], None] = lambda line: None,
        begun: Sequence[Collection[str]] = (),
    ) -> None:
        """key: what requests must share to be run together; None for one that is run alone.

        say: called with the reason whenever fewer runs with a key are made together from then on. begun: the ids of
        units that an earlier command began, which are started again as they were.
        """
        self._executor, self._key, self._say = executor, key, say
        self._largest: dict[Hashable, int] = {}
        self._size = size
        self._units: deque[tuple[R, ...]] = deque()
        """What can be started as it is."""
        self._alike: dict[Hashable, list[R]] = {}
        """Requests that wait for others with their key."""
        self._begun = [frozenset(ids) for ids in begun]
        self._forgetting = False
        self.capacity = executor.capacity + _WAITING

    def submit(self, requests: tuple[R, ...]) -> None:
        """Start a unit at once that waits for no others, if there is room; keep others until there is."""
        key = self._key(requests[0]) if len(requests) == 1 else None
        if key is None or self._most(key) == 1:
            if not self._waiting() and self._executor.running() < self._executor.capacity:
                self._executor.submit(requests)
            else:
                self._units.append(requests)
        else:
            self._alike.setdefault(key, []).extend(requests)

    def wait(self, on_event: OnEvent[R, T_co], timeout: float) -> None:
        """Start what there is room for, and pass events on."""
        share = -(-sum(map(len, self._alike.values())) // self._executor.capacity)
        while self._executor.running() < self._executor.capacity and (unit := self._next(share)):
            self._executor.submit(unit)
        self._executor.wait(lambda event: self._pass_on(event, on_event), timeout)

    def running(self) -> int:
        """Return how many requests are not finished, the waiting ones among them."""
        return self._executor.running() + self._waiting()

    def forget_waiting(self) -> None:
        """Forget the requests that are not started, and those that are given back from now on."""
        self._forgetting = True
        self._units.clear()
        self._alike.clear()
        self._executor.forget_waiting()

    def stop(self) -> None:
        """End everything at once."""
        self._forgetting = True
        self._units.clear()
        self._alike.clear()
        self._executor.stop()

    def _waiting(self) -> int:
        return len(self._units) + sum(map(len, self._alike.values()))

    def _most(self, key: Hashable) -> int:
        return self._largest.get(key, self._size)

    def _next(self, share: int) -> tuple[R, ...]:
        """Return the unit to start next: one that waits for no other request, else of those that have waited longest.

        share: how many of those that wait fall to each place. Larger units would leave places idle at the end.
        """
        if self._units:
            return self._units.popleft()
        if not self._alike:
            return ()
        if unit := self._begun_before():
            return unit
        key, waiting = next(iter(self._alike.items()))
        units = -(-len(waiting) // min(self._most(key), max(1, share)))
        count = -(-len(waiting) // units)
        self._alike[key] = waiting[count:]
        if not self._alike[key]:
            del self._alike[key]
        return tuple(waiting[:count])

    def _begun_before(self) -> tuple[R, ...]:
        """Return the requests of a unit that was begun before, if all of them wait; an empty tuple if there is none."""
        for ids in self._begun:
            for key, waiting in self._alike.items():
                unit = tuple(request for request in waiting if request.run_id in ids)
                if len(unit) == len(ids):
                    self._begun.remove(ids)
                    rest = [request for request in waiting if request.run_id not in ids]
                    self._alike[key] = rest
                    if not rest:
                        del self._alike[key]
                    return unit
        return ()

    def _pass_on(self, event: Event[R, T_co], on_event: OnEvent[R, T_co]) -> None:
        requests = event.requests
        key = self._key(requests[0])
        if isinstance(event, Died) and len(requests) > 1 and key is not None:
            most = max(1, len(requests) // 2)
            requests = tuple(request.begun_anew(f"{event.reason}.") for request in requests)
            event = Apart(requests, f"{event.reason}; {len(requests)} runs are begun anew, {most} at a time.", True)
        elif isinstance(event, Apart) and event.smaller:
            requests = tuple(request.begun_anew(event.reason) for request in requests)
        if not isinstance(event, Apart):
            on_event(event)
            return
        most = max(1, len(requests) // 2) if event.smaller else 1
        if most < self._most(key):
            self._largest[key] = most
            self._say(event.reason)
        if self._forgetting:
            return
        for request in requests:
            self.submit((request,))
