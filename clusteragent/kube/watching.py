"""List, say so, watch; on a lost watch go on where it broke, on a refused one list again.

The rules are those of every Kubernetes client that lasts: a listing carries a resource version, the watch goes on from
there, bookmarks move the version forward while nothing happens, and a version that the server no longer has (410), or
does not have yet (a restored etcd), is answered with a new listing. Network trouble is waited out with a growing,
jittered pause, so that a thousand agents don't return in the same instant.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, Protocol

import structlog

from clusteragent.kube.interface import Event, Gone, KubeError, Obj

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0

_log = structlog.get_logger(__name__)


class Listing(NamedTuple):
    """Everything there was of a kind, and the resource version at which that was so."""

    objects: list[Obj]
    version: str


class Source(Protocol):
    """Where objects come from: one kind, in one namespace or in all."""

    async def listing(self) -> Listing:
        """Everything there is."""
        ...

    def stream(self, version: str) -> AsyncGenerator[Obj, None]:
        """Watch events as the API sends them (``{"type", "object"}``) from ``version`` until the server ends it."""
        ...


async def pause(failures: int) -> None:
    """Wait before the next try: twice as long each time, at most 30 s, less up to half of it at random."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 20))
    await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing


async def list_then_watch(
    source: Source, *, what: str, wait: Callable[[int], Awaitable[None]] = pause
) -> AsyncIterator[Event]:
    """Events of ``source``, forever. ``what`` names it in the log; ``wait`` hears how many failures came in a row."""
    version: str | None = None
    failures = 0
    while True:
        relist = False
        try:
            if version is None:
                objects, version = await source.listing()
                for obj in objects:
                    yield Event("ADDED", obj)
                yield Event("LISTED")
            heard = False
            async with aclosing(_stream(source, version)) as events:
                async for event, reached in events:
                    version, heard, failures = reached, True, 0
                    if event is not None:
                        yield event
            # A watch that the server ends in good order is opened again at once, unless it never said anything.
            failures = 0 if heard else failures + 1
        except KubeError as refusal:
            relist = version is not None
            failures += 0 if isinstance(refusal, Gone) and relist else 1
            _log.info("watch.refused", what=what, status=refusal.status, reason=refusal.reason, failures=failures)
        except OSError as trouble:
            failures += 1
            _log.info("watch.lost", what=what, trouble=type(trouble).__name__, failures=failures)
        if relist:
            version = None
            yield Event("RELISTING")
        if failures:
            await wait(failures)


async def _stream(source: Source, version: str) -> AsyncGenerator[tuple[Event | None, str], None]:
    """One watch: each event with the version to go on from; None for a bookmark. ``KubeError`` when it is refused."""
    async with aclosing(source.stream(version)) as raws:
        async for raw in raws:
            obj = raw["object"]
            if raw["type"] == "ERROR":
                raise refusal_in(obj)
            yield (None if raw["type"] == "BOOKMARK" else Event(raw["type"], obj)), obj["metadata"]["resourceVersion"]


def refusal_in(status: Obj) -> KubeError:
    """What a Status object in the middle of a watch means."""
    code = int(status.get("code") or 500)
    family = Gone if code == 410 else KubeError
    return family(code, str(status.get("reason", "")), str(status.get("message", "")))
