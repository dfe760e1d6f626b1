"""On real nodes a pod gets the devices its claim was given: it says so itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controlplane.cluster import SLICES
from tests.realnodes import manifests
from tests.realnodes.lab import RealClusters
from tests.realnodes.namespace import Namespace, claims_named, devices_named

pytestmark = [pytest.mark.realnodes, pytest.mark.controlplane, pytest.mark.timeout(900)]


@pytest.fixture
def namespace(real_clusters: RealClusters) -> Iterator[Namespace]:
    """A fresh namespace of cluster b."""
    with Namespace.fresh(real_clusters.b.cluster) as namespace:
        yield namespace


def test_no_two_nodes_have_the_same_device(real_clusters: RealClusters) -> None:
    slices = [
        one
        for real in (real_clusters.a, real_clusters.b)
        for one in real.cluster.api.list(SLICES, fieldSelector=f"spec.nodeName={real.node.name}")
    ]
    devices = [device for one in slices for device in one["spec"]["devices"]]
    assert len({device["attributes"]["uuid"]["string"] for device in devices}) == len(devices) == 16


def test_a_running_pods_own_environment_names_the_devices_its_claim_was_given(namespace: Namespace) -> None:
    namespace.create(manifests.claim("two", count=2), manifests.workload("work", claims=["two"]))
    namespace.running("work")
    given = namespace.allocated("two")
    environment = namespace.environment("work")
    assert len(given) == 2
    assert devices_named(environment) == given
    assert claims_named(environment) == {namespace.uid("two")}
    assert environment["KUBERNETES_NODE_NAME"] == "b-1"
    namespace.end("work")


def test_devices_given_back_are_named_to_the_pod_that_waited_for_them(namespace: Namespace) -> None:
    namespace.create(manifests.claim("all", count=8), manifests.workload("first", claims=["all"]))
    namespace.running("first")
    assert devices_named(namespace.environment("first")) == {f"gpu-{index}" for index in range(8)}
    namespace.create(manifests.claim("one", count=1), manifests.workload("second", claims=["one"]))
    namespace.unschedulable("second")

    namespace.end("first")
    namespace.cluster.api.delete(namespace.path("ResourceClaim", "all"))
    namespace.running("second")
    assert devices_named(namespace.environment("second")) == namespace.allocated("one")
    namespace.end("second")
