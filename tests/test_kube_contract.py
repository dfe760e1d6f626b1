"""What the agent relies on in Kubernetes, asked of a simulated cluster and of a real control plane alike.

Whoever changes the simulated cluster is told here where it stops being one. Nothing polls: what is awaited is awaited
on a watch, so every test is a test of watching too.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from clusteragent.kube.interface import (
    CONFIG_MAPS,
    DEVICE_CLASSES,
    NAMESPACES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    SERVICE_ACCOUNTS,
    AlreadyExists,
    Conflict,
    Event,
    Forbidden,
    Invalid,
    Kind,
    Kube,
    NotFound,
    Obj,
)
from clusteragent.kube.real import RealKube
from clusteragent.kube.sim import SimCluster
from clusteragent.kube.sim.rules import RESOURCE_CLAIM_TEMPLATES
from tests.conftest import ControlPlanes
from tests.controlplane import fixtures
from tests.controlplane.cluster import Cluster

NODES = ("node-a", "node-b")
GPUS_A_NODE = 2
FINALIZER = "resource.kubernetes.io/delete-protection"
LEASE = {"apiGroup": "lendmesh.dev", "resource": "deviceleases", "name": "lse-1", "uid": "a-lease"}

_names = itertools.count(1)


@dataclass
class World:
    """A cluster with two nodes of two GPUs each, all free, and a namespace of the test's own."""

    kube: Kube
    namespace: str

    def named(self, name: str, **metadata: Any) -> Obj:
        return {"metadata": {"name": name, "namespace": self.namespace, **metadata}}

    async def claim(self, name: str, *, count: int = 1, selectors: tuple[str, ...] = ()) -> Obj:
        body = fixtures.claim(name, count=count, selectors=selectors)
        return await self.kube.create(RESOURCE_CLAIMS, {**body, **self.named(name)})

    async def pod(self, name: str, *claims: str, **spec: Any) -> Obj:
        body = fixtures.pod(name, claims=claims)
        return await self.kube.create(PODS, {**body, **self.named(name), "spec": {**body["spec"], **spec}})

    async def see(self, kind: Kind, name: str, condition: Callable[[Obj], Any], *, within: float = 30) -> Obj:
        """Watch until the object is there and the condition holds; return it."""

        async def watch() -> Obj:
            async with aclosing(self.kube.watch(kind, namespace=self.namespace)) as events:  # type: ignore[type-var]
                async for event in events:
                    obj = event.obj
                    if obj and obj["metadata"]["name"] == name and event.type != "DELETED" and condition(obj):
                        return obj
            raise AssertionError("a watch never ends")

        return await asyncio.wait_for(watch(), within)

    async def gone(self, kind: Kind, name: str, *, within: float = 30) -> None:
        """Watch until the object is not there."""

        async def watch() -> None:
            there, listed = False, False
            async with aclosing(self.kube.watch(kind, namespace=self.namespace)) as events:  # type: ignore[type-var]
                async for event in events:
                    if event.obj and event.obj["metadata"]["name"] == name:
                        there = event.type != "DELETED"
                    listed = listed or event.type == "LISTED"
                    if listed and not there:
                        return

        await asyncio.wait_for(watch(), within)


@pytest.fixture(scope="module")
def cluster(control_planes: ControlPlanes) -> Iterator[Cluster]:
    with control_planes.fresh("contract", nodes=NODES) as (started,):
        for node in NODES:
            started.publish_gpus(node, count=GPUS_A_NODE)
        yield started


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.controlplane)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    kube: Kube
    if request.param == "simulated":
        simulated = SimCluster("contract")
        kube = simulated.connect()
        simulated.put(DEVICE_CLASSES, fixtures.nvidia_device_class())
        for node in NODES:
            simulated.add_node(node)
            simulated.publish(fixtures.nvidia_slices(node, count=GPUS_A_NODE))
    else:
        kube = await RealKube.from_kubeconfig(request.getfixturevalue("cluster").kubeconfig)
    namespace = f"contract-{next(_names)}"
    await kube.create(NAMESPACES, {"metadata": {"name": namespace}})
    world = World(kube, namespace)
    if request.param == "real":
        await world.see(SERVICE_ACCOUNTS, "default", lambda account: True)
    yield world
    # The next test finds every device free: a claim is gone only when its devices are. Emptied by hand, because the
    # namespace controller looks only every 5 s.
    for kind in (PODS, RESOURCE_CLAIMS):
        for obj in await kube.list(kind, namespace=namespace):
            await kube.delete(kind, obj["metadata"]["name"], namespace=namespace)
    for claim in await kube.list(RESOURCE_CLAIMS, namespace=namespace):
        if "a-lease" in consumers(claim):
            await release(world, claim["metadata"]["name"])
        await world.gone(RESOURCE_CLAIMS, claim["metadata"]["name"])
    await kube.delete(NAMESPACES, namespace)
    await kube.close()


async def release(world: World, name: str) -> None:
    """Take the lease's entry out of a claim's consumers."""
    claim = await world.kube.get(RESOURCE_CLAIMS, name, world.namespace)
    claim["status"]["reservedFor"] = [one for one in claim["status"]["reservedFor"] if one != LEASE]
    await world.kube.replace(RESOURCE_CLAIMS, claim, status=True)


def running(pod: Obj) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def unschedulable(pod: Obj) -> str:
    """Why the scheduler says no; empty when it hasn't."""
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            assert condition["reason"] == "Unschedulable"
            return str(condition["message"])
    return ""


def allocation(claim: Obj) -> Any:
    return (claim.get("status") or {}).get("allocation")


def devices(claim: Obj) -> set[tuple[str, str]]:
    return {(result["pool"], result["device"]) for result in allocation(claim)["devices"]["results"]}


def consumers(claim: Obj) -> list[str]:
    return sorted(one["uid"] for one in (claim.get("status") or {}).get("reservedFor") or ())


async def test_a_cluster_says_which_kubernetes_it_is(world: World) -> None:
    assert await world.kube.version() >= (1, 36)


# -- objects -----------------------------------------------------------------------------------------------------------


async def test_what_was_created_comes_back_dressed(world: World) -> None:
    made = await world.kube.create(CONFIG_MAPS, {**world.named("a", labels={"of": "test"}), "data": {"k": "v"}})
    got = await world.kube.get(CONFIG_MAPS, "a", world.namespace)
    assert got == made
    assert got["data"] == {"k": "v"}
    assert (got["apiVersion"], got["kind"]) == ("v1", "ConfigMap")
    assert got["metadata"]["uid"]
    assert got["metadata"]["resourceVersion"]


async def test_a_list_has_what_the_labels_ask_for_and_says_what_it_is(world: World) -> None:
    for name, of in (("a", "x"), ("b", "y"), ("c", "x")):
        await world.kube.create(CONFIG_MAPS, world.named(name, labels={"of": of}))
    found = await world.kube.list(CONFIG_MAPS, namespace=world.namespace, labels={"of": "x"})
    assert sorted(obj["metadata"]["name"] for obj in found) == ["a", "c"]
    assert {(obj["apiVersion"], obj["kind"]) for obj in found} == {("v1", "ConfigMap")}
    everywhere = await world.kube.list(CONFIG_MAPS, labels={"of": "y"})
    assert [obj["metadata"]["name"] for obj in everywhere] == ["b"]


async def test_what_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await world.kube.get(PODS, "nobody", world.namespace)
    with pytest.raises(NotFound):
        await world.kube.merge(PODS, "nobody", {"metadata": {"labels": {"a": "b"}}}, namespace=world.namespace)
    with pytest.raises(NotFound):
        await world.kube.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "no-such-namespace"}})


async def test_a_name_is_taken_once(world: World) -> None:
    await world.kube.create(CONFIG_MAPS, world.named("a"))
    with pytest.raises(AlreadyExists):
        await world.kube.create(CONFIG_MAPS, world.named("a"))


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "x" * 254])
async def test_a_bad_name_is_invalid(world: World, name: str) -> None:
    with pytest.raises(Invalid):
        await world.kube.create(CONFIG_MAPS, world.named(name))


async def test_a_stale_write_is_a_conflict(world: World) -> None:
    first = await world.kube.create(CONFIG_MAPS, world.named("a"))
    await world.kube.replace(CONFIG_MAPS, {**first, "data": {"by": "one"}})
    with pytest.raises(Conflict):
        await world.kube.replace(CONFIG_MAPS, {**first, "data": {"by": "other"}})
    assert (await world.kube.get(CONFIG_MAPS, "a", world.namespace))["data"] == {"by": "one"}


async def test_a_write_meant_for_another_object_of_the_name_is_a_conflict(world: World) -> None:
    made = await world.kube.create(CONFIG_MAPS, world.named("a"))
    other = {"name": "a", "namespace": world.namespace, "uid": "another"}
    with pytest.raises(Conflict):
        await world.kube.replace(CONFIG_MAPS, {**made, "metadata": other})


async def test_a_write_that_changes_nothing_makes_no_new_version(world: World) -> None:
    made = await world.kube.create(CONFIG_MAPS, {**world.named("a"), "data": {"k": "v"}})
    again = await world.kube.replace(CONFIG_MAPS, made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_merge_changes_what_it_names_and_removes_what_it_nulls(world: World) -> None:
    await world.kube.create(CONFIG_MAPS, {**world.named("a"), "data": {"keep": "1", "change": "2", "drop": "3"}})
    patch = {"data": {"change": "4", "drop": None}}
    merged = await world.kube.merge(CONFIG_MAPS, "a", patch, namespace=world.namespace)
    assert merged["data"] == {"keep": "1", "change": "4"}


async def test_a_merge_with_a_stale_version_is_a_conflict(world: World) -> None:
    first = await world.kube.create(CONFIG_MAPS, world.named("a"))
    await world.kube.merge(CONFIG_MAPS, "a", {"data": {"k": "v"}}, namespace=world.namespace)
    stale = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"k": "w"}}
    with pytest.raises(Conflict):
        await world.kube.merge(CONFIG_MAPS, "a", stale, namespace=world.namespace)


async def test_deleting_what_is_not_there_is_no_error(world: World) -> None:
    await world.kube.delete(CONFIG_MAPS, "nobody", namespace=world.namespace)


async def test_a_delete_meant_for_another_object_of_the_name_spares_this_one(world: World) -> None:
    await world.kube.create(CONFIG_MAPS, world.named("a"))
    await world.kube.delete(CONFIG_MAPS, "a", namespace=world.namespace, uid="another")
    assert await world.kube.get(CONFIG_MAPS, "a", world.namespace)


async def test_a_finalizer_keeps_a_deleted_object_until_it_is_taken_off(world: World) -> None:
    await world.kube.create(CONFIG_MAPS, world.named("a", finalizers=["lendmesh.dev/test"]))
    await world.kube.delete(CONFIG_MAPS, "a", namespace=world.namespace)
    kept = await world.kube.get(CONFIG_MAPS, "a", world.namespace)
    assert kept["metadata"]["deletionTimestamp"]
    await world.kube.merge(CONFIG_MAPS, "a", {"metadata": {"finalizers": None}}, namespace=world.namespace)
    with pytest.raises(NotFound):
        await world.kube.get(CONFIG_MAPS, "a", world.namespace)


async def test_what_is_owned_goes_with_its_owner(world: World) -> None:
    owner = await world.kube.create(CONFIG_MAPS, world.named("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    await world.kube.create(CONFIG_MAPS, world.named("owned", ownerReferences=[reference]))
    await world.kube.delete(CONFIG_MAPS, "owner", namespace=world.namespace)
    await world.gone(CONFIG_MAPS, "owned")


async def test_what_names_an_owner_that_is_not_there_goes_too(world: World) -> None:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "no-such-uid"}
    await world.kube.create(CONFIG_MAPS, world.named("owned", ownerReferences=[reference]))
    await world.gone(CONFIG_MAPS, "owned")


async def test_a_deleted_namespace_takes_nothing_new_and_everything_with_it(world: World) -> None:
    name = f"{world.namespace}-inner"
    await world.kube.create(NAMESPACES, {"metadata": {"name": name}})
    held = {"name": "a", "namespace": name, "finalizers": ["lendmesh.dev/test"]}
    await world.kube.create(CONFIG_MAPS, {"metadata": held})
    await world.kube.delete(NAMESPACES, name)
    await world.kube.delete(NAMESPACES, name)  # once more does no harm
    with pytest.raises(Forbidden):
        await world.kube.create(CONFIG_MAPS, {"metadata": {"name": "b", "namespace": name}})
    inner = World(world.kube, name)
    await inner.see(CONFIG_MAPS, "a", lambda obj: obj["metadata"].get("deletionTimestamp"))
    await world.kube.merge(CONFIG_MAPS, "a", {"metadata": {"finalizers": None}}, namespace=name)
    await inner.gone(CONFIG_MAPS, "a")
    await World(world.kube, "").gone(NAMESPACES, name, within=60)


async def test_every_token_is_another_and_none_is_shorter_than_ten_minutes(world: World) -> None:
    await world.kube.create(SERVICE_ACCOUNTS, world.named("borrower"))
    tokens = [await world.kube.token(world.namespace, "borrower", seconds=600) for _ in range(2)]
    assert tokens[0] != tokens[1]
    with pytest.raises(Invalid):
        await world.kube.token(world.namespace, "borrower", seconds=60)
    with pytest.raises(NotFound):
        await world.kube.token(world.namespace, "nobody", seconds=600)


# -- watching ----------------------------------------------------------------------------------------------------------


async def test_a_watch_lists_says_so_and_goes_on(world: World) -> None:
    await world.kube.create(CONFIG_MAPS, world.named("old", labels={"of": "test"}))
    events: list[Event] = []
    listed = asyncio.Event()

    async def watch() -> None:
        async for event in world.kube.watch(CONFIG_MAPS, namespace=world.namespace, labels={"of": "test"}):
            events.append(event)
            if event.type == "LISTED":
                listed.set()
            if event.type == "DELETED" and event.obj and event.obj["metadata"]["name"] == "new":
                return

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(listed.wait(), 30)
    await world.kube.create(CONFIG_MAPS, world.named("unlabelled"))
    await world.kube.create(CONFIG_MAPS, world.named("new", labels={"of": "test"}))
    await world.kube.merge(CONFIG_MAPS, "new", {"data": {"k": "v"}}, namespace=world.namespace)
    # An object that ceases to match is as good as deleted, and one that comes to match as good as new.
    for label in ("other", "test"):
        await world.kube.merge(CONFIG_MAPS, "old", {"metadata": {"labels": {"of": label}}}, namespace=world.namespace)
    await world.kube.delete(CONFIG_MAPS, "new", namespace=world.namespace)
    await asyncio.wait_for(watching, 30)
    seen = [(event.type, event.obj["metadata"]["name"] if event.obj else None) for event in events]
    assert seen == [
        ("ADDED", "old"),
        ("LISTED", None),
        ("ADDED", "new"),
        ("MODIFIED", "new"),
        ("DELETED", "old"),
        ("ADDED", "old"),
        ("DELETED", "new"),
    ]
    assert all(event.obj is None or event.obj["kind"] == "ConfigMap" for event in events)


# -- claims and the scheduler ------------------------------------------------------------------------------------------


async def test_a_claim_gets_its_devices_with_the_pod_that_uses_it(world: World) -> None:
    claim = await world.claim("two", count=2)
    assert not allocation(claim)
    pod = await world.pod("user", "two")
    pod = await world.see(PODS, "user", running)
    claim = await world.kube.get(RESOURCE_CLAIMS, "two", world.namespace)
    node = pod["spec"]["nodeName"]
    assert devices(claim) == {(node, "gpu-0"), (node, "gpu-1")}
    assert claim["metadata"]["finalizers"] == [FINALIZER]
    assert claim["status"]["reservedFor"] == [{"resource": "pods", "name": "user", "uid": pod["metadata"]["uid"]}]
    assert allocation(claim)["nodeSelector"] == {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
    }


async def test_a_claim_pinned_to_a_device_gets_that_device(world: World) -> None:
    uuid = fixtures.gpu_uuid("node-b", 1)
    await world.claim("pinned", selectors=(f"device.attributes['gpu.nvidia.com'].?uuid.orValue('') == '{uuid}'",))
    await world.pod("user", "pinned")
    await world.see(PODS, "user", running)
    assert devices(await world.kube.get(RESOURCE_CLAIMS, "pinned", world.namespace)) == {("node-b", "gpu-1")}


async def test_a_selector_that_is_no_cel_is_invalid(world: World) -> None:
    with pytest.raises(Invalid):
        await world.claim("broken", selectors=("device.attributes[",))


async def test_two_claims_of_one_pod_come_from_one_node_or_not_at_all(world: World) -> None:
    uuids = [fixtures.gpu_uuid("node-a", 0), fixtures.gpu_uuid("node-b", 0)]
    for name, uuid in zip(("left", "right"), uuids, strict=True):
        await world.claim(name, selectors=(f"device.attributes['gpu.nvidia.com'].uuid == '{uuid}'",))
    await world.pod("torn", "left", "right")
    await world.see(PODS, "torn", unschedulable)
    for name in ("left", "right"):
        assert not allocation(await world.kube.get(RESOURCE_CLAIMS, name, world.namespace))


async def test_a_pod_that_finds_no_devices_says_so_and_gets_them_when_they_are_free(world: World) -> None:
    for name in ("one", "two", "late"):
        await world.claim(name, count=2)
    await world.pod("first", "one")
    await world.pod("second", "two")
    for name in ("first", "second"):
        await world.see(PODS, name, running)
    await world.pod("third", "late")
    why = unschedulable(await world.see(PODS, "third", unschedulable))
    assert why.startswith("0/2 nodes are available: 2 cannot allocate all claims.")
    await world.kube.delete(PODS, "second", namespace=world.namespace)
    await world.see(PODS, "third", running)
    assert not allocation(await world.kube.get(RESOURCE_CLAIMS, "two", world.namespace))


async def test_a_pod_waits_without_a_word_for_a_claim_that_is_not_there(world: World) -> None:
    await world.pod("early", "late")
    await world.claim("late")
    pod = await world.see(PODS, "early", running)
    assert not unschedulable(pod)


async def test_a_pod_goes_where_its_node_rules_say(world: World) -> None:
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-b"]}]}
                ]
            }
        }
    }
    await world.claim("there")
    await world.pod("by-affinity", "there", affinity=affinity)
    await world.pod("by-label", nodeSelector={"kubernetes.io/hostname": "node-b"})
    await world.pod("nowhere", nodeSelector={"kubernetes.io/hostname": "node-c"})
    for name in ("by-affinity", "by-label"):
        assert (await world.see(PODS, name, running))["spec"]["nodeName"] == "node-b"
    why = unschedulable(await world.see(PODS, "nowhere", unschedulable))
    assert why.startswith("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.")


async def test_a_claim_made_from_a_template_lives_and_dies_with_its_pod(world: World) -> None:
    spec = fixtures.claim("x")["spec"]
    await world.kube.create(RESOURCE_CLAIM_TEMPLATES, {**world.named("each"), "spec": {"spec": spec}})
    body = fixtures.pod("user", claims=["each"])
    body["spec"]["resourceClaims"] = [{"name": "each", "resourceClaimTemplateName": "each"}]
    await world.kube.create(PODS, {**body, **world.named("user")})
    pod = await world.see(PODS, "user", running)
    (made,) = await world.kube.list(RESOURCE_CLAIMS, namespace=world.namespace)
    assert pod["status"]["resourceClaimStatuses"] == [{"name": "each", "resourceClaimName": made["metadata"]["name"]}]
    assert consumers(made) == [pod["metadata"]["uid"]]
    await world.kube.delete(PODS, "user", namespace=world.namespace)
    await world.gone(RESOURCE_CLAIMS, made["metadata"]["name"])


async def test_devices_are_free_again_when_the_last_pod_has_gone(world: World) -> None:
    await world.claim("shared")
    await world.pod("one", "shared")
    await world.see(PODS, "one", running)
    await world.pod("other", "shared")
    await world.see(PODS, "other", running)
    claim = await world.kube.get(RESOURCE_CLAIMS, "shared", world.namespace)
    assert len(consumers(claim)) == 2
    await world.kube.delete(PODS, "one", namespace=world.namespace)
    claim = await world.see(RESOURCE_CLAIMS, "shared", lambda claim: len(consumers(claim)) == 1)
    assert allocation(claim)
    await world.kube.delete(PODS, "other", namespace=world.namespace)
    await world.see(RESOURCE_CLAIMS, "shared", lambda claim: not allocation(claim))


async def test_a_finished_pod_uses_nothing(world: World) -> None:
    await world.claim("used")
    await world.pod("job", "used")
    await world.see(PODS, "job", running)
    done = {"status": {"phase": "Succeeded"}}
    await world.kube.merge(PODS, "job", done, namespace=world.namespace, status=True)
    await world.see(RESOURCE_CLAIMS, "used", lambda claim: not allocation(claim) and not consumers(claim))


async def test_a_pod_ends_gracefully_and_then_is_gone(world: World) -> None:
    await world.pod("calm", terminationGracePeriodSeconds=30)
    pod = await world.see(PODS, "calm", running)
    await world.kube.delete(PODS, "calm", namespace=world.namespace, uid=pod["metadata"]["uid"])
    await world.gone(PODS, "calm")


# -- what an API server insists on -------------------------------------------------------------------------------------


async def test_what_a_claim_asks_for_never_changes(world: World) -> None:
    claim = await world.claim("fixed")
    claim["spec"]["devices"]["requests"][0]["exactly"]["count"] = 2
    with pytest.raises(Invalid):
        await world.kube.replace(RESOURCE_CLAIMS, claim)


async def test_a_pod_stays_where_it_is(world: World) -> None:
    await world.pod("settled")
    pod = await world.see(PODS, "settled", running)
    other = next(node for node in NODES if node != pod["spec"]["nodeName"])
    with pytest.raises(Invalid):
        await world.kube.merge(PODS, "settled", {"spec": {"nodeName": other}}, namespace=world.namespace)


async def test_a_status_is_changed_by_status_writes_only(world: World) -> None:
    handwritten = {"allocation": {"devices": {"results": []}}}
    body = {**fixtures.claim("plain"), **world.named("plain"), "status": handwritten}
    claim = await world.kube.create(RESOURCE_CLAIMS, body)
    assert not claim.get("status")
    await world.pod("user", "plain")
    claim = await world.see(RESOURCE_CLAIMS, "plain", allocation)
    written = await world.kube.replace(RESOURCE_CLAIMS, {**claim, "status": {}})
    assert written["status"] == claim["status"]
    labelled = {**claim, "metadata": {**claim["metadata"], "labels": {"by": "status"}}}
    written = await world.kube.replace(RESOURCE_CLAIMS, labelled, status=True)
    assert not written["metadata"].get("labels")


async def test_an_allocation_is_set_or_cleared_and_never_changed(world: World) -> None:
    await world.claim("held")
    await world.pod("user", "held")
    await world.see(PODS, "user", running)
    claim = await world.kube.get(RESOURCE_CLAIMS, "held", world.namespace)
    changed = copy.deepcopy(claim)
    changed["status"]["allocation"]["devices"]["results"][0]["device"] = "gpu-7"
    with pytest.raises(Invalid):
        await world.kube.replace(RESOURCE_CLAIMS, changed, status=True)
    cleared = copy.deepcopy(claim)
    del cleared["status"]["allocation"]
    with pytest.raises(Invalid):
        await world.kube.replace(RESOURCE_CLAIMS, cleared, status=True)


async def test_nobody_reserves_what_is_not_allocated(world: World) -> None:
    claim = await world.claim("bare")
    with pytest.raises(Invalid):
        await world.kube.replace(RESOURCE_CLAIMS, {**claim, "status": {"reservedFor": [LEASE]}}, status=True)


async def test_a_written_allocation_must_answer_a_request_of_the_claim(world: World) -> None:
    claim = await world.claim("bare")
    result = {"driver": "lendmesh.dev", "pool": "lender", "device": "d-0", "request": "not-mine"}
    with pytest.raises(Invalid):
        await world.kube.replace(
            RESOURCE_CLAIMS, {**claim, "status": {"allocation": {"devices": {"results": [result]}}}}, status=True
        )


async def test_the_api_server_takes_a_written_allocation_of_a_device_in_use(world: World) -> None:
    """Why the agent never writes allocations of real devices: nobody checks them."""
    await world.claim("rightful")
    await world.pod("user", "rightful")
    await world.see(PODS, "user", running)
    rightful = await world.kube.get(RESOURCE_CLAIMS, "rightful", world.namespace)
    thief = await world.claim("thief")
    taken = await world.kube.replace(
        RESOURCE_CLAIMS, {**thief, "status": {"allocation": rightful["status"]["allocation"]}}, status=True
    )
    assert devices(taken) == devices(rightful)


async def test_a_claim_of_our_own_driver_is_written_whole_and_stays(world: World) -> None:
    """The borrower's remote claim: allocation, our entry, and the lease beside each device, in one write."""
    claim = await world.claim("remote", count=2)
    results = [
        {"request": "gpu", "driver": "lendmesh.dev", "pool": "lender", "device": f"d-{index}"} for index in range(2)
    ]
    lease = {"driver": "lendmesh.dev", "pool": "lender", "device": "d-0", "data": {"lease": "lse-1"}}
    selector = {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "lendmesh.dev/virtual-node", "operator": "In", "values": ["lender"]}]}
        ]
    }
    status = {
        "allocation": {"devices": {"results": results}, "nodeSelector": selector},
        "reservedFor": [LEASE],
        "devices": [lease],
    }
    await world.kube.replace(RESOURCE_CLAIMS, {**claim, "status": status}, status=True)
    claim = await world.kube.get(RESOURCE_CLAIMS, "remote", world.namespace)
    assert devices(claim) == {("lender", "d-0"), ("lender", "d-1")}
    assert claim["status"]["devices"][0]["data"] == {"lease": "lse-1"}
    assert claim["status"]["reservedFor"] == [LEASE]


async def test_a_device_status_must_be_of_an_allocated_device(world: World) -> None:
    claim = await world.claim("remote")
    result = {"request": "gpu", "driver": "lendmesh.dev", "pool": "lender", "device": "d-0"}
    status = {
        "allocation": {"devices": {"results": [result]}},
        "devices": [{"driver": "lendmesh.dev", "pool": "lender", "device": "d-1"}],
    }
    with pytest.raises(Invalid):
        await world.kube.replace(RESOURCE_CLAIMS, {**claim, "status": status}, status=True)


# -- the hold ----------------------------------------------------------------------------------------------------------


async def held(world: World, name: str = "held", *, count: int = 2) -> Obj:
    """A claim held for a lease: allocated by the scheduler for a pod, kept by our entry, the pod gone."""
    await world.claim(name, count=count)
    pod = await world.pod("hold", name)
    await world.see(PODS, "hold", running)
    claim = await world.kube.get(RESOURCE_CLAIMS, name, world.namespace)
    claim["status"]["reservedFor"].append(LEASE)
    await world.kube.replace(RESOURCE_CLAIMS, claim, status=True)
    await world.kube.delete(PODS, "hold", namespace=world.namespace, uid=pod["metadata"]["uid"])
    return await world.see(RESOURCE_CLAIMS, name, lambda claim: consumers(claim) == ["a-lease"])


async def test_our_entry_keeps_the_allocation_when_the_placeholder_is_gone(world: World) -> None:
    claim = await held(world)
    assert len(devices(claim)) == 2


async def test_held_devices_go_to_nobody_else(world: World) -> None:
    claim = await held(world)
    (node,) = {pool for pool, _ in devices(claim)}
    await world.claim("home", count=2)
    await world.claim("too-much", count=2)
    await world.pod("home", "home")
    pod = await world.see(PODS, "home", running)
    assert pod["spec"]["nodeName"] != node
    await world.pod("waiting", "too-much")
    await world.see(PODS, "waiting", unschedulable)


async def test_pods_of_the_namespace_use_the_held_claim_and_leave_it_held(world: World) -> None:
    claim = await held(world)
    (node,) = {pool for pool, _ in devices(claim)}
    await world.pod("work", "held")
    pod = await world.see(PODS, "work", running)
    assert pod["spec"]["nodeName"] == node
    claim = await world.kube.get(RESOURCE_CLAIMS, "held", world.namespace)
    assert consumers(claim) == sorted(["a-lease", pod["metadata"]["uid"]])
    await world.kube.delete(PODS, "work", namespace=world.namespace)
    claim = await world.see(RESOURCE_CLAIMS, "held", lambda claim: consumers(claim) == ["a-lease"])
    assert allocation(claim)


async def test_a_pod_put_on_the_node_by_hand_joins_the_consumers(world: World) -> None:
    claim = await held(world)
    (node,) = {pool for pool, _ in devices(claim)}
    pod = await world.pod("placed", "held", nodeName=node)
    await world.see(RESOURCE_CLAIMS, "held", lambda claim: pod["metadata"]["uid"] in consumers(claim))
    await world.see(PODS, "placed", running)


async def test_a_deleted_claim_stays_held_until_our_entry_goes_and_then_serves_the_waiting(world: World) -> None:
    await held(world)
    await world.claim("home", count=2)
    await world.claim("more", count=2)
    for name in ("home", "more"):
        await world.pod(name, name)
    waiting = (await first_unschedulable(world, "home", "more"))["metadata"]["name"]
    await world.kube.delete(RESOURCE_CLAIMS, "held", namespace=world.namespace)
    claim = await world.kube.get(RESOURCE_CLAIMS, "held", world.namespace)
    assert claim["metadata"]["deletionTimestamp"]
    assert allocation(claim)
    late = {**LEASE, "name": "lse-2", "uid": "another-lease"}
    new = {**claim, "status": {**claim["status"], "reservedFor": [LEASE, late]}}
    with pytest.raises(Invalid):
        await world.kube.replace(RESOURCE_CLAIMS, new, status=True)
    await release(world, "held")
    await world.gone(RESOURCE_CLAIMS, "held")
    await world.see(PODS, waiting, running)


async def first_unschedulable(world: World, *names: str) -> Obj:
    looks = [asyncio.create_task(world.see(PODS, name, unschedulable)) for name in names]
    done, rest = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
    for look in rest:
        look.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return done.pop().result()


async def test_devices_that_are_no_longer_published_are_allocated_to_nobody(world: World) -> None:
    slices = await world.kube.list(RESOURCE_SLICES)
    assert {one["spec"]["pool"]["name"] for one in slices} == set(NODES)
    (gone,) = [one for one in slices if one["spec"]["pool"]["name"] == "node-b"]
    await world.kube.delete(RESOURCE_SLICES, gone["metadata"]["name"])
    try:
        for name in ("one", "two"):
            await world.claim(name, count=2)
            await world.pod(name, name)
        await first_unschedulable(world, "one", "two")
    finally:
        back = {"metadata": {"name": gone["metadata"]["name"]}, "spec": gone["spec"]}
        await world.kube.create(RESOURCE_SLICES, back)
    for name in ("one", "two"):
        await world.see(PODS, name, running)
