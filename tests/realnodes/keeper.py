"""The process outside a node: makes its cgroup, starts its tree in namespaces of its own, and cleans up after it.

    test ──stdin──► keeper ──► unshare ──► inside.py (process 1) ──► containerd, kubelet, driver, pods

The pipe from the test is the node's life: when it closes, because the test said so or because the test is no more,
process 1 of the node ends, the kernel ends everything else in its process namespace, its mounts go with the mount
namespace, and the keeper removes the cgroup. Killing the keeper kills the tree as well (parent-death signal, and
`--kill-child`); only the empty cgroup stays then, until the next keeper sweeps.

Run as `python -m tests.realnodes.keeper DIRECTORY`; `node.py` writes the directory.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.realnodes import cgroups
from tests.realnodes.inside import Spec

_IN_NAMESPACES = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
_PRIVATE = ("--mount-proc", "--propagation", "private")


def main(directory: Path) -> int:
    """Keep one node until its tree ends; the exit status is that of its process 1."""
    cgroup = Spec.read(directory).cgroup
    cgroups.sweep()
    cgroups.make(cgroup)
    try:
        process = subprocess.Popen(
            [*_IN_NAMESPACES, *_PRIVATE, sys.executable, "-m", "tests.realnodes.inside", str(directory)]
        )
        signal.signal(signal.SIGTERM, lambda *_: process.kill())
        return process.wait()
    finally:
        cgroups.remove(cgroup)
        for large in ("var-lib", "run"):
            shutil.rmtree(directory / large, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
