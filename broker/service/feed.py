"""News of the log, for everybody in this process who waits for some.

After a commit the writer hands its entries over; what other brokers wrote to the same database is read every 250 ms.
Whoever watches filters the last few thousand entries in memory; only who is far behind reads the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from broker.domain.errors import TooOld
from broker.domain.log import Entry
from broker.store.engine import Store
from broker.store.unit import Unit

REMEMBERED = 8_000
POLL_S = 0.25
_PAGE = 2_000

Hearer = Callable[[list[Entry]], None]


class Feed:
    """Follow the log from ``start`` on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[Entry] = deque(maxlen=REMEMBERED)
        self._moved = asyncio.Event()
        self._hearers: list[Hearer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self.last = 0
        """The newest revision heard of."""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.last = await self._store.read(lambda unit: unit.revision)

        def heard(entries: list[Entry]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._take, entries)

        self._store.listen(heard)
        if self._store.shared:
            self._keep(asyncio.create_task(self._poll(), name="feed-poll"))

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task

    def hear(self, hearer: Hearer) -> None:
        """Call ``hearer`` on the loop with every piece of news."""
        self._hearers.append(hearer)

    async def after(self, revision: int) -> list[Entry]:
        """Everything after ``revision``, at least one entry: waits for news if need be.

        ``TooOld`` when the log doesn't reach back so far, or not up to there at all (restored from a backup).
        """
        if revision > self.last:
            await self._read_on()
            if revision > self.last:
                raise TooOld(revision, self.last)
        while revision == self.last:
            await self._moved.wait()
        if self._recent and self._recent[0].revision <= revision + 1:
            newest_first: list[Entry] = []
            for entry in reversed(self._recent):
                if entry.revision <= revision:
                    break
                newest_first.append(entry)
            return newest_first[::-1]
        entries, oldest = await self._store.read(lambda unit: (unit.log.after(revision, most=_PAGE), unit.log.oldest()))
        if oldest > revision + 1:
            raise TooOld(revision, oldest)
        return entries

    def _take(self, entries: list[Entry]) -> None:
        if entries[0].revision <= self.last + 1:
            self._tell(entries)
        elif self._reading is None or self._reading.done():  # another broker's entries come between
            self._reading = asyncio.create_task(self._read_on(), name="feed-read")
            self._keep(self._reading)

    def _tell(self, entries: list[Entry]) -> None:
        news = [entry for entry in entries if entry.revision > self.last]
        if not news:
            return
        if self._recent and news[0].revision > self._recent[-1].revision + 1:
            self._recent.clear()  # what is remembered has no gaps
        self._recent.extend(news)
        self.last = news[-1].revision
        for hearer in self._hearers:
            hearer(news)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _read_on(self) -> None:
        while entries := await self._store.read(self._unheard):
            self._tell(entries)

    def _unheard(self, unit: Unit) -> list[Entry]:
        return unit.log.after(self.last, most=_PAGE)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            with suppress(Exception):  # the database may be away for a moment; the next look finds what was missed
                await self._read_on()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
