"""News of the log, for everybody in this process who waits for some.

After a commit the writer hands its entries over; what other brokers wrote to the same database is read every 250 ms.
Whoever watches says about what, and is woken for that alone: with hundreds of watchers, each of whom cares for little,
waking all of them for everything would be most of what a broker does. Who is a little behind finds the last few
thousand entries in memory; only who is far behind reads the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from broker.domain.errors import TooOld
from broker.domain.log import Entry
from broker.service.rows import Rows
from broker.store.engine import Store
from broker.store.unit import Row, Unit

REMEMBERED = 8_000
POLL_S = 0.25
_PAGE = 2_000

Hearer = Callable[[list[Entry]], None]
Topic = tuple[Literal["cluster", "tenant", "offers"], str]
"""What a watcher cares for: a cluster (on either side), a tenant (on either side), or offers (of all)."""


def topics(entry: Entry) -> list[Topic | None]:
    """All under which an entry is news, some perhaps twice; None stands for those who hear everything."""
    found: list[Topic | None] = [None]
    found += [("cluster", name) for name in (entry.cluster, entry.peer) if name is not None]
    found += [("tenant", name) for name in (entry.tenant, entry.peer_tenant) if name is not None]
    if entry.offer is not None:
        found.append(("offers", ""))
    return found


def concerns(entry: Entry, topic: Topic | None) -> bool:
    """Whether it is news under this topic."""
    if topic is None:
        return True
    sort, name = topic
    if sort == "cluster":
        return name in (entry.cluster, entry.peer)
    return name in (entry.tenant, entry.peer_tenant) if sort == "tenant" else entry.offer is not None


class Feed:
    """Follow the log from ``start`` on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[Entry] = deque(maxlen=REMEMBERED)
        self._waiting: dict[Topic | None, list[asyncio.Future[tuple[int, list[Entry]]]]] = {}
        self._hearers: list[Hearer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self.last = 0
        """The newest revision heard of."""
        self.rows = Rows()
        """As of ``last``."""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.last = await self._store.read(lambda unit: unit.revision)

        def heard(entries: list[Entry], rows: Sequence[Row]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._take, entries, rows)

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
        return (await self.news(revision))[1]

    async def news(self, revision: int, topic: Topic | None = None) -> tuple[int, list[Entry]]:
        """As ``after``, about one topic alone; with the revision up to which there is no more of it."""
        if revision > self.last:
            await self._read_on()
            if revision > self.last:
                raise TooOld(revision, self.last)
        while True:
            if revision == self.last:
                wait: asyncio.Future[tuple[int, list[Entry]]] = asyncio.get_running_loop().create_future()
                self._waiting.setdefault(topic, []).append(wait)
                try:
                    return await wait
                except asyncio.CancelledError:
                    self._forget(topic, wait)
                    raise
            entries = await self._since(revision)
            revision = entries[-1].revision
            if found := [entry for entry in entries if concerns(entry, topic)]:
                return revision, found

    def _forget(self, topic: Topic | None, wait: asyncio.Future[tuple[int, list[Entry]]]) -> None:
        """Whoever waited has gone away."""
        if wait in (waiting := self._waiting.get(topic, [])):
            waiting.remove(wait)
            if not waiting:
                del self._waiting[topic]

    async def _since(self, revision: int) -> list[Entry]:
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

    def _take(self, entries: list[Entry], rows: Sequence[Row]) -> None:
        self.rows.keep(rows)
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
        self.rows.heard(news)
        self.last = news[-1].revision
        for hearer in self._hearers:
            hearer(news)
        told: dict[Topic | None, list[Entry]] = {}
        for entry in news if self._waiting else ():
            for topic in dict.fromkeys(topics(entry)):
                if topic in self._waiting:
                    told.setdefault(topic, []).append(entry)
        # People wait for their answer; agents have work to do after it.
        for topic, entries in sorted(told.items(), key=lambda each: each[0] is None or each[0][0] != "tenant"):
            for wait in self._waiting.pop(topic):
                if not wait.done():  # cancelled: nobody waits any more
                    wait.set_result((self.last, entries))

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
