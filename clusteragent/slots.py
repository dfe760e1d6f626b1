"""Turns at the API server: so many calls at once, the most urgent first, the patient ones not last for ever.

When hundreds of leases are made at once, the order of calls decides when the scheduler gets to work: a lease that is
begun should reach its placeholder pod before the next one is begun. What only has to be there in the end waits, but
every fourth turn is for it, so that the first leases are usable while the last are still being made.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

PATIENT = 4
"""From this priority on a call is patient."""
EVERY = 4

_Waiting = list[tuple[int, int, "asyncio.Future[None]"]]


class Slots:
    """A semaphore with priorities: lower goes first, equals in order of arrival."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._urgent: _Waiting = []
        self._patient: _Waiting = []
        self._order, self._turns = count(), count(1)

    @asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Hold one slot for as long as the block lasts."""
        if self._free:
            self._free -= 1
        else:
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._patient if priority >= PATIENT else self._urgent, (priority, next(self._order), mine))
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._release()  # it was given in the same moment
                raise
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        first, second = self._urgent, self._patient
        if next(self._turns) % EVERY == 0:
            first, second = second, first
        for waiting in (first, second):
            while waiting:
                _, _, next_one = heapq.heappop(waiting)
                if not next_one.done():
                    next_one.set_result(None)
                    return
        self._free += 1
