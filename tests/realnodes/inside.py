"""Process 1 of a node: makes the machine look its own, starts containerd, then kubelet and driver, and waits.

It runs in fresh mount and process namespaces. First it binds private directories over the places where a node keeps
its things, and private files over the kernel settings a kubelet writes, so that neither reaches the machine. Then it
starts the programs. It ends when it is killed or when one of the programs ends; with it the kernel ends everything in
the namespace, pods included.

It imports nothing but the standard library: it is as small as the init of a container should be.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_CONTAINERD_STARTS_WITHIN = 60.0
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a node consists of, as `node.py` writes it down: paths and command lines, nothing left to decide."""

    cgroup: str
    binds: dict[str, str]
    """Target → source, made in this order."""
    containerd: list[str]
    import_images: list[str]
    """Run to its end between containerd's start and the others'."""
    programs: dict[str, list[str]]
    """Name → command line of what runs beside containerd."""
    logs: str
    """The directory of the programs' logs, one file each."""
    path: str
    """$PATH of all of them: containerd finds its shim there, and CNI its tools."""

    def write(self, directory: Path) -> None:
        (directory / "spec.json").write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, directory: Path) -> Spec:
        return cls(**json.loads((directory / "spec.json").read_text()))


def main(directory: Path) -> int:
    """Be process 1 of the node described in `directory`; return the exit status of the first program to end."""
    spec = Spec.read(directory)
    for target, source in spec.binds.items():
        _run(["mount", "--no-mtab", "--bind", source, target])

    logs = Path(spec.logs)
    environment = {"PATH": spec.path, "HOME": "/var/lib"}
    running = {_start_containerd(spec, environment, logs): "containerd"}
    _run(spec.import_images, env=environment)
    for name, command in spec.programs.items():
        running[_start(name, command, environment, logs)] = name

    while True:
        # Whatever any pod leaves behind becomes our child and is collected here too.
        pid, status = os.wait()
        if pid in running:
            code = os.waitstatus_to_exitcode(status)
            _say(f"{running[pid]} ended with {code}: see {logs / running[pid]}.log")
            return 1


def _start_containerd(spec: Spec, environment: dict[str, str], logs: Path) -> int:
    """Start containerd and wait for its own word that it is ready (sd_notify(3))."""
    address = "/run/containerd-ready.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(address)
        ready.settimeout(_CONTAINERD_STARTS_WITHIN)
        pid = _start("containerd", spec.containerd, {**environment, "NOTIFY_SOCKET": address}, logs)
        while b"READY=1" not in ready.recv(4096):
            pass
    return pid


def _start(name: str, command: list[str], environment: dict[str, str], logs: Path) -> int:
    with (logs / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        ).pid


def _run(command: list[str], *, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _say(f"{' '.join(command)}: {done.stderr.strip()}")
        sys.exit(1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
