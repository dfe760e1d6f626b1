"""One cluster's agent: built from its parts here, started, watched over, stopped.

It can be a process of its own (``__main__``) or live inside another one: a demo or a simulation hands in a simulated
cluster, its own clock, an uplink. A loop that dies ends the agent, and with it the process: half an agent looks
healthy.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from broker.kit.clock import Clock, utc_now
from broker.wire.devices import Place
from clusteragent import lender
from clusteragent.act import Hands
from clusteragent.advertise import Advertiser
from clusteragent.cache import Cache
from clusteragent.expiry import Now
from clusteragent.eyes import Eyes
from clusteragent.fences import Fences
from clusteragent.identity import FileKeeper, Identity, Keeper, SecretKeeper, dial, joined
from clusteragent.kube.interface import (
    BURST_POLICIES,
    CAPACITY_REQUESTS,
    DEVICE_CLASSES,
    DEVICE_LEASES,
    DEVICE_TAINT_RULES,
    LENDING_POLICIES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Kind,
    Kube,
    KubeError,
    NotFound,
)
from clusteragent.leases import Leases
from clusteragent.leaving import Leaving
from clusteragent.loops import Backoff, describe, supervised
from clusteragent.observe import Observer
from clusteragent.policies import LendingPolicies
from clusteragent.reporter import Reporter
from clusteragent.requests import Requests
from clusteragent.rules import Selectors, forbidden
from clusteragent.settings import Settings
from clusteragent.trust import Trust
from clusteragent.uplink import Refused, Unreachable, Uplink

SHARED: tuple[Kind, ...] = (
    NAMESPACES,
    PODS,
    NODES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    DEVICE_CLASSES,
    DEVICE_LEASES,
    LENDING_POLICIES,
)
BORROWERS: tuple[Kind, ...] = (BURST_POLICIES, CAPACITY_REQUESTS)
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
        self.ready = asyncio.Event()
        """Set when the cluster has been read and the broker has been heard once."""
        self.leases: Leases | None = None
        self._uplink, self._own_uplink = uplink, uplink is None
        self._keeper = keeper or keeper_of(settings, kube)
        self._clock, self._monotonic = clock, monotonic
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once. ``failed`` tells whether it has died, ``ready`` when it works."""
        self._task = asyncio.create_task(self.run(), name=f"agent {self.settings.cluster}")

    async def stop(self) -> None:
        """End as if killed: nothing is drained or reported, and the next one goes on where this one was."""
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

    def look_again(self) -> None:
        """Look at every lease now, for a caller whose clock has jumped."""
        if self.leases is not None:
            self.leases.look_again()

    async def run(self) -> None:
        """Join where needed, then work until cancelled. Raises what killed a loop, ``Refused`` or ``NoIdentity``."""
        uplink = self._uplink
        if uplink is None:
            uplink = await self._patiently("dial", lambda: dial(self.settings, self._keeper))
        try:
            line = uplink
            identity = await self._patiently("join", lambda: joined(self.settings, self._keeper, line))
            await self._work(line, identity)
        finally:
            if self._own_uplink:
                await uplink.close()

    async def _work(self, uplink: Uplink, identity: Identity) -> None:
        settings = self.settings
        kinds = SHARED + (BORROWERS if settings.borrow else ())
        if await self._patiently("discovery", lambda: self._serves(DEVICE_TAINT_RULES)):
            kinds += (DEVICE_TAINT_RULES,)
        cache = Cache(kinds)
        fences = Fences(self.kube, settings.namespace)
        observer = Observer(cache)
        policies, selectors = LendingPolicies(), Selectors()
        reporter = Reporter(
            cluster=settings.cluster,
            uplink=uplink,
            key=identity.signing,
            clock=self._clock,
            highest_fence=lambda: fences.highest,
        )
        advertiser = Advertiser(
            cluster=settings.cluster,
            uplink=uplink,
            key=identity.signing,
            clock=self._clock,
            observer=observer,
            policies=lambda: policies.of(cache[LENDING_POLICIES]),
            engaged=lambda: leases.engaged(),
            nodes=cache[NODES].get,
            selectors=selectors,
            heartbeat=settings.heartbeat,
            debounce=settings.debounce,
            cooldown=settings.cooldown,
            place=Place(region=settings.region, jurisdiction=settings.jurisdiction, provider=settings.provider),
        )
        hands = Hands(
            settings=settings,
            kube=self.kube,
            cache=cache,
            uplink=uplink,
            reporter=reporter,
            fences=fences,
            sealing=identity.sealing,
            rest=advertiser.rest,
            clock=self._clock,
            monotonic=self._monotonic,
        )
        keep_pod = settings.keep_placeholder
        leases = self.leases = Leases(
            cache=cache,
            eyes=Eyes(
                cache=cache,
                observer=observer,
                fences=fences,
                forbids=lambda body: forbidden(body, policies.of(cache[LENDING_POLICIES]), observer.state, selectors),
            ),
            hands=hands,
            trust=Trust(cluster=settings.cluster, keys=identity.jwks, fetch=uplink.jwks),
            terms=lender.Terms(
                skew=settings.skew,
                drain=settings.drain,
                keep_pod=await self._must_keep_pod() if keep_pod is None else keep_pod,
                lends=settings.lend,
                borrows=settings.borrow,
                image=settings.placeholder_image,
                role=settings.borrower_role,
            ),
            now=lambda: Now(self._clock(), self._monotonic()),
            changed=advertiser.nudge,
        )
        observer.listen(advertiser.nudge)
        cache[LENDING_POLICIES].listen(lambda obj, here: advertiser.nudge())
        loops: list[Coroutine[Any, Any, None]] = [shelf.follow(self.kube) for shelf in cache.shelves()]

        async def after_sync() -> None:
            await self._patiently("fences", fences.load)
            await cache.synced()
            log.info("agent.synced", cluster=settings.cluster, devices=len(observer.devices()))
            working = [leases.run(), reporter.run(), self._converse(uplink, leases, reporter, advertiser)]
            if settings.lend:
                working.append(advertiser.run())
            if settings.borrow:
                leaving = Leaving(kube=self.kube, cache=cache, uplink=uplink, clock=self._clock)
                requests = Requests(
                    cluster=settings.cluster,
                    kube=self.kube,
                    shelf=cache[CAPACITY_REQUESTS],
                    uplink=uplink,
                    changed=leaving.nudge,
                )
                working += [requests.run(), leaving.run()]
            await supervised(*working)

        await supervised(*loops, after_sync())

    async def _converse(self, uplink: Uplink, leases: Leases, reporter: Reporter, advertiser: Advertiser) -> None:
        """Say how everything stands, hear what is wanted, follow its changes; again after every interruption."""
        backoff = Backoff(longest=5.0)
        while True:
            try:
                await reporter.resync(leases.standing())
                desired = await uplink.desired()
                await leases.wish_all(desired.leases)
                advertiser.repeat()
                self.ready.set()
                log.info("broker.connected", leases=len(desired.leases), revision=desired.revision)
                async for change in uplink.desired_changes(desired.revision):
                    backoff.reset()
                    await leases.wish(change)
            except (Unreachable, Refused) as error:
                pause = backoff.delay()
                log.warning("broker.lost", error=describe(error), again_s=round(pause, 2))
                await asyncio.sleep(pause)

    async def _serves(self, kind: Kind) -> bool:
        """Whether the cluster has this kind at all (taint rules: on from 1.37, before that when asked for)."""
        try:
            await self.kube.list(kind)
        except NotFound:
            return False
        return True

    async def _must_keep_pod(self) -> bool:
        """Before 1.36 the controller can't live with a reservation that is no pod's (k8s 136450): the pod stays."""
        version = getattr(self.kube, "version", None)
        if version is None:
            return False
        major, minor = await version()
        return (int(major), int(minor)) < (1, 36)

    async def _patiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff()
        while True:
            try:
                return await call()
            except (Unreachable, KubeError, OSError) as error:
                pause = backoff.delay()
                log.warning("agent.waits", during=what, error=describe(error), again_s=round(pause, 2))
                await asyncio.sleep(pause)


def keeper_of(settings: Settings, kube: Kube) -> Keeper:
    """Where this agent keeps its identity."""
    if settings.identity_file is not None:
        return FileKeeper(settings.identity_file)
    return SecretKeeper(kube, settings.namespace)
