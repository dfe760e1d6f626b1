"""Section inventory: how fast and how small the picture of a large cluster is, event by event and all at once.

10,000 devices on 1,250 nodes and 5,000 claims, as raw objects. It needs no cluster: the inventory is a pure library.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from broker.dra.inventory import CLAIM, CLASS, NODE, SLICE, Inventory
from tests.bench.figures import percentile
from tests.bench.section import Bench, Figure, Outcome, Section
from tests.dra_shapes import ask, claim_of, class_of, h100, held_claim, node_of, slice_of

DEVICES_A_NODE = 8
Event = tuple[str, dict[str, Any]]


def population(nodes: int, claims: int) -> list[Event]:
    """The raw objects of a cluster as they come out of a list."""
    names = [f"node-{number:04}" for number in range(nodes)]
    objects: list[Event] = [(NODE, node_of(name, labels={"topology.kubernetes.io/zone": name[-1]})) for name in names]
    objects += [(SLICE, slice_of([h100(i, node=name) for i in range(DEVICES_A_NODE)], node=name)) for name in names]
    devices = [f"gpu.nvidia.com/{name}/gpu-{i}" for name in names for i in range(DEVICES_A_NODE)]
    held = random.Random(7).sample(devices, claims)
    objects += [(CLAIM, held_claim(device, name=f"claim-{number}")) for number, device in enumerate(held)]
    return [*objects, (CLASS, class_of())]


def run(bench: Bench) -> Outcome:
    """Fill an inventory, change it, and judge everything again; figures in milliseconds and MiB."""
    nodes, claims, changes = (125, 500, 200) if bench.quick else (1250, 5000, 2000)
    objects = population(nodes, claims)
    gc.collect()
    before = _resident_mib()
    inventory = Inventory()

    def fill() -> None:
        for kind, obj in objects:
            inventory.put(kind, obj)
        inventory.devices()

    def judge_again() -> None:
        inventory.forget_judgements()
        inventory.devices()

    bench.say(f"{nodes * DEVICES_A_NODE} devices, {claims} claims")
    filling = _timed(fill)
    again = statistics.median(_timed(judge_again) for _ in range(5))
    grown = _resident_mib() - before
    rng = random.Random(8)
    events = []
    for _ in range(changes):
        kind, obj = rng.choice(objects)
        gone = kind == CLAIM and rng.random() < 0.5
        events.append(_timed(partial(_change, inventory, kind, obj, gone=gone)))
    listing = statistics.median(_timed(inventory.free) for _ in range(20))
    claim = claim_of(ask(DEVICES_A_NODE))
    allocating = statistics.median(_timed(lambda: inventory.allocate([claim], "node-0100")) for _ in range(20))
    p50, p99 = percentile(events, 50), percentile(events, 99)
    return Outcome(
        how=f"{nodes * DEVICES_A_NODE:,} devices, {claims:,} claims; {changes:,} random changes, one by one",
        figures=(
            Figure("one event, p50", f"{p50:.2f} ms", "< 10 ms", p50 < 10),
            Figure("one event, p99", f"{p99:.2f} ms", "< 10 ms", p99 < 10),
            Figure("judging everything again", f"{again:.0f} ms", "< 1,000 ms", again < 1000),
            Figure("memory of the inventory", f"{grown:.0f} MiB", "< 200 MiB", grown < 200),
            Figure("reading everything from raw objects", f"{filling:.0f} ms"),
            Figure("listing what is free", f"{listing:.1f} ms"),
            Figure("answering for 8 devices on one node", f"{allocating:.1f} ms"),
        ),
    )


def _change(inventory: Inventory, kind: str, obj: dict[str, Any], *, gone: bool) -> None:
    (inventory.delete if gone else inventory.put)(kind, obj)
    inventory.settle()


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def _resident_mib() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4 / 1024


SECTION = Section("inventory", 5, "events and memory of the inventory at 10,000 devices; needs no cluster", run)
