"""The whole flow on real nodes: a pod of A's really runs at B, on devices that B lent it, and then B's own pod does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.looks import left_behind
from tests.e2e.world import SYSTEM, World, eventually
from tests.realnodes import images, manifests
from tests.realnodes.lab import RealClusters
from tests.realnodes.namespace import Namespace, claims_named, devices_named
from tests.realnodes.node import DRIVER

POLICY = f"""
apiVersion: lendmesh.dev/v1alpha1
kind: LendingPolicy
metadata: {{name: everything-idle}}
spec:
  rules:
  - {{name: gpus, driver: {DRIVER}, price: {{amount: "1.00"}}, minimumRuntime: 0s}}
"""

BESIDE = {"nodeSelector": {"lendmesh.dev/nowhere": "true"}}
"""The chart's own pod waits for a node that never comes: there is no image of it here, and the agent runs beside."""

pytestmark = [pytest.mark.realnodes, pytest.mark.controlplane, pytest.mark.timeout(900)]


@pytest.fixture
def world(real_clusters: RealClusters) -> Iterator[World]:
    """A broker, and an agent at either cluster; the placeholder pods are of an image that the nodes have."""
    clusters = [real_clusters.a.cluster, real_clusters.b.cluster]
    with World(clusters) as world:
        world.start_broker()
        for cluster in clusters:
            world.join(cluster.name, values=BESIDE, env={"LENDMESH_AGENT_PLACEHOLDER_IMAGE": images.PAUSE})
        yield world
        for cluster in clusters:
            cluster.helm("uninstall", "lendmesh", "-n", SYSTEM)


def test_a_borrowers_pod_runs_on_the_devices_it_was_lent_and_after_the_return_the_lenders_own_pod_does(
    world: World, real_clusters: RealClusters, tmp_path: Path
) -> None:
    a, b = real_clusters.a.cluster, real_clusters.b.cluster
    b.apply(POLICY)
    eventually(lambda: world.offered_count() == 8, what="8 devices on offer")

    # A borrows all of B's devices; a pod of B's that wants two waits.
    lease = world.lease(world.request("--count", "8", "--duration", "15m", "--price-cap", "1.50")["lease"])
    leased = {device["name"] for device in lease["devices"]}
    assert leased == {f"gpu-{index}" for index in range(8)}
    with Namespace.fresh(b) as home:
        home.create(manifests.claim("two", count=2), manifests.workload("home", claims=["two"]))
        home.unschedulable("home")

        # The borrower comes with nothing but the kubeconfig it was given, and says so itself what it got.
        kubeconfig = tmp_path / "lease.kubeconfig"
        kubeconfig.write_text(world.cli("lease", "kubeconfig", lease["id"], "--kubeconfig", str(a.kubeconfig)))
        away = Namespace(b, f"lendmesh-{lease['id']}", kubeconfig)
        b.kubectl(
            "create", "-f", "-", stdin=json.dumps(manifests.workload("work", claims=["held-0"])), kubeconfig=kubeconfig
        )
        away.running("work")
        seen = away.environment("work")
        assert devices_named(seen) == leased
        assert claims_named(seen) == {away.uid("held-0")}

        world.cli("lease", "return", lease["id"], "--follow")
        home.running("home")
        seen = home.environment("home")
        assert devices_named(seen) == home.allocated("two")
        assert devices_named(seen) <= leased
        assert claims_named(seen) == {home.uid("two")}
        eventually(lambda: not left_behind(a, lease["id"]), what="nothing of the lease at A")
        eventually(lambda: not left_behind(b, lease["id"]), what="nothing of the lease at B")
        home.end("home")
