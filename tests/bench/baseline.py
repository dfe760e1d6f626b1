"""What kube-scheduler alone needs: placeholder pods with a pinned claim of two devices each, created at once.

This is the floor for a lender cluster: our agent has the scheduler allocate every lease's devices by such a pod. The
claims are there before the clock starts, so what is timed is pods alone: from the first call that creates one to the
moment the last is seen bound to its node.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.bench.kube import Kube, Object, Seen, kube_of
from tests.controlplane.cluster import Cluster
from tests.controlplane.fixtures import NVIDIA, gpu_uuid

NAMESPACE = "bench"
CLAIMS = f"/apis/resource.k8s.io/v1/namespaces/{NAMESPACE}/resourceclaims"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DEVICES_EACH = 2


@dataclass(frozen=True)
class Baseline:
    """Seconds."""

    pods: int
    created: float
    """Until the last creation was answered: what the client took."""
    times: list[float]
    """Until each pod was bound, ascending."""

    @property
    def last(self) -> float:
        """Until all were."""
        return self.times[-1]


async def schedule(cluster: Cluster, *, nodes: list[str], gpus: int, pods: int, within: float) -> Baseline:
    """Create the pods at once and wait until all are bound; each uses two GPUs of its own, spread over the nodes.

    :raises TimeoutError: they were not all bound within so many seconds.
    """
    async with kube_of(cluster) as kube:
        await kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await _account(kube)
        pairs = [(node, first) for first in range(0, gpus, DEVICES_EACH) for node in nodes][:pods]
        if len(pairs) < pods:
            raise ValueError(f"{len(nodes)} nodes of {gpus} GPUs hold {len(pairs)} pods of {DEVICES_EACH}, not {pods}")
        await asyncio.gather(*(kube.create(CLAIMS, _claim(n, *pair)) for n, pair in enumerate(pairs)))
        async with Seen(kube, PODS, key=_bound) as bound:
            began = time.perf_counter()
            await asyncio.gather(*(kube.create(PODS, _pod(n, pair[0])) for n, pair in enumerate(pairs)))
            created = time.perf_counter() - began
            await bound.count(pods, within=within)
        return Baseline(pods=pods, created=created, times=sorted(at - began for at in bound.at.values()))


async def _account(kube: Kube) -> None:
    """Pods are refused until the namespace has its default account."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    async with asyncio.timeout(30):
        listed = await kube.list(path)
        if listed["items"]:
            return
        async for _ in kube.watch(path, since=listed["metadata"]["resourceVersion"]):
            return


def _bound(_: str, pod: Object) -> str | None:
    return str(pod["metadata"]["name"]) if pod["spec"].get("nodeName") else None


def _claim(number: int, node: str, first: int) -> Object:
    """Each device named by its UUID, as a lease's claim names it."""
    requests = [
        {
            "name": f"d{index}",
            "exactly": {
                "deviceClassName": NVIDIA,
                "allocationMode": "ExactCount",
                "count": 1,
                "selectors": [{"cel": {"expression": f"device.attributes['{NVIDIA}'].?uuid.orValue('') == '{uuid}'"}}],
            },
        }
        for index, uuid in enumerate(gpu_uuid(node, first + at) for at in range(DEVICES_EACH))
    ]
    return {"metadata": {"name": f"hold-{number}"}, "spec": {"devices": {"requests": requests}}}


def _pod(number: int, node: str) -> Object:
    """The least a pod can be, pinned to its node as a lease's placeholder is."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    pinned = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}}
    container = {
        "name": "hold",
        "image": "pause",
        "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "claims": [{"name": "devices"}]},
    }
    return {
        "metadata": {"name": f"hold-{number}"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "affinity": {"nodeAffinity": pinned},
            "containers": [container],
            "resourceClaims": [{"name": "devices", "resourceClaimName": f"hold-{number}"}],
        },
    }
