"""A namespace of one test, and the few things tests do in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.controlplane.api import until
from tests.controlplane.cluster import Cluster, CommandFailed
from tests.realnodes.manifests import Object

COLLECTIONS = {"Pod": ("/api/v1", "pods"), "ResourceClaim": ("/apis/resource.k8s.io/v1", "resourceclaims")}


@dataclass(frozen=True)
class Namespace:
    """A namespace that exists.

    :ivar kubeconfig: whose eyes logs are read with; None: the administrator's. Everything else is the administrator's.
    """

    cluster: Cluster
    name: str
    kubeconfig: Path | None = None

    @classmethod
    @contextmanager
    def fresh(cls, cluster: Cluster) -> Iterator[Self]:
        """A new one under Pod Security "restricted", as a lease's namespace is; deleted at the end, not awaited."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"kind": "Namespace", "metadata": {"generateName": "test-", "labels": labels}}
        name = cluster.api.create("/api/v1/namespaces", body)["metadata"]["name"]
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        until(lambda: cluster.api.find(account), what="the namespace's service account")
        yield cls(cluster, name)
        cluster.api.delete(f"/api/v1/namespaces/{name}")

    def path(self, kind: str, name: str = "") -> str:
        group, plural = COLLECTIONS[kind]
        return f"{group}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    def create(self, *objects: Object) -> None:
        """Create pods and claims."""
        for one in objects:
            self.cluster.api.create(self.path(one["kind"]), one)

    def running(self, pod: str) -> None:
        """Wait until the pod runs."""
        status = self._status(pod)
        until(lambda: status().get("phase") == "Running", what=f"pod {pod}, Running", within=60)

    def unschedulable(self, pod: str) -> None:
        """Wait until the scheduler has said that there is no place for the pod."""
        status = self._status(pod)

        def refused() -> bool:
            return any(condition.get("reason") == "Unschedulable" for condition in status().get("conditions", []))

        until(refused, what=f"pod {pod}, Unschedulable")

    def environment(self, pod: str) -> dict[str, str]:
        """What the pod itself says its environment is, through `kubectl logs`."""

        def log() -> str:
            try:
                return self.cluster.kubectl("logs", "-n", self.name, pod, kubeconfig=self.kubeconfig)
            except CommandFailed as error:
                # The kubelet serves a log as soon as it has noticed that the container runs.
                raise ConnectionError(error) from error

        return dict(line.split("=", 1) for line in until(log, what=f"the log of {pod}").splitlines())

    def allocated(self, claim: str) -> set[str]:
        """The devices the claim is allocated, by name."""
        status = self.cluster.api.get(self.path("ResourceClaim", claim))["status"]
        return {result["device"] for result in status["allocation"]["devices"]["results"]}

    def uid(self, claim: str) -> str:
        return str(self.cluster.api.get(self.path("ResourceClaim", claim))["metadata"]["uid"])

    def end(self, pod: str) -> None:
        """Delete the pod and wait until it is gone."""
        self.cluster.api.delete(self.path("Pod", pod))
        until(lambda: self.cluster.api.find(self.path("Pod", pod)) is None, what=f"the end of {pod}", within=60)

    def forget(self, pod: str) -> None:
        """Delete the object of a pod whose node is no more."""
        self.cluster.api.delete(self.path("Pod", pod) + "?gracePeriodSeconds=0")

    def _status(self, pod: str) -> Callable[[], Object]:
        return lambda: dict(self.cluster.api.get(self.path("Pod", pod))["status"])


def devices_named(environment: dict[str, str]) -> set[str]:
    """The devices a container's environment names, as the example driver has containers started."""
    return {device for name, device in environment.items() if name == f"GPU_DEVICE_{device.removeprefix('gpu-')}"}


def claims_named(environment: dict[str, str]) -> set[str]:
    """The uids of the claims for which the driver prepared a container's devices."""
    return {uid for name, uid in environment.items() if name.startswith("GPU_DEVICE_") and name.endswith("_CLAIM")}
