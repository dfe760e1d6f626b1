"""`make lab`: it comes up, what it says to type works, and Ctrl-C leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import lack
from tests.e2e.world import ROOT
from tests.realnodes.programs import missing

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(600)]


@pytest.mark.parametrize("nodes", [pytest.param("kwok"), pytest.param("real", marks=pytest.mark.realnodes)])
def test_everything_the_lab_says_to_type_works_and_ctrl_c_ends_it_all(nodes: str) -> None:
    if nodes == "real" and (lacking := missing()):
        lack(lacking)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.lab", *(["--kwok"] if nodes == "kwok" else [])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as lab:
        assert lab.stdout is not None
        try:
            said = []
            for line in lab.stdout:
                said.append(line.rstrip())
                if "Ctrl-C" in line:
                    break
            text = "\n".join(said)
            env = Path(re.search(r"^  \. (\S+)", text, re.M)[1])  # type: ignore[index]  # a missing line fails the test
            commands = [line.strip() for line in said if re.match(r"  (lendmesh|kubectl|ka|kb) ", line)]
            seen = subprocess.run(
                ["bash", "-exc", "\n".join([f". {env}", *commands])],
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
                env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
            )
        finally:
            lab.send_signal(signal.SIGINT)
            code = lab.wait(60)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert len(commands) == len([line for line in said if line.startswith("      # ")])
    assert "mirrored: both clusters hold the claims" in seen.stdout
    assert "pod/work condition met" in seen.stdout
    assert re.search(r"lse-\w+ is Ended", seen.stdout)
    if nodes == "real":
        assert re.search(r"^GPU_DEVICE_\d+=.*gpu-\d", seen.stdout, re.M)
    assert code == 0
    assert not env.exists()


def test_without_root_or_runc_the_lab_says_so_in_one_line_and_what_else_to_type(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}  # a machine without runc
    said = subprocess.run(
        [sys.executable, "-m", "tests.lab"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr.count("\n") == 1
    assert "missing here" in said.stderr
    assert "--kwok" in said.stderr
