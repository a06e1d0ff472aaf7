"""Run requests that are alike together: collects them before another executor starts them, as units of several."""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic

from trans4init.ablations.study.executors.protocol import Apart, Event, Executor, OnEvent, R, T_co

__all__ = ["ArrayExecutor"]

_WAITING = 512
"""How many requests wait at most: of a study's next runs so many are looked through for some that are alike."""


class ArrayExecutor(Generic[R, T_co]):
    """Hands requests with the same key to another executor as one unit, as many as `size` allows.

    A unit that its worker gives back, since its runs can't be made together, is split: into halves where memory was too
    small, else into single runs, as all later ones with its key then are.
    """

    def __init__(
        self,
        executor: Executor[R, T_co],
        key: Callable[[R], Hashable | None],
        size: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """key: what requests must share to be run together; None for one that is run alone.

        say: called once with each reason why runs aren't made together.
        """
        self._executor, self._key, self._say = executor, key, say
        self._largest: dict[Hashable, int] = {}
        self._size = size
        self._units: deque[tuple[R, ...]] = deque()
        """What can be started as it is."""
        self._alike: dict[Hashable, list[R]] = {}
        """Requests that wait for others with their key."""
        self._told: set[str] = set()
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
        while self._executor.running() < self._executor.capacity and (unit := self._next()):
            self._executor.submit(unit)
        self._executor.wait(lambda event: self._pass_on(event, on_event), timeout)

    def running(self) -> int:
        """Return how many requests are not finished, the waiting ones among them."""
        return self._executor.running() + self._waiting()

    def forget_waiting(self) -> None:
        """Forget the requests that are not started."""
        self._units.clear()
        self._alike.clear()
        self._executor.forget_waiting()

    def stop(self) -> None:
        """End everything at once."""
        self._units.clear()
        self._alike.clear()
        self._executor.stop()

    def _waiting(self) -> int:
        return len(self._units) + sum(map(len, self._alike.values()))

    def _most(self, key: Hashable) -> int:
        return self._largest.get(key, self._size)

    def _next(self) -> tuple[R, ...]:
        """Return what to start next: first what can't wait for more, then the requests that have waited longest.

        The last requests are shared out evenly among the places that are free.
        """
        if self._units:
            return self._units.popleft()
        if not self._alike:
            return ()
        key, waiting = next(iter(self._alike.items()))
        free = max(1, self._executor.capacity - self._executor.running())
        units = -(-len(waiting) // self._most(key))
        if len(self._alike) < free:  # else the other places get other keys
            units = max(units, min(free - len(self._alike) + 1, len(waiting)))
        count = -(-len(waiting) // units)
        unit = tuple(waiting[:count])
        del self._alike[key]
        if waiting[count:]:
            self._alike[key] = waiting[count:]
        return unit

    def _pass_on(self, event: Event[R, T_co], on_event: OnEvent[R, T_co]) -> None:
        if not isinstance(event, Apart):
            on_event(event)
            return
        key = self._key(event.requests[0])
        self._largest[key] = max(1, len(event.requests) // 2) if event.smaller else 1
        if event.reason not in self._told:
            self._told.add(event.reason)
            self._say(event.reason)
        for request in event.requests:
            self.submit((request,))
