"""The agents' side of a lease, on two simulated clusters: held, lent, mirrored, and given back, whatever happens."""

from collections.abc import AsyncIterator

import pytest

from clusteragent.kube.interface import DEVICE_LEASES, RESOURCE_CLAIMS, SECRETS
from tests.agents import Clock, FakeBroker, Side

LEASE = "lse-0000000000000001"


class World:
    """Cluster B lends, cluster A borrows."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = FakeBroker(self.clock)
        self.a, self.b = Side("a", self.broker), Side("b", self.broker)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.a.prepare()
    await made.b.prepare(nodes=2)
    for side in (made.a, made.b):
        await side.start()
        await side.ready()
    yield made
    for side in (made.a, made.b):
        await side.kill()


async def test_a_lease_is_held_lent_mirrored_and_given_back_without_a_trace(world: World) -> None:
    await world.broker.sees("b", 14)
    body = await world.broker.grant("b", "a", 8)
    await world.broker.hears("b", "held")
    await world.broker.activate(body)
    await world.broker.hears("b", "lent")
    await world.broker.hears("a", "mirrored")
    await world.broker.end(body)
    await world.broker.hears("b", "released")
    await world.broker.hears("a", "gone")
    await world.broker.sees("b", 14)
    for side in (world.a, world.b):
        kube = side.cluster.connect()
        for kind in (RESOURCE_CLAIMS, DEVICE_LEASES):
            assert await kube.list(kind) == []
        assert [each for each in await kube.list(SECRETS) if LEASE in each["metadata"]["name"]] == []
    assert await world.b.namespaces() == set()
