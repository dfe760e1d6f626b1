"""Simulated clusters, real agents and a broker that only does as a test tells it: the agents' side of every flow."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.kit import jose
from broker.wire.agents import (
    BurstPolicyReport,
    BurstPolicyStatuses,
    Desired,
    Heard,
    Join,
    Joined,
    LeaseReport,
    Report,
)
from broker.wire.devices import Kind
from broker.wire.leases import DesiredLease, LeaseBody, LeaseClaims, LeasedDevice
from broker.wire.offers import Advert, Terms
from broker.wire.requests import CapacityRequest, RequestView
from broker.wire.signing import sign_lease
from clusteragent.agent import Agent
from clusteragent.fences import CONFIG_MAP
from clusteragent.identity import SECRET, MemoryKeeper
from clusteragent.kube.interface import CONFIG_MAPS, LENDING_POLICIES, NAMESPACES, NODES, SECRETS, Obj
from clusteragent.kube.sim import Call, SimCluster, SimKube
from clusteragent.settings import Settings
from clusteragent.uplink import Unreachable
from lendmesh import inventories

NAMESPACE = "lendmesh-system"
LEASE = "lse-0000000000000001"
POLICY: dict[str, Any] = {
    "rules": [
        {"name": "h100", "driver": "gpu.nvidia.com", "price": {"amount": "2.40"}, "keepBack": {"devices": 2}},
    ],
}


class Clock:
    """A wall clock and a monotonic one that move when a test says so, on top of real time."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.monotonic_ahead = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.monotonic_ahead

    def advance(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)
        self.monotonic_ahead += seconds


@dataclass
class Member:
    """What the broker knows of one cluster."""

    sealing_key: dict[str, Any]
    signing_key: dict[str, Any]
    advert: Advert | None = None
    desired: dict[str, DesiredLease] = field(default_factory=dict)
    reports: list[LeaseReport] = field(default_factory=list)
    resyncs: list[Report] = field(default_factory=list)
    watchers: list["asyncio.Queue[DesiredLease]"] = field(default_factory=list)
    sequence: int = 0


class FakeBroker:
    """A broker in memory that grants what a test grants. ``carry_on``: move leases along as reports come in."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.key = jose.SigningKey.generate()
        self.members: dict[str, Member] = {}
        self.down = False
        self.revision = 0
        self.returned: list[str] = []
        self.duration = 3_600
        self.news = asyncio.Condition()
        self.sealed: dict[str, tuple[str, int]] = {}

    def uplink(self, cluster: str) -> "FakeUplink":
        return FakeUplink(self, cluster)

    async def grant(self, lender: str, borrower: str, count: int, *, lease: str = LEASE, fence: int = 1) -> LeaseBody:
        """Reserve the lender's first ``count`` offered devices."""
        advert = self.members[lender].advert
        assert advert is not None
        offer = advert.offers[0]
        body = LeaseBody(
            id=lease,
            request="req-0000000000000001",
            lender=lender,
            borrower=borrower,
            tenant="team-a",
            kind=Kind(driver=offer.kind.driver, model=offer.kind.model),
            devices=tuple(
                LeasedDevice(**device.model_dump(), fence=fence + number)
                for number, device in enumerate(offer.devices[:count])
            ),
            price=offer.price,
            terms=Terms(max_duration="24h"),
            duration="1h",
        )
        await self.want(
            lender,
            DesiredLease(
                id=lease,
                role="lender",
                want="held",
                generation=0,
                revision=0,
                lease=body,
                hold_until=self.clock() + timedelta(seconds=60),
                peer_sealing_key=self.members[borrower].sealing_key,
            ),
        )
        return body

    async def activate(self, body: LeaseBody, *, generation: int = 1) -> str:
        token = self.sign(body, generation=generation)
        await self.lend(body, token, generation=generation)
        return token

    def sign(self, body: LeaseBody, *, generation: int = 1) -> str:
        now = int(self.clock().timestamp())
        claims = LeaseClaims(
            iss="https://broker.test",
            sub=body.borrower,
            aud=[body.lender, body.borrower],
            jti=body.id,
            iat=now,
            nbf=now,
            exp=now + self.duration,
            generation=generation,
            lease=body,
        )
        return sign_lease(claims.model_dump(exclude={"lease"}), claims.lease.model_dump_json(), self.key)

    async def lend(self, body: LeaseBody, token: str, *, generation: int = 1) -> None:
        sealed, serial = self.sealed.get(body.id, (None, 0))
        common = {"id": body.id, "want": "lent", "generation": generation, "revision": 0, "lease": body, "token": token}
        key = self.members[body.borrower].sealing_key
        await self.want(body.lender, DesiredLease(role="lender", peer_sealing_key=key, **common))
        borrowing = DesiredLease(role="borrower", sealed_credential=sealed, credential_serial=serial, **common)
        await self.want(body.borrower, borrowing)

    async def pass_on(self, report: LeaseReport) -> None:
        """A sealed credential goes to the borrower, now or with the lease."""
        self.sealed[report.lease] = (report.sealed_credential or "", report.credential_serial)
        for cluster, member in self.members.items():
            known = member.desired.get(report.lease)
            if known is not None and known.role == "borrower" and known.want == "lent":
                new = {"sealed_credential": report.sealed_credential, "credential_serial": report.credential_serial}
                await self.want(cluster, known.model_copy(update=new))

    async def end(self, body: LeaseBody, ending: str = "returned") -> None:
        for cluster, role in ((body.borrower, "borrower"), (body.lender, "lender")):
            if body.id in self.members[cluster].desired:
                gone = {"want": "gone", "generation": 2, "ending": ending}
                await self.want(cluster, self.members[cluster].desired[body.id].model_copy(update=gone))
            assert role

    async def want(self, cluster: str, desired: DesiredLease) -> None:
        self.revision += 1
        told = desired.model_copy(update={"revision": self.revision})
        member = self.members[cluster]
        member.desired[told.id] = told
        for watcher in member.watchers:
            watcher.put_nowait(told)

    def phase(self, cluster: str, lease: str = LEASE) -> str | None:
        """The last word of a cluster about a lease."""
        said = [report for report in self.members[cluster].reports if report.lease == lease]
        return said[-1].phase if said else None

    async def hears(self, cluster: str, phase: str, lease: str = LEASE) -> LeaseReport:
        """Wait until the cluster says so."""
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: self.phase(cluster, lease) == phase)
        return [report for report in self.members[cluster].reports if report.lease == lease][-1]

    async def sees(self, cluster: str, devices: int) -> Advert:
        """Wait until the cluster offers so many devices."""

        def offered() -> int | None:
            advert = self.members[cluster].advert if cluster in self.members else None
            return None if advert is None else sum(len(offer.devices) for offer in advert.offers)

        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: offered() == devices)
        advert = self.members[cluster].advert
        assert advert is not None
        return advert

    async def tell(self) -> None:
        async with self.news:
            self.news.notify_all()


class FakeUplink:
    """One agent's line to the broker in memory."""

    def __init__(self, broker: FakeBroker, cluster: str) -> None:
        self._broker, self._cluster = broker, cluster

    @property
    def _member(self) -> Member:
        if self._broker.down:
            raise Unreachable("the broker is down")
        return self._broker.members[self._cluster]

    def credential(self, secret: str) -> None:
        assert secret == f"lmc_{self._cluster}"

    async def join(self, body: Join) -> Joined:
        self._broker.members.setdefault(self._cluster, Member(body.sealing_key, body.signing_key))
        keys = jose.key_set([self._broker.key])
        return Joined(
            cluster=self._cluster,
            tenant="team",
            credential=f"lmc_{self._cluster}",
            issuer="https://broker.test",
            jwks=keys,
            server_time=self._broker.clock(),
        )

    async def jwks(self) -> list[Mapping[str, Any]]:
        assert self._member
        return [self._broker.key.public_jwk()]

    async def advert(self, jws: str) -> Heard:
        member = self._member
        member.advert = Advert.model_validate_json(jose.verify(jws, typ=jose.ADVERT, jwks=[member.signing_key]))
        await self._broker.tell()
        return self._heard(member.advert.sequence, applied=True)

    async def report(self, jws: str) -> Heard:
        member = self._member
        report = Report.model_validate_json(jose.verify(jws, typ=jose.REPORT, jwks=[member.signing_key]))
        applied = report.sequence > member.sequence
        if applied:
            member.sequence = report.sequence
            member.reports += report.leases
            for each in report.leases:
                if each.sealed_credential is not None:
                    await self._broker.pass_on(each)
            if report.resync:
                member.resyncs.append(report)
        await self._broker.tell()
        return self._heard(member.sequence, applied=applied)

    async def desired(self) -> Desired:
        leases = list(self._member.desired.values())
        return Desired(revision=self._broker.revision, server_time=self._broker.clock(), leases=leases)

    async def desired_changes(self, after: int) -> AsyncIterator[DesiredLease]:
        queue: asyncio.Queue[DesiredLease] = asyncio.Queue()
        self._member.watchers.append(queue)
        for desired in self._member.desired.values():
            if desired.revision > after:
                queue.put_nowait(desired)
        try:
            while True:
                desired = await queue.get()
                assert self._member
                yield desired
        finally:
            self._broker.members[self._cluster].watchers.remove(queue)

    async def burst_policies(self, body: BurstPolicyReport) -> BurstPolicyStatuses:
        return BurstPolicyStatuses(policies={})

    async def submit(self, body: CapacityRequest, *, key: str) -> RequestView:
        raise NotImplementedError

    async def request(self, request_id: str) -> RequestView:
        raise NotImplementedError

    async def requests(self) -> tuple[list[RequestView], int]:
        return [], 0

    async def request_changes(self, after: int) -> AsyncIterator[RequestView]:
        await asyncio.Event().wait()
        yield

    async def cancel(self, request_id: str) -> None:
        raise NotImplementedError

    async def return_lease(self, lease_id: str) -> None:
        assert self._member
        self._broker.returned.append(lease_id)
        for member in self._broker.members.values():
            if lease_id in member.desired:
                await self._broker.end(member.desired[lease_id].lease)
                return

    async def close(self) -> None:
        return

    def _heard(self, sequence: int, *, applied: bool) -> Heard:
        return Heard(server_time=self._broker.clock(), sequence=sequence, applied=applied)


class Side:
    """One cluster with its agent, which can be killed and started anew."""

    def __init__(self, name: str, broker: FakeBroker, **settings: Any) -> None:
        self.name, self.broker = name, broker
        self.cluster = SimCluster(name)
        self.kube: SimKube = self.cluster.connect()
        self.keeper = MemoryKeeper()
        self.settings = Settings.model_validate(
            {
                "cluster": name,
                "broker_url": "https://broker.test",
                "join_token": "lmj_0123456789abcdef",
                "cooldown": 0,
                "debounce": 0.01,
                "drain": 1,
                "skew": 5,
                **settings,
            }
        )
        self.agent: Agent | None = None

    async def prepare(self, *, nodes: int = 0) -> None:
        await self.furnish(self.cluster, nodes=nodes)
        if nodes:
            self.cluster.put(LENDING_POLICIES, {"metadata": {"name": "idle"}, "spec": POLICY})

    @staticmethod
    async def furnish(cluster: SimCluster, *, nodes: int = 0) -> None:
        """What the chart makes, and nodes with eight GPUs each."""
        cluster.add_namespaces(NAMESPACE)
        for kind, name in ((CONFIG_MAPS, CONFIG_MAP), (SECRETS, SECRET)):
            cluster.put(kind, {"metadata": {"name": name, "namespace": NAMESPACE}, "data": {}})
        for device_class in classes():
            cluster.put(*device_class)
        for number in range(nodes):
            name = f"{cluster.name}-node-{number}"
            cluster.put(NODES, inventories.node(name))
            cluster.publish(inventories.nvidia_gpus(name))

    async def start(self) -> None:
        self.agent = Agent(
            self.settings,
            self.kube,
            uplink=self.broker.uplink(self.name),
            keeper=self.keeper,
            clock=self.broker.clock,
            monotonic=self.broker.clock.monotonic,
        )
        await self.agent.start()

    async def ready(self) -> None:
        assert self.agent is not None
        async with asyncio.timeout(10):
            await self.agent.ready.wait()

    async def kill(self) -> None:
        if self.agent is not None:
            await self.agent.stop()
            await self.kube.close()
            self.kube = self.cluster.connect()

    async def die_at(self, number: int, *, answered: bool) -> asyncio.Event:
        """Kill the agent at its change number ``number`` (from 0): before it takes effect, or before it hears of it.

        The event is set when it is dead.
        """
        dead, count = asyncio.Event(), 0

        async def strike(call: Call) -> None:
            nonlocal count
            if call.verb in ("get", "list", "watch"):
                return
            count += 1
            if count == number + 1:
                killing.append(asyncio.create_task(die()))
                await asyncio.Event().wait()

        async def die() -> None:
            await self.kill()
            dead.set()

        killing: list[asyncio.Task[None]] = []
        if answered:
            self.kube.faults.after = strike
        else:
            self.kube.faults.before = strike
        return dead

    async def eventually(self, what: Callable[[], Awaitable[bool]]) -> None:
        await until(what)

    async def namespaces(self) -> set[str]:
        found = await self.cluster.connect().list(NAMESPACES)
        return {obj["metadata"]["name"] for obj in found if obj["metadata"]["name"].startswith("lendmesh-lse-")}


async def until(look: Callable[[], Awaitable[bool]], *, within: float = 10) -> None:
    """Wait until it is so; simulated clusters are quick, so it is asked often."""
    async with asyncio.timeout(within):
        while not await look():  # noqa: ASYNC110 (what is asked has no event)
            await asyncio.sleep(0.005)


def classes() -> list[tuple[Any, Obj]]:
    from clusteragent.kube.interface import DEVICE_CLASSES

    found = [(DEVICE_CLASSES, obj) for obj in inventories.device_classes()]
    return found + [
        (DEVICE_CLASSES, {"metadata": {"name": f"lendmesh-{name}"}, "spec": {}}) for name in ("held", "remote")
    ]


def claim_for(name: str) -> Obj:
    """A claim of home work for any one GPU."""
    exactly = {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
    }


def pod_with(name: str, *, node: str | None = None) -> Obj:
    """A pod of home work that uses the claim of its name."""
    spec: Obj = {
        "containers": [{"name": "work", "image": "work", "resources": {"claims": [{"name": "gpu"}]}}],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": name}],
    }
    if node is not None:
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        spec["affinity"] = {"nodeAffinity": required}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
