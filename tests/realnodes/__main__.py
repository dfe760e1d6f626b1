"""`python -m tests.realnodes up`: two clusters with a real node each, to look at by hand; Ctrl-C ends them."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys

from tests.controlplane.cluster import ClusterFailed
from tests.controlplane.parts import DEFAULT_RELEASE, RELEASES
from tests.controlplane.toolchain import CannotBuild
from tests.realnodes import images
from tests.realnodes.lab import real_clusters
from tests.realnodes.node import DRIVER, NodeFailed
from tests.realnodes.programs import missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.realnodes", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start two clusters with a real node each, and wait")
    up.add_argument("--k8s-version", choices=tuple(RELEASES), default=DEFAULT_RELEASE)
    up.add_argument("--devices", type=int, default=8, help="fake GPUs per node (default: %(default)s)")
    verbs.add_parser("check", help="say what this machine lacks for real nodes")
    chosen = parser.parse_args()
    if lacking := missing():
        print(lacking, file=sys.stderr)
        return 1
    if chosen.verb == "check":
        return 0
    try:
        return bring_up(version=chosen.k8s_version, devices=chosen.devices)
    except (CannotBuild, ClusterFailed, NodeFailed) as error:
        print(error, file=sys.stderr)
        return 1


def bring_up(*, version: str, devices: int) -> int:
    """Start both, say how to use them, and stay until SIGINT or SIGTERM."""
    ends = {signal.SIGINT, signal.SIGTERM}
    with real_clusters(version=version, devices=devices) as clusters:
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        for real in (clusters.a, clusters.b):
            cluster = real.cluster
            kubectl = shlex.join([*cluster.parts.command("kubectl"), "--kubeconfig", str(cluster.kubeconfig)])
            print(f"cluster {cluster.name}: node {real.node.name}, {devices} devices of {DRIVER}")
            print(f"  kubeconfig: {cluster.kubeconfig}")
            print(f"  {kubectl} get nodes,resourceslices")
        print(f"images on the nodes (imagePullPolicy: Never): {images.PAUSE}, {images.WORKLOAD}")
        print("ready; Ctrl-C ends both", flush=True)
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
