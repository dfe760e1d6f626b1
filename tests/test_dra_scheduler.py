"""Against the real kube-scheduler: what we call allocatable it allocates, and what we do not it leaves pending.

Random worlds on a real control plane (``dra_worlds``), 200 of them in one run, each on a node of its own; the seed is
printed and can be given again: ``LENDMESH_WORLDS_SEED=17 pytest tests/test_dra_scheduler.py``. And the free set: a
device is free exactly when a lone claim for it, on an untouched copy of its world, is allocated.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from broker.dra.allocator import Unsatisfiable
from broker.dra.inventory import CLAIM, CLASS, NODE, SLICE, Inventory
from broker.dra.model import Features
from lendmesh.cli import run
from tests.conftest import ControlPlanes
from tests.controlplane import fixtures
from tests.controlplane.api import Api, until
from tests.controlplane.cluster import Cluster
from tests.dra_shapes import Raw, ask, claim_of
from tests.dra_worlds import CLASSES, World, world

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(600)]

CASES, PROBED = 220, 16
PATIENCE_S = 60.0
RESOURCE = "/apis/resource.k8s.io/v1"
NAMESPACE = "worlds"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CLAIMS = f"{RESOURCE}/namespaces/{NAMESPACE}/resourceclaims"


@pytest.fixture(scope="module")
def cluster(control_planes: ControlPlanes) -> Iterator[Cluster]:
    with control_planes.fresh("worlds") as (one,):
        allowed = {"resource.kubernetes.io/admin-access": "true"}
        one.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": allowed}})
        until(lambda: one.api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"), what="the account")
        for raw in CLASSES:
            one.api.create(f"{RESOURCE}/deviceclasses", raw)
        yield one


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("LENDMESH_WORLDS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"worlds of seed {chosen}: LENDMESH_WORLDS_SEED={chosen} makes them again")
    return chosen


def _settle(cluster: Cluster, worlds: Sequence[World]) -> None:
    """Publish the worlds, with what is taken in them."""

    def publish(one: World) -> None:
        cluster.api.create("/api/v1/nodes", fixtures.node(one.node))
        for part in one.slices:
            cluster.api.create(f"{RESOURCE}/resourceslices", part)
        for claim in one.held:
            _hold(cluster.api, claim)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(publish, worlds))
        list(threads.map(cluster.wait_node, [one.node for one in worlds]))


def _hold(api: Api, claim: Raw) -> None:
    """A claim with an allocation, as if the scheduler had written it long ago."""
    results = claim["status"]["allocation"]["devices"]["results"]
    asked = [{"name": result["request"], "exactly": ask(1, device_class="any")} for result in results]
    body = {"metadata": {"name": claim["metadata"]["name"]}, "spec": {"devices": {"requests": asked}}}
    made = api.create(CLAIMS, body)
    api.replace(f"{CLAIMS}/{claim['metadata']['name']}/status", {**made, "status": claim["status"]})


def _picture(cluster: Cluster) -> Inventory:
    """Our inventory of the cluster, as it is now."""
    api, minor = cluster.api, int(cluster.api.get("/version")["minor"])
    inventory = Inventory(features=Features(foreign_counters=minor < 37))
    for kind, path in (
        (NODE, "/api/v1/nodes"),
        (CLASS, f"{RESOURCE}/deviceclasses"),
        (SLICE, f"{RESOURCE}/resourceslices"),
        (CLAIM, f"{RESOURCE}/resourceclaims"),
    ):
        for obj in api.list(path):
            inventory.put(kind, obj)
    return inventory


def _ask_scheduler(api: Api, asked: dict[str, tuple[str, list[Raw]]]) -> None:
    """For each name a pod with those claims, tied to that node."""

    def start(name: str) -> None:
        node, claims = asked[name]
        names = []
        for claim in claims:
            metadata = {"name": f"{name}-{claim['metadata']['name']}"}
            api.create(CLAIMS, {"metadata": metadata, "spec": claim["spec"]})
            names.append(metadata["name"])
        pod = fixtures.pod(name, claims=names)
        pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
        pod["spec"]["tolerations"] = [{"operator": "Exists"}]  # a busy machine may make kwok's nodes look unready
        api.create(PODS, pod)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(start, asked))


def _verdicts(api: Api, expected: dict[str, bool]) -> dict[str, bool]:
    """Whether each pod got its claims allocated, once all were looked at and what we expect to come has come.

    Allocated, not running: a pod whose devices have to be attached first waits for that with its claims allocated.
    """

    def looked_at(name: str) -> bool:
        pod = api.get(f"{PODS}/{name}")
        wanted = [one["resourceClaimName"] for one in pod["spec"]["resourceClaims"]]
        allocated = all(_allocated(api.get(f"{CLAIMS}/{claim}")) for claim in wanted)
        return allocated or (not expected[name] and _refused(pod))

    for name in sorted(expected, key=lambda name: expected[name]):
        try:
            until(partial(looked_at, name), what=f"the scheduler's verdict on {name}", within=PATIENCE_S)
        except TimeoutError:
            break  # there is no need to wait for the others: the comparison says which
    allocated = {claim["metadata"]["name"] for claim in api.list(CLAIMS) if _allocated(claim)}
    pods = {pod["metadata"]["name"]: pod["spec"]["resourceClaims"] for pod in api.list(PODS)}
    return {name: all(one["resourceClaimName"] in allocated for one in claims) for name, claims in pods.items()}


def _allocated(claim: Raw) -> bool:
    return claim.get("status", {}).get("allocation") is not None


def _refused(pod: Raw) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "PodScheduled" and one["status"] == "False" for one in conditions)


def test_the_scheduler_allocates_what_we_call_allocatable_and_leaves_the_rest(cluster: Cluster, seed: int) -> None:
    worlds = [world(seed * 1000 + number, f"w{number:03}") for number in range(CASES)]
    _settle(cluster, worlds)
    picture = _picture(cluster)
    answers = {one.node: picture.allocate(one.claims, one.node) for one in worlds}
    ours = {name: not isinstance(answer, Unsatisfiable) for name, answer in answers.items()}

    _ask_scheduler(cluster.api, {one.node: (one.node, one.claims) for one in worlds})
    theirs = _verdicts(cluster.api, ours)

    assert 0.1 < sum(ours.values()) / CASES < 0.9, "too easy or too hard to say anything"
    wrong = {name: (ours[name], theirs.get(name), getattr(answers[name], "reasons", "")) for name in ours
             if theirs.get(name) != ours[name]}  # fmt: skip
    assert wrong == {}, f"world: (we say allocatable, the scheduler allocated, our reasons); seed {seed}"


def test_a_device_is_free_exactly_when_a_lone_claim_for_it_is_allocated(cluster: Cluster, seed: int) -> None:
    copies: dict[str, tuple[World, str]] = {}  # name of a copy: (the copy, the device it is asked for)
    for number in range(PROBED):
        devices = len(set(world(seed * 1000 + number, "x", lone=True).device_names()))
        for turn in range(devices):
            node = f"p{number:02}-{turn:02}"
            copy = world(seed * 1000 + number, node, lone=True)
            copies[node] = (copy, sorted(set(copy.device_names()))[turn])
    _settle(cluster, [copy for copy, _ in copies.values()])
    picture = _picture(cluster)
    states = {str(state.id): state for state in picture.devices()}
    free = {node: states[device].state == "free" for node, (_, device) in copies.items()}

    probes = {}
    for node, (_, device) in copies.items():
        probes[node] = (node, [claim_of(ask(1, device_class="any", cel=states[device].pin), name="probe")])
    _ask_scheduler(cluster.api, probes)
    got = _verdicts(cluster.api, free)

    wrong = {device: (states[device].state, states[device].reason) for node, (_, device) in copies.items()
             if got.get(node) != free[node]}  # fmt: skip
    assert wrong == {}, f"device: (our state, our reason), and the scheduler sees it otherwise; seed {seed}"
    assert 0 < sum(free.values()) < len(free)


def test_the_inventory_of_a_real_cluster_is_shown_without_a_broker(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    _settle(cluster, [world(1, "shown", lone=True)])
    expected = {str(one.id): one.state for one in _picture(cluster).devices() if one.node == "shown"}

    assert run(["inventory", "--kubeconfig", str(cluster.kubeconfig), "-o", "json"]) == 0

    told = [one for one in json.loads(capsys.readouterr().out)["devices"] if one["node"] == "shown"]
    assert {f"{one['driver']}/{one['pool']}/{one['name']}": one["state"] for one in told} == expected
    assert run(["inventory", "--kubeconfig", str(cluster.kubeconfig)]) == 0
    assert "shown" in capsys.readouterr().out
