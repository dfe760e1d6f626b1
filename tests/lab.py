"""`make lab`: two clusters with real nodes, a broker and both agents, to walk a loan by hand; Ctrl-C ends everything.

A lends to nobody and has a queue, B has a node with eight devices of the DRA example driver and lends them for a
dollar. With `--kwok` the nodes are played by kwok, which needs neither root nor runc: everything but the pods is real.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane import fixtures
from tests.controlplane.cluster import Cluster, ClusterFailed, start_clusters
from tests.controlplane.parts import DEFAULT_RELEASE, RELEASES, Parts
from tests.controlplane.toolchain import CannotBuild
from tests.e2e.world import ROOT, World, eventually
from tests.realnodes import images, manifests
from tests.realnodes.lab import real_clusters
from tests.realnodes.node import DRIVER, NodeFailed
from tests.realnodes.programs import missing

ENDS = {signal.SIGINT, signal.SIGTERM}
PRICE = "1.00"
BESIDE = {"nodeSelector": {"lendmesh.dev/nowhere": "true"}}
"""The chart's own pod waits for a node that never comes: there is no image of it here, and the agent runs beside."""


@dataclass(frozen=True)
class Stage:
    """What differs between real and played nodes."""

    a: Cluster
    b: Cluster
    devices: int
    driver: str
    pod: dict[str, Any]
    """The borrower's, using the held claim."""
    runs: bool
    """Its container really runs, and has a log."""
    agent: dict[str, str]
    values: dict[str, Any]


@contextmanager
def real_stage(*, version: str, devices: int) -> Iterator[Stage]:
    with real_clusters(version=version, devices=devices) as clusters:
        yield Stage(
            clusters.a.cluster,
            clusters.b.cluster,
            devices=devices,
            driver=DRIVER,
            pod=manifests.workload("work", claims=["held-0"]),
            runs=True,
            agent={"LENDMESH_AGENT_PLACEHOLDER_IMAGE": images.PAUSE},
            values=BESIDE,
        )


@contextmanager
def played_stage(*, version: str, devices: int) -> Iterator[Stage]:
    with ExitStack() as ending:
        a, b = start_clusters(["a", "b"], parts=Parts(version))
        for cluster in (a, b):
            ending.callback(cluster.stop)
        a.add_nodes("a-1")
        b.add_nodes("b-1")
        b.publish_gpus("b-1", count=devices)
        yield Stage(
            a,
            b,
            devices=devices,
            driver=fixtures.NVIDIA,
            pod=fixtures.pod("work", claims=["held-0"]),
            runs=False,
            agent={},
            values={},
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kwok", action="store_true", help="nodes played by kwok: no root, no runc, pods only look alive"
    )
    parser.add_argument("--k8s-version", choices=tuple(RELEASES), default=DEFAULT_RELEASE)
    parser.add_argument("--devices", type=int, default=8, help="of the lender's node (default: %(default)s)")
    chosen = parser.parse_args()
    if not chosen.kwok and (lacking := missing()):
        print(f"{lacking}; without: make lab ARGS=--kwok", file=sys.stderr)
        return 2
    stage = played_stage if chosen.kwok else real_stage
    try:
        with stage(version=chosen.k8s_version, devices=chosen.devices) as staged:
            return run(staged)
    except (CannotBuild, ClusterFailed, NodeFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(stage: Stage) -> int:
    """Bring up broker and agents, say what to type, and stay until SIGINT or SIGTERM."""
    with World([stage.a, stage.b]) as world:
        print("the broker …", flush=True)
        world.start_broker()
        for cluster in (stage.a, stage.b):
            print(f"the agent of {cluster.name} …", flush=True)
            world.join(cluster.name, values=stage.values, env=stage.agent)
        stage.b.apply(yaml.safe_dump(policy(stage.driver)))
        eventually(lambda: world.offered_count() == stage.devices, what=f"{stage.devices} devices on offer")
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        print(welcome(stage, furnish(world, stage)), flush=True)
        while signal.sigtimedwait(ENDS, 1) is None:
            for part, code in world.keeper.exited().items():
                print(f"{part} ended with {code}; its log: {world.directory / part}.log", file=sys.stderr)
                return 1
    return 0


def policy(driver: str) -> dict[str, Any]:
    """Everything of B's driver, for a dollar."""
    rule = {
        "name": "everything-idle",
        "driver": driver,
        "price": {"amount": PRICE},
        "minDuration": "1s",
        "minimumRuntime": "0s",
    }
    return {
        "apiVersion": "lendmesh.dev/v1alpha1",
        "kind": "LendingPolicy",
        "metadata": {"name": "everything-idle"},
        "spec": {"rules": [rule]},
    }


def furnish(world: World, stage: Stage) -> Path:
    """Write the commands and the settings a person needs to a directory that goes with the world; its path."""
    home = world.directory / "lab"
    programs = home / "bin"
    programs.mkdir(parents=True)
    kubectl = stage.a.parts.command("kubectl")
    _program(programs / "kubectl", kubectl)
    for cluster in (stage.a, stage.b):
        _program(programs / f"k{cluster.name}", [*kubectl, "--kubeconfig", str(cluster.kubeconfig)])
    _program(programs / "lendmesh", ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "lendmesh"])
    (home / "pod.yaml").write_text(yaml.safe_dump(stage.pod, sort_keys=False))
    settings = {
        "LENDMESH_URL": world.url,
        "LENDMESH_TOKEN": world.token,
        "LENDMESH_CA": str(world.ca),
        "A": str(stage.a.kubeconfig),
        "B": str(stage.b.kubeconfig),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    lines += [f"export PATH={shlex.quote(str(programs))}:$PATH", f"cd {shlex.quote(str(home))}"]
    newest = """awk '$1 == "-" && $2 == "id:" {id = $3} END {print id}'"""
    lines += ["# the id of the newest lease that is active"]
    lines += [f"lease() {{ lendmesh leases --state Active -o yaml | {newest}; }}"]
    (home / "env").write_text("\n".join(lines) + "\n")
    (home / "env").chmod(0o600)
    return home


def _program(path: Path, argv: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    path.chmod(0o755)


def steps(stage: Stage) -> list[tuple[str, str]]:
    """What to type, in order, and what it shows."""
    log = [("kubectl --kubeconfig lease.kubeconfig logs work | grep GPU_DEVICE", "it sees the devices it was lent")]
    return [
        ("lendmesh offers", "what B lends"),
        ("lendmesh request --cluster a --count 2 --duration 15m --price-cap 1.50", "A borrows two"),
        ("ka get devicelease,resourceclaims -A", "the remote claim, with A"),
        ("kb get devicelease,resourceclaims -A", "the owning claim, with B"),
        ('lendmesh lease kubeconfig $(lease) --kubeconfig "$A" > lease.kubeconfig', "the borrower's way in"),
        ("kubectl --kubeconfig lease.kubeconfig create -f pod.yaml", "a pod of A's, at B"),
        (
            "kubectl --kubeconfig lease.kubeconfig wait --for=condition=Ready pod/work --timeout=60s",
            "B's scheduler gives it the held claim",
        ),
        *(log if stage.runs else []),
        ("lendmesh lease return $(lease) --follow", "and back"),
        ("lendmesh offers", "all of them again"),
    ]


def welcome(stage: Stage, home: Path) -> str:
    lines = [
        "",
        f"Cluster a borrows:  {stage.a.kubeconfig}",
        f"Cluster b lends:    {stage.b.kubeconfig}  ({stage.devices} × {stage.driver}, ${PRICE} an hour each)",
        "" if stage.runs else "Nodes are played by kwok: pods are scheduled and look as if they ran, but have no log.",
        "In another terminal:",
        "",
        f"  . {home / 'env'}    # lendmesh, kubectl, ka and kb (kubectl for a and b), $A, $B",
        "",
    ]
    typed = steps(stage)
    lines += [line for command, shows in typed for line in (f"  {command}", f"      # {shows}")]
    return "\n".join([*lines, "", f"Logs: {home.parent}/*.log. Ctrl-C here ends everything and leaves nothing behind."])


if __name__ == "__main__":
    sys.exit(main())
