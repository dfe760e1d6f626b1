"""The demo: the first thing anybody sees works, ends as it says, and leaves nothing; in a pipe and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ControlPlanes
from tests.controlplane.cluster import Cluster
from tests.e2e.conftest import furnish_lender
from tests.e2e.world import ROOT

DEMO = [sys.executable, "-m", "lendmesh", "demo"]
PROMISED = (
    "1 · Inventory",
    "2 · Offers",
    "3 · Placement",
    "4 · The lease",
    "5 · Two claims",
    "6 · Return",
    "7 · Expiry",
    "8 · No, because",
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No settings of whoever runs the tests, and a place for temporary files that can be looked through."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LENDMESH_")}
    return {
        **kept,
        "TMPDIR": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLUMNS": "",
        "TERM": "xterm",
    }


def demo(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_once_shows_everything_it_promises_ends_with_0_and_leaves_no_files(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = demo("--once", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [done.stdout.index(title) for title in PROMISED] == sorted(done.stdout.index(title) for title in PROMISED)
    assert "\x1b" not in done.stdout  # a pipe gets no colours
    assert re.search(r"^✔ verified +lse-\w+: aurora lends 8 × NVIDIA H100 80GB HBM3 to cirrus", done.stdout, re.M)
    assert re.search(r"^✘ not verified +with one byte more", done.stdout, re.M)
    assert re.search(r"^aurora \(owning\) +lendmesh-lse-\w+ +held-0 +allocated, reserved", done.stdout, re.M)
    assert re.search(r"^cirrus \(remote\) +default +lse-\w+-0 +allocated, reserved", done.stdout, re.M)
    assert done.stdout.count("✔ nothing of the lease is left") == 2
    assert "It would fit with\n  price cap $2.40 → aurora" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_nobody_returns_ends_as_expired(environment: dict[str, str]) -> None:
    done = demo("--once", env=environment)
    expiry = done.stdout[done.stdout.index("7 · Expiry") : done.stdout.index("8 · No")]
    assert re.search(r"^lse-\w+ .*Ended .* expired$", expiry, re.M)


def test_on_a_terminal_a_request_is_one_line_that_fills_up(environment: dict[str, str]) -> None:
    shown = on_a_terminal([*DEMO, "--once"], env=environment)
    assert "✔ queued ✔ solving ✔ reserved ✔ held ✔ active ✔ mirrored" in shown
    assert "✔ queued ✘ refused" in shown


def test_a_port_that_is_taken_is_no_problem(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = demo("--once", "--port", str(taken.getsockname()[1]), env=environment)
    assert done.returncode == 0, done.stderr


def test_it_serves_on_until_ctrl_c_and_what_it_says_to_type_works(environment: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        DEMO, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as serving:
        assert serving.stdout is not None
        said = []
        for line in serving.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        words = [line.strip() for line in said[said.index("Still serving. In another terminal:\n") :]]
        typed = [line for line in words if re.match(r"\. |lendmesh (?!watch)", line)]
        assert len(typed) == 5
        try:
            seen = subprocess.run(
                ["bash", "-ec", "\n".join(typed)], cwd=tmp_path, env=environment, capture_output=True, text=True,
                timeout=120, check=False,
            )  # fmt: skip
        finally:
            serving.send_signal(signal.SIGINT)
            code = serving.wait(60)
    assert seen.returncode == 0, seen.stderr
    assert "mirrored: both clusters hold the claims" in seen.stdout
    assert code == 0
    assert list(tmp_path.iterdir()) == []


def on_a_terminal(argv: list[str], *, env: dict[str, str]) -> str:
    """What a program writes when its stdout is a terminal of 80 columns."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(argv[0], argv, {**env, "COLUMNS": "80", "LINES": "50"})
    shown, until = b"", time.monotonic() + 120
    try:
        while time.monotonic() < until and select.select([terminal], [], [], 60)[0]:
            shown += os.read(terminal, 65_536)
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


# -- on real clusters -------------------------------------------------------------------------------------------------


def everything(cluster: Cluster) -> set[str]:
    """The objects that a demo could leave behind."""
    kinds = "crd,deviceclass,clusterrole,namespace,resourceclaims,secrets,configmaps"
    return set(cluster.kubectl("get", kinds, "-A", "-o", "name").split())


@pytest.mark.controlplane
def test_on_real_clusters_it_shows_the_same_and_leaves_them_as_they_were(
    control_planes: ControlPlanes, environment: dict[str, str]
) -> None:
    with control_planes.fresh("a", "b") as (a, b):
        a.add_nodes("a-1")
        furnish_lender(b)
        before = everything(a), everything(b)
        names = [f"--kubeconfig={cluster.kubeconfig}" for cluster in (a, b)]
        done = demo("--once", *names, env=environment)
        assert done.returncode == 0, done.stderr
        assert all(title in done.stdout for title in PROMISED)
        assert re.search(r"^b \(owning\) +lendmesh-lse-\w+ +held-0 +allocated, reserved", done.stdout, re.M)
        assert (everything(a), everything(b)) == before

        # The same cluster twice, one that another agent works for, one without devices: said, and nothing is left.
        twice = demo("--once", names[0], names[0], env=environment)
        assert twice.returncode == 2
        assert "is the same cluster as a" in twice.stderr
        idle = demo("--once", names[1], names[0], env=environment)
        assert idle.returncode == 1
        assert "In a no driver publishes devices" in idle.stderr
        b.kubectl("create", "namespace", "lendmesh-system")
        b.kubectl(
            "-n", "lendmesh-system", "create", "secret", "generic", "lendmesh-agent-identity", "--from-literal=x=y"
        )
        member = demo("--once", *names, env=environment)
        assert member.returncode == 1
        assert "b is a member of a federation already" in member.stderr
        b.kubectl("delete", "namespace", "lendmesh-system")
        assert everything(a) == before[0]


@pytest.mark.controlplane
def test_without_an_administrators_rights_it_says_so(
    control_planes: ControlPlanes, environment: dict[str, str]
) -> None:
    with control_planes.fresh("a", "b") as (a, b):
        names = [f"--kubeconfig={cluster.kubeconfig_as('nobody')}" for cluster in (a, b)]
        done = demo("--once", *names, env=environment)
    assert done.returncode == 1
    assert "The demo needs a kubeconfig of an administrator" in done.stderr
    assert "Traceback" not in done.stderr
