"""The agents' side of a lease, on two simulated clusters: held, lent, mirrored, and given back, whatever happens."""

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
import yaml

from broker.wire.leases import LeaseBody
from clusteragent.fences import CONFIG_MAP
from clusteragent.kube.interface import (
    CONFIG_MAPS,
    DEVICE_LEASES,
    LENDING_POLICIES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    SECRETS,
    Conflict,
    Obj,
)
from clusteragent.kube.sim import Call
from tests.agents import LEASE, NAMESPACE, POLICY, Clock, FakeBroker, Side, claim_for, pod_with

HELD = f"lendmesh-{LEASE}"


class World:
    """Cluster B lends, cluster A borrows."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = FakeBroker(self.clock)
        self.a, self.b = Side("a", self.broker), Side("b", self.broker)

    async def begin(self) -> None:
        await self.a.prepare()
        await self.b.prepare(nodes=2)
        for side in (self.a, self.b):
            await side.start()
            await side.ready()
        await self.broker.sees("b", 14)

    async def lend(self, count: int = 8) -> LeaseBody:
        body = await self.broker.grant("b", "a", count)
        await self.broker.hears("b", "held")
        await self.broker.activate(body)
        await self.broker.hears("b", "lent")
        await self.broker.hears("a", "mirrored")
        return body

    async def nothing_left(self) -> None:
        """Nothing of any lease is in either cluster, and everything is on offer again."""
        for side in (self.a, self.b):
            await side.eventually(lambda side=side: is_clean(side))
        await self.broker.sees("b", 14)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.begin()
    yield made
    for side in (made.a, made.b):
        await side.kill()


async def is_clean(side: Side) -> bool:
    kube = side.cluster.connect()
    mine = [obj for kind in (RESOURCE_CLAIMS, PODS) for obj in await kube.list(kind) if not is_home(obj)]
    mine += await kube.list(DEVICE_LEASES)
    mine += [each for each in await kube.list(SECRETS) if LEASE in each["metadata"]["name"]]
    return not mine and await side.namespaces() == set()


def is_home(obj: Obj) -> bool:
    return obj["metadata"]["name"].startswith("home")


def given(claims: list[Obj]) -> list[str]:
    """Every device that a claim has, once for each."""
    results = [each for claim in claims for each in claim["status"].get("allocation", {}).get("devices", {})["results"]]
    return [f"{each['driver']}/{each['pool']}/{each['device']}" for each in results]


async def test_a_lease_is_held_lent_mirrored_and_given_back_without_a_trace(world: World) -> None:
    body = await world.lend()
    await world.broker.end(body)
    await world.broker.hears("b", "released")
    await world.broker.hears("a", "gone")
    await world.nothing_left()


async def test_the_hold_is_exactly_the_leased_devices_and_stays_without_its_pod(world: World) -> None:
    body = await world.broker.grant("b", "a", 8)
    await world.broker.hears("b", "held")
    await world.b.eventually(lambda: no_pods(world.b))
    claims = await world.b.cluster.connect().list(RESOURCE_CLAIMS, namespace=HELD)
    assert sorted(given(claims)) == sorted(f"{each.driver}/{each.pool}/{each.name}" for each in body.devices)
    reserved = [entry for claim in claims for entry in claim["status"]["reservedFor"]]
    assert {(entry["apiGroup"], entry["resource"], entry["name"]) for entry in reserved} == {
        ("lendmesh.dev", "deviceleases", LEASE)
    }


async def no_pods(side: Side) -> bool:
    return await side.cluster.connect().list(PODS, namespace=HELD) == []


async def test_the_lenders_own_pods_cannot_get_what_is_lent(world: World) -> None:
    await world.lend()
    kube = world.b.cluster.connect()
    for number in range(10):
        await kube.create(RESOURCE_CLAIMS, claim_for(f"home-{number}"))
        await kube.create(PODS, pod_with(f"home-{number}"))
    await world.b.eventually(lambda: pods_pending(world.b, 2))
    claims = [claim for claim in await kube.list(RESOURCE_CLAIMS) if claim.get("status", {}).get("allocation")]
    assert len(given(claims)) == len(set(given(claims))) == 16


async def pods_pending(side: Side, count: int) -> bool:
    pods = await side.cluster.connect().list(PODS, namespace="default")
    return sum("nodeName" not in pod["spec"] for pod in pods) == count and len(pods) == 10


async def test_forty_devices_of_five_nodes_are_one_lease_of_five_claims() -> None:
    world = World()
    await world.a.prepare()
    await world.b.prepare(nodes=6)
    for side in (world.a, world.b):
        await side.start()
        await side.ready()
    await world.broker.sees("b", 46)
    await world.lend(40)
    lender, borrower = (side.cluster.connect() for side in (world.b, world.a))
    assert len(await lender.list(RESOURCE_CLAIMS, namespace=HELD)) == 5
    mirrored = await borrower.list(RESOURCE_CLAIMS)
    assert sorted(len(given([claim])) for claim in mirrored) == [8, 32]
    for side in (world.a, world.b):
        await side.kill()


async def test_the_borrower_gets_a_kubeconfig_for_the_leases_namespace(world: World) -> None:
    await world.lend()
    secret = await world.a.cluster.connect().get(SECRETS, f"{LEASE}-kubeconfig", "default")
    config = yaml.safe_load(base64.b64decode(secret["data"]["kubeconfig"]))
    assert config["contexts"][0]["context"]["namespace"] == HELD
    assert config["clusters"][0]["cluster"]["server"] == world.b.kube.server


async def test_a_claim_of_the_borrower_carries_the_signed_lease(world: World) -> None:
    await world.broker.grant("b", "a", 8)
    body = world.broker.members["b"].desired[LEASE].lease
    await world.broker.hears("b", "held")
    token = await world.broker.activate(body)
    await world.broker.hears("a", "mirrored")
    [claim] = await world.a.cluster.connect().list(RESOURCE_CLAIMS)
    assert claim["status"]["devices"][0]["data"]["token"] == token
    assert {each["pool"] for each in claim["status"]["allocation"]["devices"]["results"]} == {"b"}


async def test_both_sides_end_an_expired_lease_while_the_broker_is_dead(world: World) -> None:
    await world.lend()
    world.broker.down = True
    world.clock.advance(world.broker.duration - 4)
    for side in (world.a, world.b):
        assert side.agent is not None
        side.agent.look_again()
    await world.a.eventually(lambda: is_clean(world.a))
    assert await world.b.namespaces() == {HELD}, "the lender waits until exp + e"
    world.clock.advance(10)
    assert world.b.agent is not None
    world.b.agent.look_again()
    await world.b.eventually(lambda: is_clean(world.b))
    world.broker.down = False
    await world.broker.hears("b", "released")
    await world.broker.hears("a", "gone")


async def test_an_agent_that_starts_after_the_end_gives_back_though_the_broker_is_dead(world: World) -> None:
    await world.lend()
    for side in (world.a, world.b):
        await side.kill()
    world.broker.down = True
    world.clock.advance(world.broker.duration + 6)
    for side in (world.a, world.b):
        await side.start()
        await side.eventually(lambda side=side: is_clean(side))


async def test_a_lender_whose_clock_was_put_back_ends_by_the_time_that_has_passed(world: World) -> None:
    await world.lend()
    world.broker.down = True
    world.clock.monotonic_ahead += world.broker.duration + 6
    assert world.b.agent is not None
    world.b.agent.look_again()
    await world.b.eventually(lambda: is_clean(world.b))


async def test_a_device_that_local_work_took_first_is_a_conflict_and_everything_is_undone(world: World) -> None:
    kube = world.b.cluster.connect()
    world.b.kube.faults.latency_s = lambda call: 0.05 if call.kind == RESOURCE_CLAIMS and call.verb == "create" else 0
    offer = world.broker.members["b"].advert
    assert offer is not None
    granted = asyncio.create_task(world.broker.grant("b", "a", 8))
    await kube.create(RESOURCE_CLAIMS, claim_for("home-0"))
    await kube.create(PODS, pod_with("home-0", node="b-node-0"))
    body = await granted
    report = await world.broker.hears("b", "conflict")
    [taken] = given([await kube.get(RESOURCE_CLAIMS, "home-0", "default")])
    assert list(report.devices) == [taken]
    assert taken in {f"{each.driver}/{each.pool}/{each.name}" for each in body.devices}
    await world.b.eventually(lambda: is_clean(world.b))


async def test_a_node_that_misses_a_heartbeat_costs_no_lease(world: World) -> None:
    ready = {"type": "Ready", "status": "True"}
    kube = world.b.cluster.connect()
    await kube.merge(NODES, "b-node-0", {"status": {"conditions": [{**ready, "status": "Unknown"}]}}, status=True)
    pressure = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    await kube.merge(NODES, "b-node-0", {"spec": {"taints": [pressure]}})
    await world.broker.grant("b", "a", 8)
    await world.b.eventually(lambda: holding(world.b))
    assert world.broker.phase("b") is None
    await kube.merge(NODES, "b-node-0", {"spec": {"taints": []}})
    await kube.merge(NODES, "b-node-0", {"status": {"conditions": [ready]}}, status=True)
    await world.broker.hears("b", "held")


async def test_devices_that_stay_away_are_a_conflict_after_a_while(world: World) -> None:
    await world.b.cluster.connect().merge(NODES, "b-node-0", {"spec": {"unschedulable": True}})
    await world.broker.grant("b", "a", 8)
    await world.b.eventually(lambda: holding(world.b))
    world.clock.advance(11)
    assert world.b.agent is not None
    world.b.agent.look_again()
    report = await world.broker.hears("b", "conflict")
    assert len(report.devices) == 8
    await world.b.eventually(lambda: is_clean(world.b))


async def test_a_hold_that_takes_too_long_is_undone_and_refused(world: World) -> None:
    pressure = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}
    await world.b.cluster.connect().merge(NODES, "b-node-0", {"spec": {"taints": [pressure]}})
    await world.broker.grant("b", "a", 8)
    await world.b.eventually(lambda: holding(world.b))
    world.clock.advance(61)
    assert world.b.agent is not None
    world.b.agent.look_again()
    report = await world.broker.hears("b", "refused")
    assert report.reason
    await world.b.eventually(lambda: is_clean(world.b))


async def idle(side: Side) -> bool:
    assert side.agent is not None
    assert side.agent.leases is not None
    return len(side.agent.leases) == 0


async def holding(side: Side) -> bool:
    return len(await side.cluster.connect().list(PODS, namespace=HELD)) == 1


async def test_a_lease_with_an_older_fence_than_was_seen_is_refused(world: World) -> None:
    body = await world.broker.grant("b", "a", 8, fence=11)
    await world.broker.hears("b", "held")
    fences = await world.b.cluster.connect().get(CONFIG_MAPS, CONFIG_MAP, NAMESPACE)
    assert '"gpu.nvidia.com/b-node-0/gpu-7":18' in fences["data"]["fences"], "written before the hold is reported"
    await world.broker.end(body)
    await world.broker.hears("b", "released")
    await world.nothing_left()
    await world.b.kill()
    await world.b.start()
    await world.b.ready()
    await world.broker.grant("b", "a", 8, lease="lse-0000000000000002", fence=10)
    refused = await world.broker.hears("b", "refused", "lse-0000000000000002")
    assert "older fence" in refused.reason
    assert await world.b.namespaces() == set()


async def test_a_forged_lease_is_neither_lent_nor_mirrored(world: World) -> None:
    body = await world.broker.grant("b", "a", 8)
    await world.broker.hears("b", "held")
    good = await world.broker.activate(body)
    await world.broker.hears("a", "mirrored")
    header, payload, signature = good.split(".")
    forged = ".".join((header, payload, signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")))
    await world.broker.lend(body, forged, generation=2)
    for side in (world.a, world.b):
        [kept] = await side.cluster.connect().list(DEVICE_LEASES)
        assert kept["spec"]["token"] == good


async def test_deleting_the_lease_object_in_the_borrowers_cluster_returns_the_lease(world: World) -> None:
    await world.lend()
    await world.a.cluster.connect().delete(DEVICE_LEASES, LEASE, namespace="default")
    await world.broker.hears("b", "released")
    assert world.broker.returned == [LEASE]
    await world.nothing_left()


async def test_the_first_word_of_a_connection_names_every_lease(world: World) -> None:
    await world.lend()
    for side in (world.a, world.b):
        await side.kill()
        await side.start()
        await side.ready()
        [said] = world.broker.members[side.name].resyncs[-1].leases
        assert said.phase == ("mirrored" if side.name == "a" else "lent")
    assert world.broker.members["b"].resyncs[-1].highest_fence == 8


async def test_a_hold_that_the_broker_forgot_is_released(world: World) -> None:
    await world.broker.grant("b", "a", 8)
    await world.broker.hears("b", "held")
    await world.b.kill()
    del world.broker.members["b"].desired[LEASE]
    await world.b.start()
    await world.nothing_left()


async def test_a_renewed_lease_lasts_until_its_new_end_on_both_sides(world: World) -> None:
    body = await world.lend()
    world.broker.duration = 7_200
    renewed = await world.broker.activate(body, generation=2)
    for side in (world.a, world.b):
        await side.eventually(lambda side=side: keeps(side, renewed))
    world.broker.down = True
    world.clock.advance(3_700)
    for side in (world.a, world.b):
        assert side.agent is not None
        side.agent.look_again()
        await side.kill()
        await side.start()
    assert await world.b.namespaces() == {HELD}
    world.clock.advance(3_600)
    for side in (world.a, world.b):
        assert side.agent is not None
        side.agent.look_again()
        await side.eventually(lambda side=side: is_clean(side))


async def keeps(side: Side, token: str) -> bool:
    [kept] = await side.cluster.connect().list(DEVICE_LEASES)
    return bool(kept["spec"]["token"] == token)


async def test_the_borrowers_credential_is_renewed_at_half_its_life(world: World) -> None:
    await world.lend()
    kube = world.a.cluster.connect()
    before = await kube.get(SECRETS, f"{LEASE}-kubeconfig", "default")
    world.clock.advance(301)
    assert world.b.agent is not None
    world.b.agent.look_again()

    async def renewed() -> bool:
        return (await kube.get(SECRETS, f"{LEASE}-kubeconfig", "default"))["data"] != before["data"]

    await world.a.eventually(renewed)


async def test_a_lease_below_the_owners_price_of_now_is_refused_before_anything_is_held(world: World) -> None:
    dearer = {"rules": [{**POLICY["rules"][0], "price": {"amount": "2.50"}}]}
    world.broker.down = True
    world.b.cluster.put(LENDING_POLICIES, {"metadata": {"name": "idle"}, "spec": dearer})
    world.broker.down = False
    await world.broker.grant("b", "a", 8)
    refused = await world.broker.hears("b", "refused")
    assert "price" in refused.reason
    assert await world.b.namespaces() == set()


async def test_a_lease_for_a_namespace_that_is_not_there_is_refused_by_the_borrower(world: World) -> None:
    body = await world.broker.grant("b", "a", 1)
    await world.broker.hears("b", "held")
    token = await world.broker.activate(body)
    wish = world.broker.members["a"].desired[LEASE]
    other = "lse-0000000000000002"
    moved = wish.model_copy(update={"id": other, "workload_namespace": "nowhere", "token": None})
    assert token
    elsewhere = body.model_copy(update={"id": other})
    world.broker.members["b"].desired.pop(other, None)
    await world.broker.want("a", moved.model_copy(update={"lease": elsewhere, "token": world.broker.sign(elsewhere)}))
    refused = await world.broker.hears("a", "refused", other)
    assert "nowhere" in refused.reason


async def test_an_owner_who_deletes_the_leases_namespace_gets_the_devices_back(world: World) -> None:
    body = await world.lend()
    await world.b.cluster.connect().delete(NAMESPACES, HELD)
    released = await world.broker.hears("b", "released")
    assert "deleted" in released.reason
    await world.broker.end(body, "lost")
    await world.nothing_left()


async def test_pods_of_the_borrower_are_gone_before_its_claims(world: World) -> None:
    body = await world.lend()
    kube = world.b.cluster.connect()
    work = pod_with("work")
    work["metadata"]["namespace"] = HELD
    work["spec"]["resourceClaims"][0]["resourceClaimName"] = "held-0"
    await kube.create(PODS, work)

    async def runs() -> bool:
        return bool((await kube.get(PODS, "work", HELD)).get("status", {}).get("phase") == "Running")

    await world.b.eventually(runs)
    gone: list[str] = []

    async def watch(call: Call) -> None:
        if call.verb == "delete" and call.kind in (PODS, RESOURCE_CLAIMS):
            gone.append(call.kind.plural)

    world.b.kube.faults.before = watch
    await world.broker.end(body)
    await world.broker.hears("b", "released")
    assert gone == ["pods", "resourceclaims"]
    await world.nothing_left()


async def test_before_1_36_the_placeholder_stays_and_keeps_the_devices() -> None:
    world = World()
    world.b.settings = world.b.settings.model_copy(update={"keep_placeholder": True})
    await world.begin()
    body = await world.lend()
    kube = world.b.cluster.connect()
    assert [pod["metadata"]["name"] for pod in await kube.list(PODS, namespace=HELD)] == ["hold-0"]
    [claim] = await kube.list(RESOURCE_CLAIMS, namespace=HELD)
    assert {entry["resource"] for entry in claim["status"]["reservedFor"]} == {"pods"}
    await world.b.kill()
    await world.b.start()
    await world.b.ready()
    assert world.broker.members["b"].resyncs[-1].leases[0].phase == "lent"
    await world.broker.end(body)
    await world.broker.hears("b", "released")
    await world.nothing_left()
    for side in (world.a, world.b):
        await side.kill()


@pytest.mark.parametrize("side", ["lend", "borrow"])
async def test_a_cluster_that_does_not_lend_or_borrow_says_so(side: str) -> None:
    world = World()
    await world.begin()
    victim = world.b if side == "lend" else world.a
    await victim.kill()
    victim.settings = victim.settings.model_copy(update={side: False})
    await victim.start()
    await victim.ready()
    body = await world.broker.grant("b", "a", 8)
    if side == "borrow":
        await world.broker.hears("b", "held")
        await world.broker.activate(body)
    refused = await world.broker.hears(victim.name, "refused")
    assert f"does not {side}" in refused.reason
    for each in (world.a, world.b):
        await each.kill()


@pytest.mark.parametrize("after", range(1, 8))
async def test_a_hold_that_is_called_off_half_way_leaves_nothing_after_its_release(world: World, after: int) -> None:
    begun = asyncio.Event()
    made = 0

    async def slow(call: Call) -> None:
        nonlocal made
        if call.verb == "create":
            made += 1
            if made == after:
                begun.set()
            await asyncio.sleep(0.05 * (made % 4))

    async def note(call: Call) -> None:
        if call.verb == "create" and world.broker.phase("b") == "released":
            late.append(call.kind.plural)

    late: list[str] = []
    world.b.kube.faults.before, world.b.kube.faults.after = slow, note
    body = await world.broker.grant("b", "a", 8)
    await begun.wait()
    await world.broker.end(body, "cancelled")
    await world.broker.hears("b", "released")
    await world.nothing_left()
    await world.b.eventually(lambda: idle(world.b))
    assert late == []


async def test_nothing_is_lost_when_watches_break_and_calls_fail(world: World) -> None:
    for number in range(6):
        for side in (world.a, world.b):
            side.kube.faults.fail_next(ConnectionResetError("gone"), verb="create", times=number % 3)
            side.kube.faults.fail_next(Conflict(409, "Conflict", "changed"), verb="update", times=2)
        body = await world.broker.grant("b", "a", 2, lease=f"lse-000000000000001{number}", fence=100 + number * 10)
        for side in (world.a, world.b):
            side.kube.expire_watches()
        await world.broker.hears("b", "held", body.id)
        await world.broker.activate(body)
        world.b.kube.drop_watches()
        await world.broker.hears("a", "mirrored", body.id)
        await world.broker.end(body)
        await world.broker.hears("b", "released", body.id)
        await world.broker.hears("a", "gone", body.id)
        await world.nothing_left()


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("change", range(17))
async def test_a_lenders_agent_killed_at_any_change_finishes_the_job(world: World, change: int, answered: bool) -> None:
    await complete(world, world.b, change, answered=answered)


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("change", range(8))
async def test_a_borrowers_agent_killed_at_any_change_finishes_the_job(
    world: World, change: int, answered: bool
) -> None:
    await complete(world, world.a, change, answered=answered)


async def complete(world: World, victim: Side, change: int, *, answered: bool) -> None:
    """A whole lease, while the victim's agent dies at one of its changes and another takes over."""
    dead = await victim.die_at(change, answered=answered)

    async def revive() -> None:
        await dead.wait()
        await victim.start()

    reviving = asyncio.create_task(revive())
    body = await world.lend()
    claims = await world.b.cluster.connect().list(RESOURCE_CLAIMS, namespace=HELD)
    assert len(given(claims)) == len(set(given(claims))) == 8
    await world.broker.end(body)
    await world.broker.hears("b", "released")
    await world.broker.hears("a", "gone")
    await world.nothing_left()
    assert dead.is_set(), "the flow has fewer changes than this"
    await reviving
