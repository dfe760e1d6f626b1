"""What a node promises the machine it borrows: nothing of it stays, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.controlplane.api import until
from tests.realnodes import cgroups, configs, manifests
from tests.realnodes.lab import RealClusters
from tests.realnodes.namespace import Namespace
from tests.realnodes.node import RealNode
from tests.realnodes.programs import Programs
from tests.realnodes.traces import PLACES, Traces

pytestmark = [pytest.mark.realnodes, pytest.mark.controlplane, pytest.mark.timeout(900)]

EVERY_KIND = {"cgroups", "processes", "routes"}
"""What a node with a running pod has that the machine can see; its mounts it sees alone."""


def sysctls() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text() for name in configs.SYSCTLS}


def places() -> set[str]:
    return {place for place in PLACES if Path(place).exists()}


def test_a_node_stopped_under_a_running_pod_leaves_nothing_on_the_machine(
    real_clusters: RealClusters, node_programs: Programs
) -> None:
    before = sysctls(), places()
    cluster = real_clusters.a.cluster
    pod = manifests.workload("work")
    pod["spec"]["nodeName"] = "a-2"
    with RealNode(cluster, name="a-2", programs=node_programs) as node, Namespace.fresh(cluster) as namespace:
        namespace.create(pod)
        namespace.running("work")
        traces = Traces.of(node.directory)
        while_it_ran = traces.left()
        node.stop()
        namespace.forget("work")
    cluster.api.delete("/api/v1/nodes/a-2")

    assert set(while_it_ran) == EVERY_KIND
    assert traces.left() == {}
    assert (sysctls(), places()) == before
    # The settings stayed because the node wrote files of its own: the machine may have had the same values.
    assert {f"/proc/sys/{name}" for name in configs.SYSCTLS} <= traces.own_mounts


def test_a_killed_run_leaves_nothing_on_the_machine(node_programs: Programs) -> None:
    before = sysctls(), places()
    command = [sys.executable, "-m", "tests.realnodes", "up"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        said = []
        for line in run.stdout:
            said.append(line)
            if line.startswith("ready"):
                break
        kubeconfigs = [Path(line.split(": ", 1)[1].strip()) for line in said if line.strip().startswith("kubeconfig:")]
        directories = [kubeconfig.parents[1] for kubeconfig in kubeconfigs]
        traces = [Traces.of(node) for directory in directories for node in (directory / "nodes").iterdir()]
        while_it_ran = [set(one.left()) for one in traces]
        run.send_signal(signal.SIGKILL)

    assert while_it_ran == [EVERY_KIND - {"routes"}] * 2
    until(lambda: not any(one.left() for one in traces), what="the end of both nodes")
    until(lambda: not any(directory.exists() for directory in directories), what="the end of both clusters")
    assert (sysctls(), places()) == before


def test_what_a_killed_owner_left_is_swept_and_what_a_living_one_has_is_not(node_programs: Programs) -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left, kept = cgroups.cgroup_name("left", owner=dead.pid), cgroups.cgroup_name("kept", owner=os.getpid())
    for name in (left, kept):
        cgroups.make(name)
    try:
        cgroups.sweep()
        assert not list(Path("/sys/fs/cgroup").glob(f"**/{left}"))
        assert list(Path("/sys/fs/cgroup").glob(f"**/{kept}"))
    finally:
        cgroups.remove(kept)
