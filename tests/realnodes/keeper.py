"""The process outside a node: makes its cgroup, starts its tree in namespaces of its own, and cleans up after it.

    the cluster's keeper ──► this ──► unshare ──► inside.py (process 1) ──► containerd, kubelet, driver, pods

The cluster's keeper stops this process with SIGTERM, or ends it together with everything of the cluster when the test
run is no more. Either way process 1 of the node is killed, the kernel ends everything else in its process namespace,
its mounts go with the mount namespace, its pods' links with their network namespaces, and this process removes the
cgroup. Where it is killed itself, the tree still ends (parent-death signal, and unshare's `--kill-child`); only the
empty cgroup stays then, until the next keeper sweeps.

Run as `python -m tests.realnodes.keeper DIRECTORY`; `node.py` writes the directory.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.realnodes import cgroups
from tests.realnodes.inside import Spec

_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_IN_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")


def main(directory: Path) -> int:
    """Keep one node until its tree ends; the exit status is that of its process 1."""
    cgroup = Spec.read(directory).cgroup
    tree: subprocess.Popen[bytes] | None = None
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True
        if tree is not None:
            tree.kill()

    signal.signal(signal.SIGTERM, stop)
    cgroups.sweep()
    cgroups.make(cgroup)
    try:
        inside = (sys.executable, "-m", "tests.realnodes.inside", str(directory))
        tree = subprocess.Popen([*_ENDS_WITH_US, *_IN_NAMESPACES, *inside])
        if stopping:
            tree.kill()
        return tree.wait()
    finally:
        cgroups.remove(cgroup)
        for large in ("var-lib", "run"):
            shutil.rmtree(directory / large, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
