"""`python -m tests.controlplane`: build the programs ahead of time, or keep real clusters up to try things on."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from tests.controlplane.cluster import CONTROL_PLANE, ClusterFailed, start_clusters
from tests.controlplane.parts import DEFAULT_RELEASE, RELEASES, TOOLS, Parts
from tests.controlplane.toolchain import CannotBuild, cache_dir

EXTRAS = ("kubectl", "kwok", "helm")


def main(argv: Sequence[str] | None = None) -> int:
    words = _parser().parse_args(argv)
    try:
        return int(words.verb(words))
    except (CannotBuild, ClusterFailed) as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1


def build(words: argparse.Namespace) -> int:
    """Build (or find) everything, and say where it is."""
    for version in RELEASES if words.all else (words.version,):
        parts = Parts(version)
        for part in (*CONTROL_PLANE, *EXTRAS):
            print(f"{version}  {part:<24} {' '.join(parts.command(part))}")
    return 0


def up(words: argparse.Namespace) -> int:
    """Start clusters, print how to reach them, and keep them up until interrupted."""
    names = [chr(ord("a") + number) for number in range(words.clusters)]
    began = time.monotonic()
    clusters = start_clusters(names, version=words.version)
    try:
        for cluster in clusters:
            nodes = [f"{cluster.name}-{number + 1}" for number in range(words.nodes)]
            cluster.add_nodes(*nodes)
            for node in nodes:
                cluster.publish_gpus(node)
        release = clusters[0].parts.release.version
        print(f"{len(clusters)} × Kubernetes {release}, ready after {time.monotonic() - began:.1f} s:\n")
        for cluster in clusters:
            print(f"  export KUBECONFIG={cluster.kubeconfig}   # cluster {cluster.name}, {cluster.server}")
        print(f"\n  {' '.join(clusters[0].parts.command('kubectl'))} get nodes,resourceslices")
        print("\nThey end, and their directories go, when this does (Ctrl-C).", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        for cluster in clusters:
            cluster.stop()
    return 0


def versions(words: argparse.Namespace) -> int:
    """Print what is built from which module version."""
    for release in RELEASES.values():
        default = "  (default)" if release.minor == DEFAULT_RELEASE else ""
        print(f"kubernetes {release.minor}  {release.version}{default}")
    for name, tool in TOOLS.items():
        print(f"{name:<15} {tool.version}")
    print(f"cache           {cache_dir()}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.controlplane",
        description="Real Kubernetes control planes without containers or root: etcd, kube-apiserver, "
        "kube-controller-manager and kube-scheduler, with nodes played by kwok.",
        epilog="LENDMESH_CACHE: where built programs are kept. KUBEBUILDER_ASSETS: a directory of prebuilt ones to "
        "use where they fit. LENDMESH_KEEP=1: keep the directories of clusters that ended.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    one = verbs.add_parser("build", help="build everything now (first time: 5 to 15 minutes on 2 cores)")
    one.add_argument("--all", action="store_true", help=f"for every Kubernetes we test on: {', '.join(RELEASES)}")
    one.set_defaults(verb=build)
    two = verbs.add_parser("up", help="start clusters, print their kubeconfigs, keep them up until Ctrl-C")
    two.add_argument("--clusters", type=int, default=2, metavar="N", help="how many (default: %(default)s)")
    two.add_argument("--nodes", type=int, default=2, metavar="N", help="nodes of 8 H100 in each (default: %(default)s)")
    two.set_defaults(verb=up)
    three = verbs.add_parser("versions", help="what is built from which version, and where it is kept")
    three.set_defaults(verb=versions)
    for verb in (one, two):
        verb.add_argument(
            "--version", choices=tuple(RELEASES), default=DEFAULT_RELEASE, help="Kubernetes (default: %(default)s)"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
