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


def prepare(version: str = DEFAULT_RELEASE) -> tuple[Parts, Programs]:
    """Build what is not in the cache yet, so that nothing is built while clusters run.

    :raises CannotBuild: a program cannot be built; the text is one line.
    """
    parts = Parts(version)
    parts.prepare(*CONTROL_PLANE, "kubelet", "kubectl")
    return parts, programs()


@contextmanager
def real_clusters(*, version: str = DEFAULT_RELEASE, devices: int = 8) -> Iterator[RealClusters]:
    """Start clusters `a` and `b`, each with a node (`a-1`, `b-1`) that publishes `devices` GPUs; end both at the end.

    :param version: the Kubernetes minor version.
    :raises CannotBuild: a program cannot be built; the text is one line.
    :raises NodeFailed, ClusterFailed: something did not come up; the text says what, and where its log is.
    """
    parts, built = prepare(version)
    with ExitStack() as ending:
        clusters = start_clusters(["a", "b"], parts=parts, kwok=False)
        for cluster in clusters:
            ending.callback(cluster.stop)
        nodes = [RealNode(cluster, name=f"{cluster.name}-1", programs=built, devices=devices) for cluster in clusters]
        with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
            list(pool.map(RealNode.start, nodes))
        yield RealClusters(*(RealCluster(cluster, node) for cluster, node in zip(clusters, nodes, strict=True)))
