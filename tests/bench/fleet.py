"""The clusters of the mixed federation, as their broker sees them: they join, advertise, heartbeat, hold and lend.

As a stand-in (`standin.py`), but many at once and never silent: each says its advert again every ten seconds and soon
after devices of it were lent, without these, as an agent does. A process of its own.

    python -m tests.bench.fleet < orders.json     # `Fleet`; says «ready» when all devices are on offer
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import uvloop

from broker.kit import jose
from broker.wire.agents import LeaseReport
from broker.wire.leases import DesiredLease
from broker.wire.offers import Advert, AdvertisedOffer, InventoryCounts
from tests.bench.mixed import BORROWERS, market
from tests.bench.standin import Https, Lender, Link, Orders

BEAT_S = 10.0
"""An agent's heartbeat, as its settings have it."""
SETTLE_S = 0.5
"""From a hold to the advert without its devices: a scheduler allocates, an agent sees it."""
AT_ONCE = 16
"""So many join at a time."""


@dataclass(frozen=True)
class Fleet:
    """Whom to be, and where."""

    url: str
    ca: str
    tokens: dict[str, str]
    """Cluster → its join token; lenders and borrowers."""
    clusters: int


class Member(Lender):
    """One cluster, which offers what it is told and takes back from its advert what it lends."""

    def __init__(self, name: str, link: Link, offers: Sequence[AdvertisedOffer] = ()) -> None:
        super().__init__(name, link, nodes=len(offers))
        self._offers = offers
        self._lent: set[str] = set()
        self._changed = asyncio.Event()

    async def live(self, *, phase: float) -> None:
        """Hold and lend what is wanted, and be heard; ``phase``: which part of the first heartbeat to wait."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lend())
            tasks.create_task(self._beat(phase))

    async def _beat(self, phase: float) -> None:
        wait = BEAT_S * phase
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
                await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                pass
            self._changed.clear()
            await self._link.advert(self._signed(self._advert(), jose.ADVERT))
            wait = BEAT_S

    def _line(self, desired: DesiredLease) -> LeaseReport:
        mine = {device.ref("") for device in desired.lease.devices}
        if not mine <= self._lent:
            self._lent |= mine
            self._changed.set()
        return super()._line(desired)

    def _advert(self) -> Advert:
        now = datetime.now(UTC)
        offers = tuple(self._left(offer) for offer in self._offers)
        total = sum(len(offer.devices) for offer in offers)
        return Advert.model_construct(
            cluster=self.name,
            sequence=self._next(),
            sent_at=now,
            valid_until=now + timedelta(minutes=5),
            offers=offers,
            counts=InventoryCounts(total=total, free=total),
        )

    def _left(self, offer: AdvertisedOffer) -> AdvertisedOffer:
        if not self._lent:
            return offer
        devices = tuple(device for device in offer.devices if device.ref("") not in self._lent)
        return offer.model_copy(update={"devices": devices})


async def be(fleet: Fleet) -> None:
    """Be these clusters until stdin ends."""
    offers: dict[str, Any] = {**market(fleet.clusters), **dict.fromkeys(BORROWERS, ())}
    orders = Orders(url=fleet.url, ca=fleet.ca, lenders={}, borrower="", borrower_token="", nodes=0)
    links = {name: Https(orders) for name in fleet.tokens}
    members = {name: Member(name, links[name], offers[name]) for name in fleet.tokens}
    gate = asyncio.Semaphore(AT_ONCE)

    async def join(name: str) -> None:
        async with gate:
            await members[name].join(fleet.tokens[name])

    async with asyncio.TaskGroup() as joining:
        for name in members:
            joining.create_task(join(name))
    tasks = [
        asyncio.create_task(member.live(phase=at / len(members)), name=name)
        for at, (name, member) in enumerate(members.items())
    ]
    print("ready", flush=True)
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    try:
        done, _ = await asyncio.wait([over, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {over}:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in links.values():
            await link.close()


def order(fleet: Fleet) -> str:
    """One line for its stdin."""
    return json.dumps(asdict(fleet)) + "\n"


if __name__ == "__main__":
    uvloop.run(be(Fleet(**json.loads(sys.stdin.readline()))))
