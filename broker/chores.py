"""What the broker does by itself: place what is open, end what is over, notice who is silent, forget what is old.

Each chore is one use case of the service, run in a loop; news of the log nudges the loop they matter to, so nothing
waits for an interval. Several brokers on one database may all run all chores: every change is compare-and-set, and what
one of them did the others find done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from broker.domain.log import Entry
from broker.kit.loops import Loop, supervised
from broker.service.broker import Broker
from broker.service.placing import Round

_log = structlog.stdlib.get_logger(__name__)
_MAY_FIT_NOW = frozenset(
    {"request.open", "offer.new", "offer.changed", "lease.ended", "lease.conflict", "member.ready", "policy.put"}
)
_RETRY_S = 0.05
QUIET_S = 0.01
GATHER_S = 0.35
"""Requests seldom come alone: a round begins when none has come for so long, or so much after the first. One solve over
many costs little more than one over few, and what follows a round (holds, credentials) competes with who is asking."""


class Chores:
    """All loops of one broker. ``placed`` is called with every round that had something to place."""

    def __init__(self, broker: Broker, *, placed: Callable[[Round], None] | None = None) -> None:
        self._broker = broker
        self._placed = placed
        self._asked = 0
        """Requests that were heard of since the last round began."""
        self.placing = Loop("placing", self._place, every=5)
        self.expiry = Loop("expiry", self._expire, every=5)
        self.silence = Loop("silence", self._silence, every=5)
        self.housekeeping = Loop("housekeeping", self._forget, every=600)
        broker.feed.hear(self._news)

    @property
    def loops(self) -> tuple[Loop, ...]:
        return self.placing, self.expiry, self.silence, self.housekeeping

    @asynccontextmanager
    async def running(self, *, died: Callable[[str], None] | None = None) -> AsyncIterator[None]:
        """For as long as the block lasts."""
        async with supervised(self.loops, died=died):
            yield

    def _news(self, entries: list[Entry]) -> None:
        self._asked += sum(entry.type == "request.open" for entry in entries)
        if any(entry.type in _MAY_FIT_NOW for entry in entries):
            self.placing.nudge()
        if any(entry.lease is not None for entry in entries):
            self.expiry.nudge()

    async def _gather(self) -> None:
        until, known = time.monotonic() + GATHER_S, 0
        while self._asked > known and time.monotonic() < until:
            known = self._asked
            await asyncio.sleep(QUIET_S)
        self._asked = 0

    async def _place(self) -> float | None:
        await self._gather()
        done = await self._broker.place()
        if done.open:
            _log.info(
                "placing round",
                open=done.open,
                placed=len(done.placed),
                lost=len(done.lost),
                refused=len(done.refused),
                **done.solver,
            )
            if self._placed is not None:
                self._placed(done)
        if done.again:
            return _RETRY_S
        opens = self._broker.next_start
        return None if opens is None else (opens - self._broker.now()).total_seconds() + 0.001

    async def _expire(self) -> float | None:
        due = await self._broker.expire()
        return None if due is None else (due - self._broker.now()).total_seconds() + 0.001

    async def _silence(self) -> float | None:
        for name in await self._broker.find_silent():
            _log.warning("cluster is silent", cluster=name)
        return None

    async def _forget(self) -> float | None:
        forgotten = await self._broker.forget()
        if forgotten:
            _log.info("forgot what is old", rows=forgotten)
        await asyncio.sleep(0)
        return None
