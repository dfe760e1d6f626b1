"""The agent's chart on a real control plane: what it lets the agent and a borrower do, what it forbids them, and that
it leaves nothing behind."""

from __future__ import annotations

import copy
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.wire.devices import Kind as DeviceKind
from broker.wire.leases import LeaseBody, LeasedDevice
from clusteragent import holding, mirroring, record
from clusteragent.kube.interface import (
    BURST_POLICIES,
    CAPACITY_REQUESTS,
    CONFIG_MAPS,
    DEVICE_CLASSES,
    DEVICE_LEASES,
    LENDING_POLICIES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_QUOTAS,
    RESOURCE_SLICES,
    ROLE_BINDINGS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Conflict,
    Forbidden,
    Invalid,
    Kind,
    Obj,
)
from clusteragent.kube.real import RealKube
from tests.charts import POSTGRES
from tests.conftest import ControlPlanes
from tests.controlplane import fixtures
from tests.controlplane.api import until
from tests.controlplane.cluster import Cluster

pytestmark = pytest.mark.controlplane

CHART = Path(__file__).parent.parent / "deploy" / "charts" / "clusteragent"
SYSTEM, ACCOUNT = "lendmesh-system", "lendmesh-agent"
VALUES = ["--set", "cluster.name=b", "--set", "broker.url=https://broker.invalid:8443"]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(control_planes: ControlPlanes) -> Iterator[Cluster]:
    with control_planes.fresh("charts", nodes=["node-a"]) as (started,):
        started.publish_gpus("node-a", count=2)
        started.helm("install", "lendmesh", str(CHART), "-n", SYSTEM, "--create-namespace", *VALUES)
        yield started


@pytest.fixture
async def admin(cluster: Cluster) -> AsyncIterator[RealKube]:
    kube = await RealKube.from_kubeconfig(cluster.kubeconfig)
    yield kube
    await kube.close()


@pytest.fixture
async def agent(cluster: Cluster) -> AsyncIterator[RealKube]:
    """The cluster with exactly the rights of the agent's account."""
    kube = await RealKube.from_kubeconfig(cluster.kubeconfig_for(SYSTEM, ACCOUNT))
    yield kube
    await kube.close()


def lease(*, devices: int = 1) -> LeaseBody:
    number = next(_numbers)
    return LeaseBody.model_validate(
        {
            "id": f"lse-0000000{number}",
            "request": "req-00000001",
            "lender": "b",
            "borrower": "a",
            "tenant": "research",
            "kind": DeviceKind(driver=fixtures.NVIDIA, model="H100"),
            "devices": [
                LeasedDevice(driver=fixtures.NVIDIA, pool="node-a", name=f"gpu-{index}", node="node-a", fence=1)
                for index in range(devices)
            ],
            "price": {"amount": "2.40"},
            "terms": {"max_duration": "1d"},
            "duration": "1h",
        }
    )


def pins(body: LeaseBody) -> dict[str, str]:
    return {
        holding.ref(device): f"device.attributes['{fixtures.NVIDIA}'].uuid == '"
        f"{fixtures.gpu_uuid('node-a', int(device.name.removeprefix('gpu-')))}'"
        for device in body.devices
    }


async def furnished(agent: RealKube, cluster: Cluster, body: LeaseBody) -> str:
    """The namespace of a lease with everything in it that the agent puts there, made with the agent's rights."""
    namespace = holding.namespace_of(body.id)
    await agent.create(NAMESPACES, holding.namespace(body.id))
    made = record.make(body, role="lender", namespace=namespace, token=None, hold_until=None)
    await agent.create(DEVICE_LEASES, made)
    await agent.create(SERVICE_ACCOUNTS, holding.account(body))
    await agent.create(ROLE_BINDINGS, holding.binding(body, role="lendmesh-borrower"))
    await agent.create(NETWORK_POLICIES, holding.isolation(body))
    for chunk in holding.chunks(body):
        await agent.create(RESOURCE_CLAIMS, holding.claim(body, chunk, pins=pins(body)))
    await agent.create(RESOURCE_QUOTAS, holding.quota(body))
    return namespace


async def update(kube: RealKube, kind: Kind, obj: Obj, **change: Any) -> None:
    """Replace the status of an object, again while others are faster."""
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    for _ in range(20):
        now = await kube.get(kind, name, namespace)
        try:
            await kube.replace(kind, {**now, "status": {**now.get("status", {}), **change}}, status=True)
        except Conflict:
            continue
        return
    raise AssertionError("never came through")


async def test_the_agent_lends_with_the_rights_of_the_chart(cluster: Cluster, agent: RealKube) -> None:
    """Every call of a hold, from the namespace to its end."""
    body = lease()
    namespace = await furnished(agent, cluster, body)
    (chunk,) = holding.chunks(body)
    node = await agent.get(NODES, "node-a")
    await agent.create(PODS, holding.pod(body, chunk, image="pause", node=node))
    claims = f"/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims"
    claim = until(
        lambda: (found := cluster.api.get(f"{claims}/{chunk.claim}")).get("status", {}).get("allocation") and found,
        what="the allocation",
    )
    assert holding.allocated_to(claim) == {f"{fixtures.NVIDIA}/node-a/gpu-0"}
    uid = (await agent.get(DEVICE_LEASES, body.id, namespace))["metadata"]["uid"]
    entry = holding.entry(body.id, uid)
    await update(agent, RESOURCE_CLAIMS, claim, reservedFor=[*claim["status"]["reservedFor"], entry])
    await agent.delete(PODS, chunk.pod, namespace=namespace)
    assert await agent.token(namespace, holding.ACCOUNT, seconds=600)
    await agent.merge(DEVICE_LEASES, body.id, {"spec": {"token": "a.b.c", "holdUntil": None}}, namespace=namespace)
    status = {"status": {"phase": "Lent", "expiresAt": "2026-11-23T12:00:00Z"}}
    await agent.merge(DEVICE_LEASES, body.id, status, namespace=namespace, status=True)
    shown = cluster.kubectl("get", "devicelease", "-A")
    assert [word for word in ("ROLE", "LENDER", "STATE", "PRICE", "EXPIRES", "AGE") if word not in shown] == []
    assert all(word in shown for word in (body.id, "lender", "Lent", "2.40", "2026-11-23T12:00:00Z"))
    await agent.delete(ROLE_BINDINGS, holding.ACCOUNT, namespace=namespace)
    await agent.delete(RESOURCE_CLAIMS, chunk.claim, namespace=namespace)
    await update(agent, RESOURCE_CLAIMS, claim, reservedFor=[])
    await agent.delete(NAMESPACES, namespace)


async def test_the_agent_borrows_with_the_rights_of_the_chart(admin: RealKube, agent: RealKube) -> None:
    body = lease(devices=2)
    made = await agent.create(
        DEVICE_LEASES, record.make(body, role="borrower", namespace="default", token="a.b.c", hold_until=None)
    )
    (part,) = mirroring.parts(body)
    claim = await agent.create(RESOURCE_CLAIMS, mirroring.claim(body, part, namespace="default"))
    entry = holding.entry(body.id, made["metadata"]["uid"])
    results = [
        {"request": mirroring.REQUEST, "driver": mirroring.DRIVER, "pool": "b", "device": f"{body.id}-{index}"}
        for index in range(2)
    ]
    shown = [{"driver": mirroring.DRIVER, "pool": "b", "device": f"{body.id}-0", "data": {"lease": body.id}}]
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": [entry], "devices": shown}
    await agent.replace(RESOURCE_CLAIMS, {**claim, "status": status}, status=True)
    secret = mirroring.secret(body, namespace="default", lease_uid=made["metadata"]["uid"])
    await agent.create(SECRETS, secret)
    patch = {"data": {"kubeconfig": "YQ=="}}
    await agent.merge(SECRETS, mirroring.secret_name(body.id), patch, namespace="default")
    with pytest.raises(Forbidden):
        await agent.get(SECRETS, mirroring.secret_name(body.id), "default")
    await agent.delete(SECRETS, mirroring.secret_name(body.id), namespace="default")
    await agent.delete(RESOURCE_CLAIMS, part.name, namespace="default")
    await agent.delete(DEVICE_LEASES, body.id, namespace="default")
    assert not await admin.list(RESOURCE_CLAIMS, namespace="default")


async def test_the_agent_reads_what_it_decides_by_and_keeps_its_own_state(agent: RealKube) -> None:
    for kind in (
        NAMESPACES, NODES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, DEVICE_CLASSES, DEVICE_LEASES, LENDING_POLICIES,
        BURST_POLICIES, CAPACITY_REQUESTS,
    ):  # fmt: skip
        await agent.list(kind)
    for kind, name in ((SECRETS, "lendmesh-agent-identity"), (CONFIG_MAPS, "lendmesh-agent-fences")):
        kept = await agent.get(kind, name, SYSTEM)
        await agent.replace(kind, {**kept, "data": {"x": "eA=="}})


async def test_the_agent_touches_nothing_that_belongs_to_no_lease(admin: RealKube, agent: RealKube) -> None:
    binding = holding.binding(lease(), role="lendmesh-borrower")
    strangers: list[tuple[Kind, Obj]] = [
        (NAMESPACES, {"metadata": {"name": "strange"}}),
        (SECRETS, {"metadata": {"name": "strange", "namespace": "default"}}),
        (SERVICE_ACCOUNTS, {"metadata": {"name": "borrower", "namespace": "default"}}),
        (RESOURCE_CLAIMS, {**fixtures.claim("strange"), "metadata": {"name": "strange", "namespace": "default"}}),
        (PODS, {**fixtures.pod("strange"), "metadata": {"name": "strange", "namespace": "default"}}),
        (ROLE_BINDINGS, {**binding, "metadata": {"name": "strange", "namespace": "default"}}),
        (RESOURCE_QUOTAS, {"metadata": {"name": "strange", "namespace": "default"}}),
        (NETWORK_POLICIES, {"metadata": {"name": "strange", "namespace": "default"}, "spec": {"podSelector": {}}}),
    ]  # fmt: skip
    for kind, obj in strangers:
        with pytest.raises(Forbidden, match="only what belongs to a lease"):
            await agent.create(kind, obj)
    await admin.create(SERVICE_ACCOUNTS, {"metadata": {"name": "borrower", "namespace": "default"}})
    with pytest.raises(Forbidden, match="only what belongs to a lease"):
        await agent.token("default", "borrower", seconds=600)
    await admin.create(SECRETS, {"metadata": {"name": "other", "namespace": "default"}})
    await admin.create(NAMESPACES, {"metadata": {"name": "other"}})
    for kind, namespace in ((SECRETS, "default"), (NAMESPACES, None)):
        with pytest.raises(Forbidden, match="only what belongs to a lease"):
            await agent.delete(kind, "other", namespace=namespace)
    labelled = {"metadata": {"labels": {"lendmesh.dev/lease": "mine-now"}}}
    with pytest.raises(Forbidden, match="only what belongs to a lease"):
        await agent.merge(SECRETS, "other", labelled, namespace="default")


async def test_the_agent_gives_nobody_more_than_the_borrowers_role(agent: RealKube, cluster: Cluster) -> None:
    body = lease()
    namespace = await furnished(agent, cluster, body)
    binding = holding.binding(body, role="cluster-admin")
    binding["metadata"]["name"] = "too-much"
    with pytest.raises(Forbidden):
        await agent.create(ROLE_BINDINGS, binding)
    with pytest.raises(Forbidden):
        await agent.token(namespace, "default", seconds=600)
    await agent.delete(NAMESPACES, namespace)


async def test_nobody_else_uses_the_class_of_held_claims(admin: RealKube) -> None:
    claim = {**fixtures.claim("sly", device_class="lendmesh-held"), "metadata": {"name": "sly", "namespace": "default"}}
    with pytest.raises(Forbidden, match="lendmesh-held"):
        await admin.create(RESOURCE_CLAIMS, claim)
    asks = claim["spec"]["devices"]["requests"][0].pop("exactly")
    asks.pop("allocationMode"), asks.pop("count")
    alternatives = [{"name": "one", "deviceClassName": fixtures.NVIDIA}, {"name": "two", **asks}]
    claim["spec"]["devices"]["requests"][0]["firstAvailable"] = alternatives
    with pytest.raises(Forbidden, match="lendmesh-held"):
        await admin.create(RESOURCE_CLAIMS, claim)


async def test_a_borrower_uses_its_claims_and_nothing_past_them(cluster: Cluster, agent: RealKube) -> None:
    body = lease()
    namespace = await furnished(agent, cluster, body)
    borrower = await RealKube.from_kubeconfig(cluster.kubeconfig_for(namespace, holding.ACCOUNT))
    good = fixtures.pod("work", claims=["held-0"])
    good["metadata"]["namespace"] = namespace
    container = good["spec"]["containers"][0]
    bad = {
        "names no node": {"nodeName": "node-a"},
        "no extended resources": {"containers": [{**container, "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        "no priority class": {"priorityClassName": "system-cluster-critical"},
        "by name": {"resourceClaims": [{"name": "held-0", "resourceClaimTemplateName": "mine"}]},
        "account borrower": {"serviceAccountName": "builder"},
        "PodSecurity": {"hostNetwork": True},
    }
    cluster.api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "builder"}})
    try:
        for why, change in bad.items():
            with pytest.raises(Forbidden, match=why):
                await borrower.create(PODS, {**copy.deepcopy(good), "spec": {**good["spec"], **change}})
        await borrower.create(PODS, good)
        assert [pod["metadata"]["name"] for pod in await borrower.list(PODS, namespace=namespace)] == ["work"]
        assert len(await borrower.list(RESOURCE_CLAIMS, namespace=namespace)) == 1
        for kind in (SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, DEVICE_LEASES):
            with pytest.raises(Forbidden):
                await borrower.list(kind, namespace=namespace)
        for kind in (PODS, NODES, NAMESPACES, RESOURCE_CLAIMS, RESOURCE_SLICES):
            with pytest.raises(Forbidden):
                await borrower.list(kind)
        claim = {**fixtures.claim("more"), "metadata": {"name": "more", "namespace": namespace}}
        with pytest.raises(Forbidden):
            await borrower.create(RESOURCE_CLAIMS, claim)
    finally:
        await borrower.close()
    await agent.delete(NAMESPACES, namespace)


GOOD: list[tuple[Kind, Obj]] = [
    (LENDING_POLICIES, {"rules": [{"name": "h100", "price": {"amount": "2.40"}, "keepBack": {"devices": 2}}]}),
    (LENDING_POLICIES, {"rules": [{"name": "never", "lend": False}], "place": {"region": "eu-north-1"}}),
    (BURST_POLICIES, {"after": "1s", "tiers": [{"name": "cheap", "priceCap": {"amount": "1.00"}}]}),
    (CAPACITY_REQUESTS, {"devices": {"count": 8}, "duration": "1h30m", "priceCap": {"amount": "3"}}),
    (
        CAPACITY_REQUESTS,
        {
            "devices": {"count": 8},
            "duration": "1h",
            "policy": "p",
            "notBefore": "2026-12-01T14:00:00Z",
            "startBy": "2026-12-01T14:00:00+01:00",
            "finishBy": "2026-12-02T00:00:00.5Z",
        },
    ),
    (
        CAPACITY_REQUESTS,
        {"devices": {"count": 8}, "duration": "1h", "priceCap": {"amount": "3"}, "interruptible": False},
    ),
    (
        CAPACITY_REQUESTS,
        {"devices": {"count": 8}, "duration": "1h", "priceCap": {"amount": "3"}, "data": {"region": "eu", "gb": 500}},
    ),
    (CAPACITY_REQUESTS, {"devices": {"count": 8, "workers": 128}, "duration": "1h", "priceCap": {"amount": "3"}}),
]
BAD: list[tuple[Kind, str, Obj]] = [
    (LENDING_POLICIES, "needs a price", {"rules": [{"name": "h100"}]}),
    (LENDING_POLICIES, "rules", {"rules": []}),
    (LENDING_POLICIES, "Duplicate", {"rules": [{"name": "a", "lend": False}, {"name": "a", "lend": False}]}),
    (LENDING_POLICIES, "amount", {"rules": [{"name": "a", "price": {"amount": "-1"}}]}),
    (LENDING_POLICIES, "currency", {"rules": [{"name": "a", "price": {"amount": "1", "currency": "EUR"}}]}),
    (LENDING_POLICIES, "percent", {"rules": [{"name": "a", "lend": False, "keepBack": {"percent": 101}}]}),
    (BURST_POLICIES, "tiers", {"tiers": []}),
    (BURST_POLICIES, "after", {"after": "90", "tiers": [{"name": "a", "priceCap": {"amount": "1"}}]}),
    (CAPACITY_REQUESTS, "the most it pays", {"devices": {"count": 8}, "duration": "1h"}),
    (CAPACITY_REQUESTS, "count", {"devices": {"count": 0}, "duration": "1h", "priceCap": {"amount": "3"}}),
    (
        CAPACITY_REQUESTS,
        "1024",
        {"devices": {"count": 8, "workers": 129}, "duration": "1h", "priceCap": {"amount": "3"}},
    ),
    (
        CAPACITY_REQUESTS,
        "finishBy",
        {"devices": {"count": 1}, "duration": "1h", "policy": "p", "finishBy": "2026-12-01T14:00:00"},
    ),
    (CAPACITY_REQUESTS, "duration", {"devices": {"count": 1}, "duration": "", "priceCap": {"amount": "3"}}),
]


def named(kind: Kind, spec: Obj) -> Obj:
    metadata = {"name": f"test-{next(_numbers)}", **({"namespace": "default"} if kind.namespaced else {})}
    return {"metadata": metadata, "spec": spec}


@pytest.mark.parametrize(("kind", "spec"), GOOD)
async def test_a_good_object_is_taken_as_it_is(admin: RealKube, kind: Kind, spec: Obj) -> None:
    made = await admin.create(kind, named(kind, spec))
    assert made["spec"] == spec


@pytest.mark.parametrize("example", ["lendingpolicy", "burstpolicy", "capacityrequest"])
def test_the_examples_in_the_docs_are_taken(cluster: Cluster, example: str) -> None:
    """With server-side validation strict, as kubectl has it: an unknown field is an error."""
    cluster.apply((CHART.parents[2] / "docs" / "examples" / f"{example}.yaml").read_text())


@pytest.mark.parametrize(("kind", "why", "spec"), BAD)
async def test_a_bad_object_is_refused_with_the_reason(admin: RealKube, kind: Kind, why: str, spec: Obj) -> None:
    with pytest.raises(Invalid, match=why):
        await admin.create(kind, named(kind, spec))


async def test_a_lease_keeps_its_parties(admin: RealKube) -> None:
    body = lease()
    kept = await admin.create(
        DEVICE_LEASES, record.make(body, role="borrower", namespace="default", token=None, hold_until=None)
    )
    with pytest.raises(Invalid, match="never changes"):
        await admin.replace(DEVICE_LEASES, {**kept, "spec": {**kept["spec"], "lender": "another"}})
    assert record.read(kept) == record.read(await admin.get(DEVICE_LEASES, body.id, "default"))


def test_an_upgrade_keeps_what_the_agent_has_filled_in(cluster: Cluster) -> None:
    path = f"/api/v1/namespaces/{SYSTEM}/secrets/lendmesh-agent-identity"
    cluster.api.patch(path, {"data": {"identity": "YQ=="}})
    cluster.helm("upgrade", "lendmesh", str(CHART), "-n", SYSTEM, *VALUES, "--set", "cluster.region=eu-north-1")
    assert cluster.api.get(path)["data"]["identity"] == "YQ=="


def test_an_uninstall_leaves_nothing(control_planes: ControlPlanes) -> None:
    with control_planes.fresh("leaving") as (cluster,):
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.api.create("/api/v1/namespaces", {"metadata": {"name": SYSTEM, "labels": restricted}})
        until(lambda: cluster.api.find(f"/api/v1/namespaces/{SYSTEM}/configmaps/kube-root-ca.crt"), what="its CA")
        until(lambda: cluster.api.find(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/default"), what="its account")
        before = everything(cluster)
        cluster.helm("install", "lendmesh", str(CHART), "-n", SYSTEM, *VALUES)
        replicas = yaml.safe_dump(POSTGRES)
        cluster.helm("install", "broker", str(CHART.parent / "broker"), "-n", SYSTEM, "-f", "-", stdin=replicas)
        for name in ("lendmesh-agent-", "lendmesh-broker-"):
            until(lambda name=name: any(pod.startswith(name) for pod in pods(cluster)), what=f"pod {name}, admitted")
        cluster.api.create("/apis/lendmesh.dev/v1alpha1/lendingpolicies", {
            "apiVersion": "lendmesh.dev/v1alpha1", "kind": "LendingPolicy", "metadata": {"name": "idle"},
            "spec": {"rules": [{"name": "all", "price": {"amount": "1"}}]},
        })  # fmt: skip
        assert len(everything(cluster)) > len(before) + 20
        cluster.helm("uninstall", "lendmesh", "broker", "-n", SYSTEM, "--wait", "--timeout", "60s")
        until(lambda: everything(cluster) == before, what="the cluster as it was")


def pods(cluster: Cluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in cluster.api.list(f"/api/v1/namespaces/{SYSTEM}/pods")]


def everything(cluster: Cluster) -> set[str]:
    """Every object there is, but for what comes and goes by itself."""
    passing = {"events", "leases", "endpointslices", "endpoints", "replicasets", "pods", "componentstatuses"}
    found = set()
    for namespaced in ("true", "false"):
        told = cluster.kubectl("api-resources", "--verbs=list", f"--namespaced={namespaced}", "-o", "name")
        kinds = [kind for kind in told.split() if kind.split(".")[0] not in passing]
        found |= set(cluster.kubectl("get", ",".join(kinds), "-A", "-o", "name", "--ignore-not-found").split())
    return found
