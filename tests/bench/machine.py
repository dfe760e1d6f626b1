"""The machine a figure was measured on: no figure is printed without it."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import percentile, seconds
from tests.controlplane.parts import RELEASES

SYNCS = 200
BLOCK = 4096

Facts = Sequence[tuple[str, str]]


def machine(*, k8s_version: str) -> Facts:
    """What it is, and what bounds a durable commit on it; measures fsync for a moment."""
    load = os.getloadavg()[0]
    return (
        ("CPU", f"{_cpu()}, {_cores()} cores"),
        ("memory", f"{_memory_gib():.0f} GiB"),
        ("kernel", platform.release()),
        ("Python", f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}"),
        ("fsync of 4 KiB", _fsync()),
        ("Kubernetes", f"{RELEASES[k8s_version].version}, nodes played by kwok"),
        ("durability", "SQLite WAL with synchronous=FULL; PostgreSQL with fsync=on, synchronous_commit=on"),
        ("other load", f"{load:.1f} (load average of the last minute, as the run began)"),
    )


def rss(pid: int) -> int:
    """Bytes of memory a process has in RAM."""
    return _status(pid, "VmRSS")


def highest_rss(pid: int) -> int:
    """The most it ever had."""
    return _status(pid, "VmHWM")


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used, its threads' included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def child_of(pid: int) -> int:
    """The first process that this one started."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if found := (task / "children").read_text().split():
            return int(found[0])
    raise LookupError(f"process {pid} has no child")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no {name}")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _fsync() -> str:
    """Where the broker of the bench keeps its data."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            file.write(b"x" * BLOCK)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return f"p50 {seconds(percentile(took, 50))}, p99 {seconds(percentile(took, 99))}"
