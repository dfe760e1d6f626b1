"""Many requests at once on one lender, beside what its kube-scheduler alone needs for as many placeholder pods."""

from __future__ import annotations

import asyncio
import time

from tests.bench.asking import Progress, request_for
from tests.bench.baseline import DEVICES_EACH, Baseline, schedule
from tests.bench.figures import percentile, rate, seconds
from tests.bench.members import FULL_NODES, GPUS, QUICK_NODES, Members, furnish, members, names_of, parts_for
from tests.bench.memory import note_memory
from tests.bench.section import Bench, Figure, Grid, Outcome, Section
from tests.controlplane.cluster import Cluster

REQUESTS, QUICK_REQUESTS = 200, 20
FACTOR = 1.3
WITHIN_S = 180.0
PEER = "160 s"
"""kube.md §9, on such a machine: Kueue 0.18.4 MultiKueue, 200 Jobs at once until all run in the other cluster."""


def run(bench: Bench) -> Outcome:
    nodes, count = (QUICK_NODES, QUICK_REQUESTS) if bench.quick else (FULL_NODES, REQUESTS)
    bench.say(f"baseline: {count} placeholder pods at once, kube-scheduler alone")
    with Cluster.start("alone", parts=parts_for(bench)) as alone:
        furnish(alone, names_of(nodes))
        base = asyncio.run(schedule(alone, nodes=names_of(nodes), gpus=GPUS, pods=count, within=WITHIN_S))
    bench.say(f"baseline: {seconds(base.last)}")
    with members(bench, nodes=nodes) as world:
        bench.say(f"{count} requests at once")
        progress, began, sent = asyncio.run(_at_once(world, count))
        note_memory(bench, world.pids, "burst")
    return _outcome(base, progress, began=began, sent=sent, nodes=nodes)


async def _at_once(world: Members, count: int) -> tuple[Progress, float, float]:
    """Also when the first was sent, and when the last was answered."""
    progress = Progress()
    async with world.asker() as asker, asker.follow("/v1/requests/watch", progress.hear) as following:
        body = request_for(DEVICES_EACH, cluster="a")
        began = time.perf_counter()
        made = [one["id"] for one in await asyncio.gather(*(asker.post("/v1/requests", body) for _ in range(count)))]
        sent = time.perf_counter()
        await following.until(
            lambda: all(progress.reached(request, "mirrored") for request in made),
            within=WITHIN_S,
            what=f"all {count} mirrored",
        )
    return progress, began, sent


def _outcome(base: Baseline, progress: Progress, *, began: float, sent: float, nodes: int) -> Outcome:
    count = base.pods
    reached = {
        step: sorted(min(at for name, at in times.items() if name in later) - began for times in progress.at.values())
        for step, later in (
            ("reserved", ("reserved", "held", "active", "mirrored")),
            ("held", ("held", "active", "mirrored")),
            ("active", ("active", "mirrored")),
            ("mirrored", ("mirrored",)),
        )
    }
    ratio = reached["active"][-1] / base.last
    return Outcome(
        how=(
            f"{count} requests at once, {DEVICES_EACH} devices each, on one lender with {nodes} nodes × {GPUS} H100, "
            f"until all are active; before it, in the same run on an equal cluster, {count} pods with a pinned "
            f"{DEVICES_EACH}-device claim each (made before), from the first creation to the last binding, by "
            "kube-scheduler alone."
        ),
        figures=[
            Figure("kube-scheduler alone", f"{seconds(base.last)}, {rate(count / base.last)}"),
            Figure("all active", f"{seconds(reached['active'][-1])}, {rate(count / reached['active'][-1])}"),
            Figure("ratio", f"{ratio:.2f}", f"≤ {FACTOR}", ratio <= FACTOR),
            Figure("all mirrored", seconds(reached["mirrored"][-1])),
            Figure("all requests answered", seconds(sent - began)),
            Figure("nearest peer: Kueue MultiKueue, 200 Jobs at once (a fact from another run, kube.md §9)", PEER),
        ],
        grids=[
            Grid(
                "Seconds until so many had come so far",
                ("", "first", "half", "90 %", "all"),
                [
                    ("pods bound, kube-scheduler alone", *_spread(base.times)),
                    *((step, *_spread(times)) for step, times in reached.items()),
                ],
            )
        ],
    )


def _spread(times: list[float]) -> tuple[str, str, str, str]:
    return seconds(min(times)), seconds(percentile(times, 50)), seconds(percentile(times, 90)), seconds(max(times))


SECTION = Section(name="burst", order=10, about="200 requests at once, beside kube-scheduler alone", run=run)
