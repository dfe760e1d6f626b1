"""The cgroup of a node: made before its kubelet starts, removed after its last process has gone.

A kubelet wants its root in every controller, whichever way the machine mounts them (version 1, 2 or both), and leaves
everything behind that it made below. A node's cgroup carries the process id of its owner, the cluster's keeper: one
that is left when everything was killed at once is known as an orphan, and swept away by the next node.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PREFIX = "lendmesh-node-"

_MOUNTS = Path("/proc/self/mounts")
_PATIENCE = 20.0
"""Seconds that killed processes may take to leave their cgroup."""


def cgroup_name(name: str, *, owner: int) -> str:
    """The cgroup of node `name`, owned by the process `owner`."""
    return f"{PREFIX}{owner}-{name}"


def make(name: str) -> None:
    """Make the cgroup in every hierarchy of this machine, directly under the root, with every controller usable."""
    for root, version in _hierarchies():
        if version == 2:
            _enable_controllers(root)
        (root / name).mkdir(exist_ok=True)
        # In version 1 a new cpuset is empty, and nothing can run in it.
        for setting in ("cpuset.mems", "cpuset.cpus"):
            if version == 1 and (root / setting).exists():
                (root / name / setting).write_text((root / setting).read_text())


def remove(name: str) -> None:
    """Remove the cgroup and everything below it, from every hierarchy, once its processes have gone.

    :raises OSError: a process is still in it after 20 s.
    """
    deadline = time.monotonic() + _PATIENCE
    for root, _ in _hierarchies():
        top = root / name
        while top.exists():
            try:
                _remove_tree(top)
            except OSError:
                # A killed process leaves its cgroup when the kernel gets to it; version 1 tells nobody.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def sweep() -> None:
    """Remove what was left by owners that are no more, killed before they could clean up."""
    for root, _ in _hierarchies():
        for orphan in root.glob(f"{PREFIX}*"):
            owner = orphan.name.removeprefix(PREFIX).split("-", 1)[0]
            if not Path("/proc", owner).exists():
                with contextlib.suppress(OSError):
                    _remove_tree(orphan)


def _hierarchies() -> list[tuple[Path, int]]:
    """Each mounted hierarchy once: (its root, 1 or 2)."""
    found = {}
    for line in _MOUNTS.read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and where.startswith("/sys/fs/cgroup"):
            found[Path(where)] = 2 if kind == "cgroup2" else 1
    return list(found.items())


def _enable_controllers(root: Path) -> None:
    """Let the children of a version 2 root use what it has; most machines do already."""
    for controller in (root / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (root / "cgroup.subtree_control").write_text(f"+{controller}")


def _remove_tree(top: Path) -> None:
    for directory, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(directory)
