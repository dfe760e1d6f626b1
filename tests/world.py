"""A broker in this process and agents that are one's own hand: what service tests are written with.

Time stands still unless a test moves it, ids count up, and no loop runs unless a test asks: ``place()`` and
``expire()`` are called by name, so that a test says what happens when.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.domain.access import Once, Principal
from broker.domain.rules import Rules
from broker.kit import jose
from broker.kit.jose import SealingKey, SigningKey
from broker.service.broker import Broker
from broker.store.engine import Store
from broker.store.migrate import migrate
from broker.wire.access import JoinTokenRequest, Scope, TokenRequest
from broker.wire.agents import Heard, Join, LeaseReport, Report
from broker.wire.base import Price
from broker.wire.devices import Confidential, Kind, OfferedDevice, Place
from broker.wire.leases import DesiredLease
from broker.wire.offers import Advert, AdvertisedOffer, Terms
from broker.wire.requests import CapacityRequest, RequestView

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
H100 = Kind(
    driver="gpu.nvidia.com",
    model="NVIDIA H100 80GB HBM3",
    memory_bytes=80 << 30,
    attributes={"productName": {"string": "NVIDIA H100 80GB HBM3"}, "architecture": {"string": "Hopper"}},
    capacity={"memory": {"value": "80Gi"}},
)
KEY = SigningKey.generate()
ADMIN = Principal(subject="token:admin", tenant="ops", scopes=frozenset({"admin"}))


class Ticker:
    """A clock that a test moves."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def advance(self, **by: float) -> datetime:
        self.at += timedelta(**by)
        return self.at


class Counter:
    """Ids that count up, of every kind: ``lse-00000001``."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def __call__(self, prefix: str) -> str:
        return f"{prefix}-{next(self._next):08d}"


def device(node: str, index: int) -> OfferedDevice:
    return OfferedDevice(driver="gpu.nvidia.com", pool=node, name=f"gpu-{index}", node=node)


def devices(*nodes: str, each: int = 8) -> list[OfferedDevice]:
    return [device(node, index) for node in nodes for index in range(each)]


def offer(
    offered: Iterable[OfferedDevice],
    *,
    name: str = "h100",
    price: str = "2.00",
    kind: Kind = H100,
    region: str | None = "eu-west",
    jurisdiction: str | None = None,
    confidential: Confidential | None = None,
    unit: int = 1,
    **terms: Any,
) -> AdvertisedOffer:
    return AdvertisedOffer(
        name=name,
        policy="spare",
        kind=kind,
        price=Price(amount=price),
        terms=Terms.model_validate({"max_duration": "24h", **terms}),
        place=Place(region=region, jurisdiction=jurisdiction),
        confidential=confidential or Confidential(),
        unit=unit,
        devices=tuple(offered),
    )


def wish(cluster: str = "a", count: int = 8, **fields: Any) -> CapacityRequest:
    """A capacity request as JSON would have it."""
    asked: dict[str, Any] = {
        "cluster": cluster,
        "devices": {"count": count, **fields.pop("devices", {})},
        "duration": "1h",
        "price_cap": {"amount": "3.00"},
        "wait": "10m",
        **fields,
    }
    return CapacityRequest.model_validate({key: value for key, value in asked.items() if value is not None})


class Agent:
    """One cluster's agent, as far as the broker can tell."""

    def __init__(self, world: World, cluster: str, tenant: str) -> None:
        self.world, self.cluster, self.tenant = world, cluster, tenant
        self.signing, self.sealing = SigningKey.generate(), SealingKey.generate()
        self.sequence = itertools.count(1)
        self.credential = ""
        self.principal = ADMIN

    async def join(self) -> Agent:
        broker = self.world.broker
        token = await broker.create_join_token(
            ADMIN, JoinTokenRequest.model_validate({"cluster": self.cluster, "tenant": self.tenant})
        )
        joined = await broker.join(
            Join(
                token=token.secret,
                cluster=self.cluster,
                signing_key=self.signing.public_jwk(),
                sealing_key=self.sealing.public_jwk(),
            )
        )
        self.credential = joined.credential
        self.principal = await broker.authenticate(joined.credential)
        return self

    async def advertise(
        self, *offers: AdvertisedOffer, sequence: int | None = None, sent_at: datetime | None = None
    ) -> Heard:
        advert = Advert(
            cluster=self.cluster,
            sequence=next(self.sequence) if sequence is None else sequence,
            sent_at=sent_at or self.world.clock(),
            valid_until=self.world.clock() + timedelta(seconds=60),
            offers=offers,
        )
        return await self.world.broker.advert(self.principal, self.sign(advert, jose.ADVERT))

    async def report(self, *lines: LeaseReport, resync: bool = False, **fields: Any) -> Heard:
        report = Report(
            **{
                "cluster": self.cluster,
                "sequence": next(self.sequence),
                "sent_at": self.world.clock(),
                "resync": resync,
                "leases": lines,
                **fields,
            }
        )
        return await self.world.broker.report(self.principal, self.sign(report, jose.REPORT))

    def sign(self, message: Any, typ: str) -> str:
        return self.signing.sign(message.model_dump_json().encode(), typ=typ)

    async def desired(self) -> list[DesiredLease]:
        return (await self.world.broker.desired(self.principal)).leases

    async def say(self, phase: str, lease: str | None = None, *, role: str = "lender", **fields: Any) -> Heard:
        """One word about one lease (the only one wanted of us, unless named), under its fence."""
        wanted = await self.desired()
        about = next(each for each in wanted if each.role == role and lease in (None, each.id))
        fence = max(each.fence for each in about.lease.devices)
        line = LeaseReport(
            lease=about.id, role=role, generation=about.generation, phase=phase, **{"fence": fence, **fields}
        )
        return await self.report(line)


class World:
    """A broker, its clock and its agents."""

    def __init__(self, broker: Broker, store: Store, clock: Ticker) -> None:
        self.broker, self.store, self.clock = broker, store, clock

    async def agent(self, cluster: str, *, tenant: str | None = None, resync: bool = True) -> Agent:
        agent = await Agent(self, cluster, tenant or f"team-{cluster}").join()
        if resync:
            await agent.report(resync=True)
        return agent

    async def user(self, tenant: str, *scopes: str) -> Principal:
        made = await self.broker.create_token(
            ADMIN,
            TokenRequest(
                name="someone",
                tenant=tenant,
                scopes=tuple(Scope(scope) for scope in scopes or ("read", "request", "lend")),
            ),
        )
        return await self.broker.authenticate(made.secret)

    async def submitted(self, p: Principal, body: CapacityRequest, once: Once | None = None) -> RequestView:
        """Asked for, and looked at once."""
        made = await self.broker.submit(p, body, once)
        await self.broker.place()
        return await self.broker.request(p, made.id)

    async def lend(self, lender: Agent, borrower: Agent) -> str:
        """From RESERVED to both sides mirrored; the lease's id."""
        await lender.say("held", sealed_credential="sealed", credential_serial=1)
        await lender.say("lent")
        await borrower.say("mirrored", role="borrower")
        return (await lender.desired())[0].id


@asynccontextmanager
async def world(
    url: str, *, clock: Ticker | None = None, rules: Rules | None = None, **parts: Any
) -> AsyncIterator[World]:
    """A broker on a migrated database."""
    migrate(url)
    clock = clock or Ticker()
    store = await Store.open(url)
    broker = Broker(
        store=store,
        keys=[KEY],
        issuer="https://broker.example",
        clock=clock,
        ids=parts.pop("ids", Counter()),
        rules=rules,
        **parts,
    )
    await broker.start()
    try:
        yield World(broker, store, clock)
    finally:
        await broker.stop()
        await store.close()


async def pair(of: World, *offers: AdvertisedOffer, nodes: Sequence[str] = ("n1", "n2")) -> tuple[Agent, Agent]:
    """B lends (16 H100 in two nodes unless told otherwise), A borrows."""
    lender, borrower = await of.agent("b"), await of.agent("a")
    await lender.advertise(*(offers or (offer(devices(*nodes)),)))
    return lender, borrower


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database: every test that asks for it runs on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/broker.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[World]:
    """A broker on either database."""
    async with world(database_url) as made:
        yield made
