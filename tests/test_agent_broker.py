"""Agents and the real broker over HTTPS, on simulated clusters: objects in, leases out, and nothing left behind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from broker.wire.leases import LeaseView
from clusteragent.kube.interface import (
    BURST_POLICIES,
    CAPACITY_REQUESTS,
    DEVICE_LEASES,
    LENDING_POLICIES,
    NAMESPACES,
    PODS,
    RESOURCE_CLAIMS,
    Kind,
    Obj,
)
from clusteragent.kube.sim import SimCluster
from lendmesh.demo import federation
from tests.agents import POLICY, Side, claim_for, pod_with, until

H100 = "device.attributes['gpu.nvidia.com'].productName.contains('H100')"


class World:
    """Cluster b lends, cluster a borrows, a broker between them."""

    def __init__(self, a: SimCluster, b: SimCluster) -> None:
        self.clusters = {"a": a, "b": b}
        self.kubes = {name: cluster.connect() for name, cluster in self.clusters.items()}
        self.federation: federation.Federation

    def put(self, cluster: str, kind: Kind, name: str, spec: Obj, namespace: str | None = None) -> None:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        self.clusters[cluster].put(kind, {"metadata": metadata, "spec": spec})

    async def status(self, kind: Kind, name: str, namespace: str | None = None) -> Obj:
        found: Obj = (await self.clusters["a"].connect().get(kind, name, namespace)).get("status", {})
        return found

    async def leases(self) -> list[LeaseView]:
        return await self.federation.broker.every(LeaseView, "/v1/leases")

    async def over(self) -> bool:
        """Every lease has ended, and nothing of it is in either cluster."""
        if any(lease.state != "Ended" for lease in await self.leases()):
            return False
        found: list[Any] = []
        for cluster in self.clusters.values():
            kube = cluster.connect()
            found += [each for each in await kube.list(DEVICE_LEASES)]
            found += [each for each in await kube.list(RESOURCE_CLAIMS) if not is_home(each)]
            found += [each for each in await kube.list(NAMESPACES) if "lse-" in each["metadata"]["name"]]
        return not found


def is_home(obj: Obj) -> bool:
    return str(obj["metadata"]["name"]).startswith("home")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    a, b = SimCluster("a"), SimCluster("b")
    await Side.furnish(a)
    await Side.furnish(b, nodes=2)
    b.put(LENDING_POLICIES, {"metadata": {"name": "idle"}, "spec": {**POLICY, "place": {"region": "eu-north-1"}}})
    made = World(a, b)
    tenants = {"a": "research", "b": "platform"}
    async with federation.running(made.kubes, tenants=tenants, lenders=["b"], port=0) as made.federation:
        yield made


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    await until(look, within=20)


async def test_an_object_asks_and_its_status_tells_until_it_is_deleted(world: World) -> None:
    spec = {"devices": {"count": 8, "selector": H100}, "duration": "1h", "priceCap": {"amount": "3.00"}}
    world.put("a", CAPACITY_REQUESTS, "training", spec, "default")

    async def mirrored() -> bool:
        return (await world.status(CAPACITY_REQUESTS, "training", "default")).get("step") == "mirrored"

    await eventually(mirrored)
    status = await world.status(CAPACITY_REQUESTS, "training", "default")
    assert (status["state"], status["lender"], status["price"]) == ("Active", "b", "2.40")
    assert [lease.id for lease in await world.leases()] == [status["lease"]]
    world.clusters["a"].remove(CAPACITY_REQUESTS, "training", namespace="default")
    await eventually(world.over)


async def test_an_object_that_cannot_be_served_says_why(world: World) -> None:
    dear = {"devices": {"count": 8}, "duration": "1h", "priceCap": {"amount": "0.10"}}
    world.put("a", CAPACITY_REQUESTS, "cheap", dear, "default")
    wrong = {"devices": {"count": 8, "selector": "device.nonsense("}, "duration": "1h", "priceCap": {"amount": "3.00"}}
    world.put("a", CAPACITY_REQUESTS, "wrong", wrong, "default")
    strange = {"devices": {"count": 0}, "duration": "soon"}
    world.put("a", CAPACITY_REQUESTS, "strange", strange, "default")

    async def refused() -> bool:
        states = [
            (await world.status(CAPACITY_REQUESTS, name, "default")).get("state")
            for name in ("cheap", "wrong", "strange")
        ]
        return states == ["Refused"] * 3

    await eventually(refused)
    told = await world.status(CAPACITY_REQUESTS, "strange", "default")
    assert {"devices.count", "duration"} <= {each["detail"].split(":")[0] for each in told["reasons"]}
    assert "price" in str(await world.status(CAPACITY_REQUESTS, "cheap", "default"))


async def test_access_to_devices_goes_to_the_namespace_of_whoever_asked(world: World) -> None:
    world.clusters["a"].add_namespaces("team")
    spec = {
        "devices": {"count": 1},
        "duration": "1h",
        "priceCap": {"amount": "3.00"},
        "workload": {"kind": "Job", "name": "train"},
    }
    world.put("a", CAPACITY_REQUESTS, "training", spec, "team")

    async def mirrored() -> bool:
        return (await world.status(CAPACITY_REQUESTS, "training", "team")).get("step") == "mirrored"

    await eventually(mirrored)
    found = await world.clusters["a"].connect().list(DEVICE_LEASES)
    assert [each["metadata"]["namespace"] for each in found] == ["team"]


async def test_a_pod_leaves_home_within_its_policys_budget_and_comes_back(world: World) -> None:
    policy = {
        "covers": {"namespaces": ["default"]},
        "after": "0s",
        "tiers": [
            {"name": "cheap", "priceCap": {"amount": "1.00"}},
            {"name": "partner", "priceCap": {"amount": "2.50"}},
        ],
        "where": {"regions": ["eu-north-1"]},
        "budget": {"amount": "5.00"},
        "maxDuration": "2h",
    }
    world.put("a", BURST_POLICIES, "research", policy)
    a = world.clusters["a"].connect()
    await a.create(RESOURCE_CLAIMS, claim_for("home-big"))
    await a.create(PODS, pod_with("home-big"))

    async def away() -> bool:
        return [lease.state for lease in await world.leases()] == ["Active"]

    await eventually(away)
    [lease] = await world.leases()
    assert lease.policy == "research"

    await a.create(RESOURCE_CLAIMS, claim_for("home-second"))
    await a.create(PODS, pod_with("home-second"))

    async def told() -> bool:
        status = await world.status(BURST_POLICIES, "research")
        said = {each["pod"]: each["decision"] for each in status.get("pods", [])}
        return "budget" in said.get("default/home-second", "").lower()

    await eventually(told)
    status = await world.status(BURST_POLICIES, "research")
    assert status["spend"]["committed"] == "4.80"

    for name in ("home-big", "home-second"):
        await a.delete(PODS, name, namespace="default")
    await eventually(world.over)
