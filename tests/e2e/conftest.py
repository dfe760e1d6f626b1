"""The federation that most of these tests drive: A has a queue, B has two nodes of eight H100."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.conftest import ControlPlanes
from tests.controlplane.cluster import Cluster
from tests.e2e.world import World

POLICY = """
apiVersion: lendmesh.dev/v1alpha1
kind: LendingPolicy
metadata: {name: idle-h100}
spec:
  place: {region: eu-north-1, provider: onprem}
  rules:
  - name: h100
    driver: gpu.nvidia.com
    model: H100
    price: {amount: "2.40"}
    keepBack: {devices: 2}
    minDuration: 1s
    maxDuration: 24h
    minimumRuntime: 0s
    reclaimNotice: 1s
"""

OpenWorld = Callable[..., AbstractContextManager[World]]


def furnish_lender(cluster: Cluster, *, nodes: int = 2) -> None:
    """Nodes of eight H100 each, and B's own namespace."""
    names = [f"b-{number}" for number in range(1, nodes + 1)]
    cluster.add_nodes(*names)
    for name in names:
        cluster.publish_gpus(name)
    cluster.kubectl("create", "namespace", "home")


@pytest.fixture
def open_world(control_planes: ControlPlanes) -> OpenWorld:
    """Opens a world of real control planes: `with open_world() as world`."""

    @contextmanager
    def opened(
        *,
        version: str | None = None,
        nodes: int = 2,
        policy: str | None = POLICY,
        broker_env: dict[str, str] | None = None,
        agent_env: dict[str, str] | None = None,
        **how: Any,
    ) -> Iterator[World]:
        with control_planes.fresh("a", "b", version=version, **how) as (a, b):
            a.add_nodes("a-1")
            furnish_lender(b, nodes=nodes)
            with World([a, b], broker_env=broker_env) as world:
                world.start_broker()
                for name in ("a", "b"):
                    world.join(name, env=agent_env)
                if policy is not None:
                    b.apply(policy)
                yield world

    return opened


def pod(name: str, *, devices: int = 1, namespace: str = "home", node: str | None = None) -> str:
    """A pod with a claim of its own for some GPUs, as a user of the cluster would write it."""
    select = f"\n  nodeSelector: {{kubernetes.io/hostname: {node}}}" if node else ""
    return f"""
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{devices: {{requests: [{{name: gpus, exactly: {{deviceClassName: gpu.nvidia.com, count: {devices}}}}}]}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}}}
spec:{select}
  containers: [{{name: work, image: work, resources: {{claims: [{{name: gpus}}]}}}}]
  resourceClaims: [{{name: gpus, resourceClaimName: {name}}}]
"""
