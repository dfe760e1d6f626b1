"""On real nodes: a pod gets the devices its claim was given, and a node leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.controlplane.api import until
from tests.controlplane.cluster import Cluster, CommandFailed
from tests.realnodes import manifests
from tests.realnodes.lab import RealClusters

pytestmark = [pytest.mark.realnodes, pytest.mark.controlplane]


@dataclass(frozen=True)
class Namespace:
    """A namespace of one test, and the few things a test does in it."""

    cluster: Cluster
    name: str

    def create(self, *objects: manifests.Object) -> None:
        for one in objects:
            path = {"Pod": "/api/v1", "ResourceClaim": "/apis/resource.k8s.io/v1"}[one["kind"]]
            self.cluster.api.create(f"{path}/namespaces/{self.name}/{one['kind'].lower()}s", one)

    def running(self, pod: str) -> manifests.Object:
        """Wait until the pod runs; return it."""

        def look() -> manifests.Object | None:
            seen = self.cluster.api.get(f"/api/v1/namespaces/{self.name}/pods/{pod}")
            return seen if seen["status"].get("phase") == "Running" else None

        seen = until(look, what=f"pod {pod}, Running", within=60)
        assert seen is not None
        return seen

    def environment(self, pod: str) -> dict[str, str]:
        """What the pod itself says its environment is, through `kubectl logs`."""

        def look() -> str:
            try:
                return self.cluster.kubectl("logs", "-n", self.name, pod)
            except CommandFailed as error:
                raise ConnectionError(error) from error

        return dict(line.split("=", 1) for line in until(look, what=f"the log of {pod}").splitlines())

    def allocated(self, claim: str) -> set[str]:
        """The devices the claim is allocated, by name."""
        path = f"/apis/resource.k8s.io/v1/namespaces/{self.name}/resourceclaims/{claim}"
        results = self.cluster.api.get(path)["status"]["allocation"]["devices"]["results"]
        return {result["device"] for result in results}

    def gone(self, pod: str) -> None:
        """Delete the pod and wait until it is gone."""
        path = f"/api/v1/namespaces/{self.name}/pods/{pod}"
        self.cluster.api.delete(path)
        until(lambda: self.cluster.api.find(path) is None, what=f"the end of {pod}", within=60)


@pytest.fixture
def namespace(real_clusters: RealClusters, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A fresh namespace of cluster b under Pod Security "restricted", as a lease's namespace is."""
    cluster = real_clusters.b.cluster
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = cluster.api.create(
        "/api/v1/namespaces", {"kind": "Namespace", "metadata": {"generateName": "test-", "labels": labels}}
    )
    name = made["metadata"]["name"]
    until(
        lambda: cluster.api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"),
        what="the namespace's service account",
    )
    yield Namespace(cluster, name)
    cluster.api.delete(f"/api/v1/namespaces/{name}")
    until(lambda: cluster.api.find(f"/api/v1/namespaces/{name}") is None, what=f"the end of {name}", within=60)


def devices_seen(environment: dict[str, str]) -> set[str]:
    """The devices that a container's environment names, as the example driver's CDI specs write them."""
    return {value for name, value in environment.items() if name == f"GPU_DEVICE_{value.removeprefix('gpu-')}"}


def test_a_running_pods_own_environment_names_the_devices_its_claim_was_given(namespace: Namespace) -> None:
    namespace.create(manifests.claim("two", count=2), manifests.workload("work", claims=["two"]))
    namespace.running("work")
    given = namespace.allocated("two")
    environment = namespace.environment("work")
    assert len(given) == 2
    assert devices_seen(environment) == given
    assert environment["KUBERNETES_NODE_NAME"] == "b-1" or environment["DRA_RESOURCE_DRIVER_NAME"] == "gpu.example.com"


def test_devices_given_back_are_seen_by_the_next_pod(namespace: Namespace) -> None:
    namespace.create(manifests.claim("all", count=8), manifests.workload("first", claims=["all"]))
    namespace.running("first")
    namespace.create(manifests.claim("one", count=1), manifests.workload("second", claims=["one"]))
    assert devices_seen(namespace.environment("first")) == {f"gpu-{index}" for index in range(8)}
    pending = namespace.cluster.api.get(f"/api/v1/namespaces/{namespace.name}/pods/second")
    assert pending["status"]["phase"] == "Pending"

    namespace.gone("first")
    namespace.running("second")
    assert devices_seen(namespace.environment("second")) == namespace.allocated("one")
