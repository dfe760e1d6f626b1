"""Keeping the broker's picture of this cluster true: an advert on every change, and one in ten seconds without.

A change waits a moment for others (at most the debounce), and a cluster that changes all the time pays for adverts with
a fixed share of its time, not with all of it. While the picture is not settled nothing new is said: the old advert runs
out by itself, which is the honest thing for it to do.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import structlog

from broker.kit.clock import Clock
from broker.kit.jose import ADVERT, SigningKey
from broker.wire.devices import Place
from broker.wire.lending import LendingPolicySpec
from broker.wire.offers import Advert, AdvertisedOffer, InventoryCounts
from clusteragent.kube.interface import Obj
from clusteragent.loops import Backoff, describe
from clusteragent.observe import Observer
from clusteragent.offers import offers
from clusteragent.reporter import Sequence as Numbers
from clusteragent.reporter import clock_warning
from clusteragent.rules import Selectors
from clusteragent.uplink import Refused, Unreachable, Uplink

SETTLE_S = 0.02
"""A change seldom comes alone: a pod, its claim and the claim's status follow each other within this."""
SHARE = 3
"""After an advert that took t, the next one waits at least SHARE × t."""
TRIES = 5
log = structlog.get_logger("agent")


class Advertiser:
    """``run`` it as a loop, ``nudge`` it when something may have changed."""

    def __init__(
        self,
        *,
        cluster: str,
        uplink: Uplink,
        key: SigningKey,
        clock: Clock,
        observer: Observer,
        policies: Callable[[], Mapping[str, LendingPolicySpec]],
        engaged: Callable[[], set[str]],
        nodes: Callable[[str], Obj | None],
        selectors: Selectors,
        heartbeat: float,
        debounce: float,
        cooldown: float,
        place: Place,
    ) -> None:
        self._cluster, self._uplink, self._key, self._clock = cluster, uplink, key, clock
        self._observer, self._policies, self._engaged, self._nodes = observer, policies, engaged, nodes
        self._heartbeat, self._debounce, self._cooldown, self._place = heartbeat, debounce, cooldown, place
        self._numbers = Numbers(clock)
        self._selectors = selectors
        self._resting: dict[str, int] = {}
        self._nudged = asyncio.Event()
        self._said: tuple[list[AdvertisedOffer], InventoryCounts] | None = None

    def nudge(self) -> None:
        self._nudged.set()

    def repeat(self) -> None:
        """The broker may have missed the last advert: say it again, changed or not."""
        self._said = None
        self.nudge()

    def rest(self, devices: Sequence[str]) -> None:
        """Don't offer these before they have cooled down."""
        for device in devices:
            self._resting[device] = self._resting.get(device, 0) + 1
        asyncio.get_running_loop().call_later(self._cooldown, self._rested, tuple(devices))

    async def run(self) -> None:
        backoff = Backoff(longest=self._heartbeat)
        while True:
            self._nudged.clear()
            began = time.monotonic()
            beat = self._heartbeat
            try:
                await self._step()
                backoff.reset()
            except (Unreachable, Refused) as error:
                beat = backoff.delay()
                self._said = None
                log.warning("advert.unsent", error=describe(error), again_s=round(beat, 2))
                await asyncio.sleep(beat)
                continue
            ended = time.monotonic()
            not_before = ended + max(self._debounce, SHARE * (ended - began))
            try:
                async with asyncio.timeout(beat):
                    await self._nudged.wait()
                await asyncio.sleep(max(min(SETTLE_S, self._debounce), not_before - time.monotonic()))
            except TimeoutError:
                self._said = None

    async def _step(self) -> None:
        if not self._observer.settled:
            return
        policies = self._policies()
        picture = offers(
            self._observer.devices(),
            policies,
            nodes=self._nodes,
            engaged=self._engaged(),
            resting=set(self._resting),
            selectors=self._selectors,
            place=self._place,
        )
        if picture == self._said:
            return
        validity = min((spec.validity for spec in policies.values()), default=300)
        await self._send(*picture, validity=max(validity, round(2 * self._heartbeat)))
        self._said = picture

    async def _send(self, made: list[AdvertisedOffer], counts: InventoryCounts, *, validity: int) -> None:
        for _ in range(TRIES):
            now = self._clock()
            advert = Advert.model_construct(
                cluster=self._cluster,
                sequence=self._numbers.next(),
                sent_at=now,
                valid_until=now + timedelta(seconds=validity),
                offers=tuple(made),
                counts=counts,
            )
            body = advert.model_dump_json(exclude_none=True).encode()
            heard = await self._uplink.advert(self._key.sign(body, typ=ADVERT))
            clock_warning(heard)
            if heard.applied:
                log.debug("advert.sent", offers=len(made), devices=sum(len(offer.devices) for offer in made))
                return
            self._numbers.heard(heard.sequence)
        raise Unreachable("the broker has always heard a higher number; does another agent run under this name?")

    def _rested(self, devices: Sequence[str]) -> None:
        for device in devices:
            self._resting[device] -= 1
            if not self._resting[device]:
                del self._resting[device]
        self.nudge()
