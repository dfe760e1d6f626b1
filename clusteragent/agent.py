"""One cluster's agent: built from its parts here, started, watched over, stopped.

It can be a process of its own (``__main__``) or live inside another one: a demo or a simulation hands in a simulated
cluster, its own clock, an uplink. A loop that dies ends the agent, and with it the process: half an agent looks
healthy.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from broker.kit.clock import Clock, utc_now
from clusteragent.identity import FileKeeper, Identity, Keeper, SecretKeeper, dial, joined
from clusteragent.kube.interface import Kube
from clusteragent.loops import Backoff, describe, supervised
from clusteragent.settings import Settings
from clusteragent.uplink import Unreachable, Uplink

T = TypeVar("T")
log = structlog.get_logger("agent")


class Agent:
    """``await start()`` … ``await stop()``, or ``await run()`` for as long as the process lives.

    ``kube`` is the cluster it works for; it stays the caller's to close. ``uplink`` and ``keeper`` are made from the
    settings when not given. ``monotonic`` gives seconds that nobody can set.
    """

    def __init__(
        self,
        settings: Settings,
        kube: Kube,
        *,
        uplink: Uplink | None = None,
        keeper: Keeper | None = None,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.kube = settings, kube
        self._uplink, self._own_uplink = uplink, uplink is None
        self._keeper = keeper or keeper_of(settings, kube)
        self._clock, self._monotonic = clock, monotonic
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once. ``failed`` tells whether it has died."""
        self._task = asyncio.create_task(self.run(), name=f"agent {self.settings.cluster}")

    async def stop(self) -> None:
        """End: nothing is drained or reported, as if the process had been killed; the next one goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def failed(self) -> BaseException | None:
        """Why the agent died, if it did."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def run(self) -> None:
        """Join where needed, then work until cancelled. Raises what killed a loop, ``Refused`` or ``NoIdentity``."""
        uplink = self._uplink
        if uplink is None:
            uplink = await self._patiently("dial", lambda: dial(self.settings, self._keeper))
        try:
            identity = await self._patiently("join", lambda: joined(self.settings, self._keeper, uplink))
            await self._work(uplink, identity)
        finally:
            if self._own_uplink:
                await uplink.close()

    async def _work(self, uplink: Uplink, identity: Identity) -> None:
        await supervised()

    async def _patiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff()
        while True:
            try:
                return await call()
            except Unreachable as error:
                pause = backoff.delay()
                log.warning("broker.unreachable", during=what, error=describe(error), again_s=round(pause, 2))
                await asyncio.sleep(pause)


def keeper_of(settings: Settings, kube: Kube) -> Keeper:
    """Where this agent keeps its identity."""
    if settings.identity_file is not None:
        return FileKeeper(settings.identity_file)
    return SecretKeeper(kube, settings.namespace)
