"""Leaving home: by an object that asks, and by a policy that asks for a pod that waits too long."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.cluster import Cluster
from tests.e2e.conftest import OpenWorld, pod
from tests.e2e.looks import left_behind
from tests.e2e.world import World, eventually

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(900)]
KINDS = "/apis/lendmesh.dev/v1alpha1"

REQUEST = """
apiVersion: lendmesh.dev/v1alpha1
kind: CapacityRequest
metadata: {name: training, namespace: default}
spec:
  devices:
    count: 8
    selector: device.attributes['gpu.nvidia.com'].productName.contains('H100')
  duration: 1h
  priceCap: {amount: "3.00"}
"""

BURST = """
apiVersion: lendmesh.dev/v1alpha1
kind: BurstPolicy
metadata: {name: research}
spec:
  covers: {namespaces: [default], podLabels: {burst: "yes"}}
  after: 1s
  tiers:
  - {name: cheap, priceCap: {amount: "1.00"}}
  - {name: partner, priceCap: {amount: "2.50"}}
  where: {regions: [eu-north-1]}
  budget: {amount: "25.00"}
  maxDuration: 2h
"""


def kind_in_a(world: World, plural: str, namespace: str | None = "default") -> list[dict[str, Any]]:
    where = f"/namespaces/{namespace}" if namespace else ""
    return list(world.clusters["a"].api.get(f"{KINDS}{where}/{plural}")["items"])


def waiting_pod(cluster: Cluster, name: str, *, devices: int) -> None:
    """A pod that the policy covers, for devices its cluster hasn't."""
    text = pod(name, devices=devices, namespace="default")
    cluster.apply(text.replace("kind: Pod\nmetadata: {", "kind: Pod\nmetadata: {labels: {burst: 'yes'}, "))


def test_an_object_asks_and_its_status_tells(open_world: OpenWorld) -> None:
    """`kubectl apply` a CapacityRequest: its status names the lease; delete it, and the lease is returned."""
    with open_world() as world:
        a = world.clusters["a"]
        eventually(lambda: world.offered_count() == 14, what="14 devices on offer")
        a.apply(REQUEST)
        status = eventually(
            lambda: (
                (found := kind_in_a(world, "capacityrequests")[0].get("status", {})).get("step") == "mirrored" and found
            ),
            what="the object's status: mirrored",
        )
        assert status["lease"] in a.kubectl("get", "capacityrequest", "-A", "-o", "wide")
        assert world.lease(status["lease"])["state"] == "Active"
        a.kubectl("delete", "capacityrequest", "training")
        eventually(lambda: world.lease(status["lease"])["state"] == "Ended", what="the lease returned")
        for cluster in world.clusters.values():
            eventually(lambda cluster=cluster: not left_behind(cluster, status["lease"]), what="nothing left behind")


def test_a_pod_that_waits_too_long_leaves_home_within_its_budget(open_world: OpenWorld) -> None:
    """The policy's tiers in order, its budget a hard stop, and home again when the pod has gone."""
    with open_world() as world:
        a = world.clusters["a"]
        eventually(lambda: world.offered_count() == 14, what="14 devices on offer")
        a.publish_gpus("a-1", count=1)
        a.apply(BURST)
        waiting_pod(a, "big", devices=4)
        lease = eventually(
            lambda: next((one for one in world.leases() if one["state"] == "Active"), None),
            what="a lease for the pod",
        )
        assert lease["policy"] == "research"
        assert len(lease["devices"]) == 4
        request = world.request_now(lease["request"])
        assert request["placement"]["tier"] == "partner"

        # 4 devices × 2 h × $2.40 = $19.20 of $25: a second one doesn't fit, and the policy says so.
        waiting_pod(a, "second", devices=2)
        policy = eventually(
            lambda: (
                (found := kind_in_a(world, "burstpolicies", None)[0].get("status", {}))
                and "budget" in str(found).lower()
                and any("budget" in str(one).lower() for one in world.requests() if one["state"] == "Refused")
                and found
            ),
            what="the policy says why not",
        )
        assert policy
        assert world.ask("policy", "show", "a", "research")["status"]["spend"]["committed"] == "19.20"

        a.kubectl("delete", "pod", "big", "--wait=false")
        eventually(lambda: world.lease(lease["id"])["state"] == "Ended", what="home again: the lease is returned")
        for cluster in world.clusters.values():
            eventually(lambda cluster=cluster: not left_behind(cluster, lease["id"]), what="nothing left behind")
