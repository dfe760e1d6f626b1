"""Two clusters with a real node each: what the tests of this directory start, and what a person walks through."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.controlplane.cluster import CONTROL_PLANE, Cluster, start_clusters
from tests.controlplane.parts import DEFAULT_RELEASE, Parts
from tests.realnodes.node import RealNode
from tests.realnodes.programs import Programs, programs


@dataclass(frozen=True)
class RealCluster:
    """A control plane and its one real node."""

    cluster: Cluster
    node: RealNode


@dataclass(frozen=True)
class RealClusters:
    """The borrower `a` and the lender `b` of every story told with them."""

    a: RealCluster
    b: RealCluster


@contextmanager
def real_clusters(*, version: str = DEFAULT_RELEASE, devices: int = 8) -> Iterator[RealClusters]:
    """Start clusters `a` and `b`, each with one real node; end both at the end. As `join_nodes`, and:

    :param version: the Kubernetes minor version.
    :raises CannotBuild: a program cannot be built; the text is one line.
    :raises ClusterFailed: a control plane did not come up; the text says what, and where its log is.
    """
    parts, built = Parts(version), programs()
    parts.prepare(*CONTROL_PLANE, "kubelet", "kubectl")
    with ExitStack() as ending:
        clusters = start_clusters(["a", "b"], parts=parts, kwok=False)
        for cluster in clusters:
            ending.callback(cluster.stop)
        yield RealClusters(*join_nodes(*clusters, programs=built, devices=devices))


def join_nodes(*clusters: Cluster, programs: Programs, devices: int = 8) -> list[RealCluster]:
    """Start a node `<cluster>-1` with `devices` GPUs in each of the clusters, side by side; they end with them.

    :raises NodeFailed: a node did not come up; the text says why, and where its logs are.
    """
    nodes = [RealNode(cluster, name=f"{cluster.name}-1", programs=programs, devices=devices) for cluster in clusters]
    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        list(pool.map(RealNode.start, nodes))
    return [RealCluster(cluster, node) for cluster, node in zip(clusters, nodes, strict=True)]
