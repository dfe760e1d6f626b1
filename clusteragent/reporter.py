"""What the agent says to the broker about leases: signed, numbered, many in one, until it was heard.

Only the newest word about a lease counts, so a report that couldn't be sent is replaced, not queued behind. The number
of a message rises across restarts because it starts at the clock's milliseconds; where a clock was put back, the broker
names the number it has heard, and the next one is above it.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from broker.kit.clock import Clock
from broker.kit.jose import REPORT, SigningKey
from broker.wire.agents import Heard, LeaseReport, Report
from clusteragent.loops import Backoff, describe
from clusteragent.uplink import Refused, Unreachable, Uplink

COALESCE_S = 0.02
MOST_AT_ONCE = 64
"""Reports in one message: with a sealed kubeconfig each is some 6 kB, and a broker takes 1 MiB."""
TRIES = 5
log = structlog.get_logger("agent")


class Sequence:
    """Numbers of one agent's messages; never twice the same."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> int:
        self._last = max(self._last + 1, int(self._clock().timestamp() * 1_000))
        return self._last

    def heard(self, number: int) -> None:
        """The broker has heard this number: the next is above it."""
        self._last = max(self._last, number)


class Reporter:
    """Takes reports, brings them to the broker. ``run`` it as a loop."""

    def __init__(
        self, *, cluster: str, uplink: Uplink, key: SigningKey, clock: Clock, highest_fence: Callable[[], int]
    ) -> None:
        self._cluster, self._uplink, self._key, self._clock = cluster, uplink, key, clock
        self._highest_fence = highest_fence
        self._sequence = Sequence(clock)
        self._pending: dict[tuple[str, str], LeaseReport] = {}
        self._wake = asyncio.Event()

    def say(self, report: LeaseReport) -> None:
        self._pending[report.role, report.lease] = report
        self._wake.set()

    @property
    def unsaid(self) -> int:
        """Reports that the broker hasn't heard yet."""
        return len(self._pending)

    async def resync(self, reports: Iterable[LeaseReport]) -> None:
        """The first word after a connection: every lease that is known here, and those that ended while nobody heard.

        Raises ``Unreachable``, ``Refused``.
        """
        newest = {(report.role, report.lease): report for report in reports} | self._pending
        stripped = {"sealed_credential": None, "credential_serial": 0}  # they follow; a broker takes 1 MiB at once
        await self._send([report.model_copy(update=stripped) for report in newest.values()], resync=True)
        self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(longest=5.0)
        while True:
            await self._wake.wait()
            await asyncio.sleep(COALESCE_S)
            self._wake.clear()
            batch = dict(list(self._pending.items())[:MOST_AT_ONCE])
            if not batch:
                continue
            try:
                await self._send(list(batch.values()))
            except (Unreachable, Refused) as error:  # refused too: a revoked agent still takes its devices back
                pause = backoff.delay()
                log.warning("report.unsent", leases=len(batch), error=describe(error), again_s=round(pause, 2))
                await asyncio.sleep(pause)
                self._wake.set()
                continue
            backoff.reset()
            for which, report in batch.items():
                if self._pending.get(which) is report:
                    del self._pending[which]
            if self._pending:
                self._wake.set()

    async def _send(self, reports: list[LeaseReport], *, resync: bool = False) -> None:
        for _ in range(TRIES):
            message = Report(
                cluster=self._cluster,
                sequence=self._sequence.next(),
                sent_at=self._clock(),
                resync=resync,
                highest_fence=self._highest_fence(),
                leases=tuple(reports),
            )
            body = message.model_dump_json(exclude_none=True).encode()
            heard = await self._uplink.report(self._key.sign(body, typ=REPORT))
            if heard.applied:
                return
            self._sequence.heard(heard.sequence)
        raise Unreachable("the broker has always heard a higher number; does another agent run under this name?")


def clock_warning(heard: Heard) -> None:
    """Say it where a person will look, when the broker finds this cluster's clock off."""
    if not heard.clock_safe:
        log.error("clock.unsafe", message=heard.message or "this cluster's clock is off; it gets no new leases")
