"""Reacting to changes: a queue of things to look at, emptied a little at a time between other people's turns.

What a controller has to look at again is queued once, however often it changed; the order is that of the first change.
Nothing polls. Time comes from outside: ``Now`` tells it, ``Later`` runs something after so many seconds (0: as soon as
whoever is running now lets go).
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

Later = Callable[[float, Callable[[], None]], object]
Handler = Callable[[Any], None]

ITEMS_A_TURN = 64
"""How many things are looked at before other tasks of the process get a turn."""


def loop_later(seconds: float, do: Callable[[], None]) -> object:
    """``Later`` of the running event loop."""
    loop = asyncio.get_running_loop()
    return loop.call_soon(do) if seconds <= 0 else loop.call_later(seconds, do)


class Work:
    """What is to be looked at, each with the function that does."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self._queue: dict[tuple[Handler, Hashable], None] = {}
        self._scheduled = False

    def add(self, handler: Handler, key: Hashable) -> None:
        """Have ``handler(key)`` called soon; once, if it is queued already."""
        self._queue[handler, key] = None
        self._wake()

    def after(self, seconds: float, handler: Handler, key: Hashable) -> None:
        """The same, in ``seconds``."""
        if seconds <= 0:
            self.add(handler, key)
        else:
            self._later(seconds, lambda: self.add(handler, key))

    @property
    def idle(self) -> bool:
        """Nothing waits to be looked at (timers may still run)."""
        return not self._queue

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._later(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            for _ in range(min(len(self._queue), ITEMS_A_TURN)):
                handler, key = next(iter(self._queue))
                del self._queue[handler, key]
                handler(key)
        finally:
            if self._queue:
                self._wake()
