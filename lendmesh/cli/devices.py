"""The truth about devices, without a broker: ``inventory`` of a cluster, ``conformance`` of our allocator."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from broker.dra import conformance as recorded
from broker.dra import inventory as truth
from broker.dra.inventory import DeviceState, Inventory
from clusteragent.kube.interface import (
    DEVICE_CLASSES,
    DEVICE_TAINT_RULES,
    NODES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Kind,
    Kube,
    KubeError,
)
from lendmesh import show
from lendmesh.cli import NO, OK, Failed
from lendmesh.cli.common import cluster
from lendmesh.grid import Column, Grid

_READ: tuple[tuple[Kind, str], ...] = (
    (NODES, truth.NODE),
    (DEVICE_CLASSES, truth.CLASS),
    (RESOURCE_CLAIMS, truth.CLAIM),
    (RESOURCE_SLICES, truth.SLICE),
    (DEVICE_TAINT_RULES, truth.TAINT_RULE),
)
_COLOURS = {"free": "green", "allocated": "cyan", "tainted": "yellow", "stale": "dim"}


def conformance(arguments: argparse.Namespace) -> int:
    """Play recorded allocator cases; the last line is ``agree N/M``."""
    try:
        report = recorded.run(arguments.file)
    except (OSError, ValueError, EOFError) as error:
        raise Failed(f"these cases cannot be read: {error}") from None
    for line in report.lines():
        print(line)
    return OK if report.complete else NO


async def inventory(arguments: argparse.Namespace) -> int:
    """What is free in a cluster, what is not, and why not."""
    kube = await cluster(arguments.kubeconfig)
    try:
        picture = await read(kube)
    except (KubeError, OSError) as error:
        raise Failed(f"the cluster's devices cannot be read: {error}") from None
    finally:
        await kube.close()
    devices = [state for state in picture.devices() if arguments.state in (None, state.state)]
    if arguments.output != "table":
        show.emit(
            {"devices": [plain(state) for state in devices], "problems": picture.problems()}, output=arguments.output
        )
        return OK
    out = show.console()
    if not devices:
        out.print("No devices: no driver publishes ResourceSlices here." if arguments.state is None else "None.")
    else:
        out.print(table(devices))
        counts = Counter(state.state for state in devices)
        out.print(f"\n{len(devices)} devices: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}")
    for problem in picture.problems():
        out.print(Text(problem, style="yellow"))
    return OK


async def read(kube: Kube) -> Inventory:
    """The inventory of a cluster as it is now."""
    picture = Inventory()
    for (_, name), objects in zip(_READ, await asyncio.gather(*(_all(kube, kind) for kind, _ in _READ)), strict=True):
        picture.replace(name, objects)
    return picture


async def _all(kube: Kube, kind: Kind) -> Sequence[Any]:
    try:
        return await kube.list(kind)
    except KubeError as error:
        if kind == DEVICE_TAINT_RULES and error.status == 404:
            return ()  # clusters before 1.37 need not have them
        raise


def table(devices: Iterable[DeviceState]) -> Grid:
    """One row for neighbours that have everything in common, so that a cluster fits a screen."""
    rows = Grid(
        "NODE",
        Column("DRIVER", drop=2),
        Column("DEVICES", fold=True),
        Column("MODEL", drop=1),
        Column("MEMORY", right=True, drop=3),
        "STATE",
        Column("WHY", fold=True),
    )
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in devices:
        known = one.identity
        model = f"{known.model} · {known.partition}" if known.partition else known.model
        memory = show.memory(known.memory_bytes)
        place = one.node or f"({one.pool})"
        groups.setdefault((place, one.driver, model, memory, one.state, one.reason), []).append(one.name)
    for (node, driver, model, memory, state, why), names in groups.items():
        rows.add(node, driver, together(names), model, memory, Text(state, style=_COLOURS.get(state, "red")), why)
    return rows


def together(names: Sequence[str]) -> str:
    """``gpu-0…3 (4)`` for names that count up, else the names with commas."""
    parts = [re.fullmatch(r"(.*?)([0-9]+)", name) for name in names]
    stems = {part[1] if part else "" for part in parts}
    numbers = sorted(int(part[2]) for part in parts if part)
    if (
        len(names) > 2
        and len(numbers) == len(names)
        and len(stems) == 1
        and numbers == list(range(numbers[0], numbers[0] + len(names)))
    ):
        return f"{stems.pop()}{numbers[0]}…{numbers[-1]} ({len(names)})"
    return ", ".join(names)


def plain(state: DeviceState) -> dict[str, Any]:
    """One device for programs."""
    known, told = state.identity, state.declared
    return {
        "driver": state.driver,
        "pool": state.pool,
        "name": state.name,
        "node": state.node,
        "state": state.state,
        "reason": state.reason,
        "claim": state.claim,
        "key": state.key or None,
        "kind": state.kind,
        "model": known.model,
        "memoryBytes": known.memory_bytes,
        "partition": known.partition or None,
        "partitionOf": known.partition_of or None,
        "lendableUnit": known.lendable_unit,
        "pin": state.pin,
        "declared": {
            "region": told.region or None,
            "zone": told.zone or None,
            "provider": told.provider or None,
            "tee": told.tee,
            "gpu": told.gpu_confidential,
            "nvlinkDomain": told.nvlink_domain or None,
            "conformance": told.conformance or None,
        },
        "attributes": {name: dict(value) for name, value in state.attributes.items()},
        "capacity": {name: dict(value) for name, value in state.capacity.items()},
    }
