"""How a machine knows one node: looked up while it runs, to ask later whether anything of it stayed."""

from __future__ import annotations

import ipaddress
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.realnodes.inside import Spec

PLACES = (
    *("/etc/cni", "/opt/cni", "/opt/containerd", "/run/containerd", "/run/cdi", "/usr/libexec/kubernetes"),
    *("/var/lib/cni", "/var/lib/containerd", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods"),
)
"""Where a node keeps things on a machine that is its own, and ours must not."""


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What marks everything of one node."""

    directory: str
    cgroup: str
    mount_namespace: str
    pod_subnet: ipaddress.IPv4Network
    own_mounts: frozenset[str]
    """Where its mounts are, as its process 1 sees them."""

    @classmethod
    def of(cls, directory: Path) -> Traces:
        """Those of the running node that keeps its things in `directory`."""
        network = json.loads(next(directory.glob("var-lib/cni/net.d/*")).read_text())
        inside = next(pid for pid in _processes() if _command(pid)[-2:] == ["tests.realnodes.inside", str(directory)])
        return cls(
            directory=str(directory),
            cgroup=Spec.read(directory).cgroup,
            mount_namespace=_mount_namespace(inside),
            pod_subnet=ipaddress.IPv4Network(network["plugins"][0]["ipam"]["ranges"][0][0]["subnet"]),
            own_mounts=frozenset(line.split()[1] for line in Path(f"/proc/{inside}/mounts").read_text().splitlines()),
        )

    def left(self) -> dict[str, list[str]]:
        """What of the node is on the machine now, by kind; kinds of which there is nothing are left out."""
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        found = {
            "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}")]
            + [str(path) for path in Path("/sys/fs/cgroup").glob(self.cgroup)],
            "processes": [" ".join(_command(pid)) for pid in _processes() if self._owns(pid)],
            "mounts": [line for line in mounts if self.directory in line],
            "routes": [str(address) for address in _routes() if address in self.pod_subnet],
        }
        return {kind: things for kind, things in found.items() if things}

    def _owns(self, pid: int) -> bool:
        return (
            _mount_namespace(pid) == self.mount_namespace
            or self.directory in _command(pid)
            or self.cgroup in _text(f"/proc/{pid}/cgroup")
        )


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command(pid: int) -> list[str]:
    return _text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")


def _mount_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return "gone"


def _routes() -> Iterator[ipaddress.IPv4Address]:
    """The destinations of the machine's routes: a pod's link has one as long as it is there."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        yield ipaddress.IPv4Address(struct.pack("=I", int(line.split()[1], 16)))


def _text(path: str) -> str:
    """The file's text; empty where the process has just gone."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
