"""A device is never in two live leases, because a unique partial index says so and nothing else does.

64 clients plan with one and the same stale snapshot, in which everything is free, and commit through the broker's own
reserve path at once. The last test drops the index and sees the very same race sell devices twice: were the promise
kept by anything else, that test would fail.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from broker.service.broker import Broker
from broker.service.placing import Round
from broker.store.unit import Unit
from tests.world import Counter, World, devices, offer, pair, wish, world

CLIENTS = 64
DEVICES = 16


def twice_sold(unit: Unit) -> int:
    """Devices in more than one live lease, counted in the database itself."""
    query = text("SELECT ref FROM lease_devices WHERE live = :yes GROUP BY ref HAVING count(*) > 1")
    return len(unit.ask(query, {"yes": True}).all())


def live_rows(unit: Unit) -> int:
    return int(unit.ask(text("SELECT count(*) FROM lease_devices WHERE live = :yes"), {"yes": True}).scalar_one())


async def race(here: World, brokers: list[Broker]) -> list[Round]:
    """Everybody plans with the same stale snapshot and commits at once."""
    dice = random.Random(64)
    await pair(here, offer(devices("n1", "n2")))
    user = await here.user("team-a")
    for _ in range(CLIENTS):
        await here.broker.submit(user, wish(count=dice.randint(1, 8)))
    opened, snapshot, policies, spent = await here.store.read(here.broker.look)
    assert len(opened) == CLIENTS
    assert sum(snapshot.shelf(name).free() for name in snapshot.shown) == DEVICES

    async def client(number: int) -> Round:
        broker = brokers[number % len(brokers)]
        plan = broker.plan([opened[number]], snapshot, policies, spent)
        grants, others = broker.sort_out([opened[number]], plan, snapshot)
        assert len(grants) == 1
        return await broker.store.write(lambda unit: broker.commit(unit, grants, others, snapshot))

    return list(await asyncio.gather(*(client(number) for number in range(CLIENTS))))


async def test_64_racing_clients_never_get_a_device_twice(here: World) -> None:
    rounds = await race(here, [here.broker])
    placed = [name for round_ in rounds for name in round_.placed]
    lost = [name for round_ in rounds for name in round_.lost]
    assert placed
    assert lost
    assert len(placed) + len(lost) == CLIENTS
    assert await here.store.read(twice_sold) == 0
    assert 0 < await here.store.read(live_rows) <= DEVICES

    await here.broker.place()
    assert await here.store.read(twice_sold) == 0


@pytest.mark.postgres
async def test_clients_of_several_brokers_on_one_database_never_get_a_device_twice(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        ids = Counter()
        worlds = [await stack.enter_async_context(world(postgres_url, ids=ids)) for _ in range(4)]
        rounds = await race(worlds[0], [each.broker for each in worlds])
        assert any(round_.lost for round_ in rounds)
        assert await worlds[0].store.read(twice_sold) == 0
        assert 0 < await worlds[0].store.read(live_rows) <= DEVICES


async def test_the_same_race_sells_devices_twice_once_the_index_is_dropped(here: World) -> None:
    await here.store.write(lambda unit: unit.change(text("DROP INDEX uq_lease_devices_live")))
    await race(here, [here.broker])
    assert await here.store.read(twice_sold) > 0
