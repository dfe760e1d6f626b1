"""A lender without a cluster: joins like an agent, offers many devices, and says «held» to all it is asked to hold.

For measuring the broker alone. Everything it says is signed and on the wire as an agent's: an advert with every device,
reports of many leases at a time with a sealed credential each, the desired leases from the agent's stream. It holds
nothing, so it says of nothing that it is released.

    python -m tests.bench.standin < orders.json     # `Orders`; says «ready» when its devices are on offer
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import uvloop

from broker.kit import jose
from broker.wire.agents import Desired, Join, Joined, LeaseReport, Report
from broker.wire.base import price
from broker.wire.devices import Kind, OfferedDevice
from broker.wire.leases import DesiredLease
from broker.wire.offers import Advert, AdvertisedOffer, InventoryCounts, Terms
from tests.bench.asking import Asker
from tests.controlplane.fixtures import H100, NVIDIA, nvidia_device

GPUS = 8
"""In every node."""
LINES = 256
"""Most leases in one report."""
KUBECONFIG = b"k" * 2_600
"""As long as a real one with a CA and a token."""


@dataclass(frozen=True)
class Orders:
    """Who to be."""

    url: str
    ca: str
    lenders: dict[str, str]
    """Cluster → its join token."""
    borrower: str
    borrower_token: str
    nodes: int
    """Of eight devices, for each lender."""


class Link(Protocol):
    """How a cluster speaks to its broker: over HTTPS, or by calls where HTTP is left out of what is measured."""

    async def join(self, body: Join) -> Joined: ...

    async def advert(self, jws: str) -> None: ...

    async def report(self, jws: str) -> None: ...

    def desired(self) -> AsyncIterator[DesiredLease]:
        """What is wanted now, and as it changes, until cancelled."""
        ...


class Lender:
    """One cluster that lends, as its broker sees it."""

    def __init__(self, name: str, link: Link, *, nodes: int) -> None:
        self.name, self._link, self._nodes = name, link, nodes
        self._key, self._sealing = jose.SigningKey.generate(), jose.SealingKey.generate()
        self._sequence = 0
        self._lines: list[LeaseReport] = []
        self._news = asyncio.Event()
        self._highest = 0
        self._sealed = jose.seal(KUBECONFIG, to=self._sealing.public_jwk())

    async def join(self, token: str) -> None:
        """Introduce itself, say what it holds (nothing), and offer its devices."""
        body = Join(
            token=token,
            cluster=self.name,
            signing_key=self._key.public_jwk(),
            sealing_key=self._sealing.public_jwk(),
            version="bench",
        )
        await self._link.join(body)
        await self._say([], resync=True)
        if self._nodes:
            await self._link.advert(self._signed(self._advert(), jose.ADVERT))

    async def lend(self) -> None:
        """Hold and lend whatever is wanted, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._answer())

    async def _listen(self) -> None:
        async for desired in self._link.desired():
            if desired.role == "lender" and desired.want in ("held", "lent"):
                self._lines.append(self._line(desired))
                self._news.set()

    async def _answer(self) -> None:
        """One report under way at a time; what comes meanwhile goes with the next."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._lines:
                lines, self._lines = self._lines[:LINES], self._lines[LINES:]
                await self._say(lines)

    def _line(self, desired: DesiredLease) -> LeaseReport:
        fence = max(device.fence for device in desired.lease.devices)
        self._highest = max(self._highest, fence)
        held = desired.want == "held"
        return LeaseReport(
            lease=desired.id,
            role="lender",
            generation=desired.generation,
            phase="held" if held else "lent",
            fence=fence,
            sealed_credential=self._sealed if held else None,
            credential_serial=1 if held else 0,
        )

    async def _say(self, lines: list[LeaseReport], *, resync: bool = False) -> None:
        report = Report(
            cluster=self.name,
            sequence=self._next(),
            sent_at=datetime.now(UTC),
            resync=resync,
            highest_fence=self._highest,
            leases=tuple(lines),
        )
        await self._link.report(self._signed(report, jose.REPORT))

    def _advert(self) -> Advert:
        now = datetime.now(UTC)
        devices = tuple(
            OfferedDevice.model_construct(
                driver=NVIDIA, pool=node, name=f"gpu-{index}", node=node, key=f"GPU-{node}-{index}"
            )
            for node in (f"{self.name}-{number:05d}" for number in range(self._nodes))
            for index in range(GPUS)
        )
        shape = nvidia_device("any", 0, product=H100)
        common = {
            name: value
            for name, value in shape["attributes"].items()
            if name in ("type", "productName", "brand", "architecture", "driverVersion", "cudaComputeCapability")
        }
        offer = AdvertisedOffer(
            name="h100",
            policy="everything",
            kind=Kind(
                driver=NVIDIA,
                model=H100.name,
                memory_bytes=81_559 << 20,
                attributes=common,
                capacity={"memory": shape["capacity"]["memory"]},
            ),
            price=price(2_400_000),
            terms=Terms.model_construct(max_duration=86_400),
            devices=devices,
        )
        return Advert(
            cluster=self.name,
            sequence=self._next(),
            sent_at=now,
            valid_until=now + timedelta(minutes=10),
            offers=(offer,),
            counts=InventoryCounts(total=len(devices), free=len(devices)),
        )

    def _signed(self, message: Advert | Report, typ: str) -> str:
        return self._key.sign(message.model_dump_json().encode(), typ=typ)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


class Https:
    """As an agent speaks: over HTTPS, with the cluster's own credential."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._asker: Asker | None = None

    async def join(self, body: Join) -> Joined:
        async with Asker(url=self._orders.url, token="none", ca=Path(self._orders.ca)) as stranger:
            text = json.loads(body.model_dump_json())
            joined = Joined.model_validate(await stranger.post("/v1/join", text))
        self._asker = Asker(url=self._orders.url, token=joined.credential, ca=Path(self._orders.ca))
        await self._asker.__aenter__()
        return joined

    async def advert(self, jws: str) -> None:
        await self._put("/v1/agent/advert", jws)

    async def report(self, jws: str) -> None:
        await self._put("/v1/agent/report", jws)

    async def desired(self) -> AsyncIterator[DesiredLease]:
        assert self._asker is not None
        news: asyncio.Queue[DesiredLease] = asyncio.Queue()

        def hear(_: float, lease: dict[str, object]) -> None:
            news.put_nowait(DesiredLease.model_validate(lease))

        known = Desired.model_validate(await self._asker.get("/v1/agent/desired"))
        for lease in known.leases:
            yield lease
        async with self._asker.follow(f"/v1/agent/watch?after={known.revision}", hear):
            while True:
                yield await news.get()

    async def close(self) -> None:
        if self._asker is not None:
            await self._asker.__aexit__(None, None, None)

    async def _put(self, path: str, jws: str) -> None:
        assert self._asker is not None
        await self._asker.put_signed(path, jws)


async def stand_in(orders: Orders) -> None:
    """Be these clusters until stdin ends."""
    links = {name: Https(orders) for name in orders.lenders}
    lenders = {name: Lender(name, link, nodes=orders.nodes) for name, link in links.items()}
    home = Https(orders)
    await Lender(orders.borrower, home, nodes=0).join(orders.borrower_token)
    for name, lender in lenders.items():
        await lender.join(orders.lenders[name])
    tasks = [asyncio.create_task(lender.lend(), name=name) for name, lender in lenders.items()]
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
        for link in (home, *links.values()):
            await link.close()


def order(orders: Orders) -> str:
    """One line for a stand-in's stdin."""
    return json.dumps(asdict(orders)) + "\n"


if __name__ == "__main__":
    uvloop.run(stand_in(Orders(**json.loads(sys.stdin.readline()))))
