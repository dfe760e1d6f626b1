"""Many clients that each ask for devices, wait until their lease is active, and ask again: a closed loop.

The rate is taken over the middle of a run, between one tenth and nine tenths of the grants, so that neither the start
(nothing is under way yet) nor the end (clients run out of work) flatters or hurts it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Self

from tests.bench.asking import Asker, Object, Refused
from tests.bench.figures import percentile

WITHIN_S = 60.0
"""One grant takes at most this long; a bound against waiting forever."""


@dataclass(frozen=True)
class Load:
    """What came of a run."""

    granted: int
    clients: int
    rate: float
    """Leases granted per second."""
    p50: float
    """Seconds from sending a request to hearing that its lease is active."""
    p99: float

    @classmethod
    def of(cls, times: list[tuple[float, float]], *, clients: int) -> Self:
        """From (asked, active) of every grant."""
        ends = sorted(active for _, active in times)
        first, last = len(ends) // 10, len(ends) * 9 // 10
        took = [active - asked for asked, active in times]
        return cls(
            granted=len(times),
            clients=clients,
            rate=(last - first) / max(ends[last] - ends[first], 1e-9),
            p50=percentile(took, 50),
            p99=percentile(took, 99),
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Waiting:
    """Who waits for which request, and what was heard before anybody waited."""

    def __init__(self) -> None:
        self._done: dict[str, float | str] = {}
        self._waits: dict[str, asyncio.Future[float]] = {}

    def hear(self, now: float, request: str, step: str, state: str) -> None:
        """A request came to a step."""
        if step in ("active", "mirrored"):
            self._settle(request, now)
        elif state in ("Refused", "Cancelled", "Closed"):
            self._settle(request, state)

    async def active(self, request: str) -> float:
        """When its lease was heard to be active.

        :raises Refused: it never will be.
        """
        if request not in self._done:
            self._waits[request] = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(WITHIN_S):
                return await self._waits[request]
        return self._at(request)

    def _at(self, request: str) -> float:
        told = self._done[request]
        if isinstance(told, str):
            raise Refused(f"{request}: {told}")
        return told

    def _settle(self, request: str, told: float | str) -> None:
        if request in self._done:
            return
        self._done[request] = told
        if (wait := self._waits.pop(request, None)) is not None and not wait.done():
            if isinstance(told, str):
                wait.set_exception(Refused(f"{request}: {told}"))
            else:
                wait.set_result(told)


async def closed_loop(
    submit: Callable[[], Awaitable[str]], waiting: Waiting, *, clients: int, grants: int
) -> list[tuple[float, float]]:
    """(asked, active) of so many grants, by so many clients at once."""
    times: list[tuple[float, float]] = []
    left = iter(range(grants))

    async def client() -> None:
        for _ in left:
            asked = time.perf_counter()
            times.append((asked, await waiting.active(await submit())))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    return times


async def over_https(asker: Asker, body: Object, *, clients: int, grants: int) -> Load:
    """The loop over the broker's REST API, with one watch stream for all clients."""
    waiting = Waiting()

    def hear(now: float, request: Object) -> None:
        waiting.hear(now, request["id"], request["step"], request["state"])

    async def submit() -> str:
        return str((await asker.post("/v1/requests", body))["id"])

    async with asker.follow("/v1/requests/watch", hear):
        return Load.of(await closed_loop(submit, waiting, clients=clients, grants=grants), clients=clients)
