"""From a request to a lease that both clusters hold, one at a time: what a person waits for, and where time goes."""

from __future__ import annotations

import asyncio
import time

from tests.bench.asking import STEPS, Progress, request_for
from tests.bench.figures import percent, percentile, seconds, shares, steps
from tests.bench.members import FULL_NODES, QUICK_NODES, Members, shared_members
from tests.bench.memory import note_memory
from tests.bench.section import Bench, Figure, Grid, Outcome, Section

DEVICES = 2
REQUESTS, QUICK_REQUESTS = 120, 10
WITHIN_S = 60.0


def run(bench: Bench) -> Outcome:
    nodes = QUICK_NODES if bench.quick else FULL_NODES
    count = QUICK_REQUESTS if bench.quick else REQUESTS
    world = shared_members(bench)
    bench.say(f"{count} requests one after another")
    found = asyncio.run(_one_by_one(world, count))
    note_memory(bench, world.pids, "latency")
    whole = [times["mirrored"] - times["queued"] for times in found]
    return Outcome(
        how=(
            f"{count} requests one after another, {DEVICES} devices each; lender with {nodes} nodes × 8 H100; from "
            "sending the request to hearing «mirrored» (active, and held as objects in both clusters) on the client's "
            "stream."
        ),
        figures=[
            Figure("p50", seconds(percentile(whole, 50)), "< 1 s", percentile(whole, 50) < 1),
            Figure("p99", seconds(percentile(whole, 99)), "< 3 s", percentile(whole, 99) < 3),
            Figure("highest", seconds(max(whole))),
            Figure("active (signed, usable)", f"p50 {seconds(percentile([_until(t, 'active') for t in found], 50))}"),
        ],
        grids=[_shares(found)],
    )


async def _one_by_one(world: Members, count: int) -> list[dict[str, float]]:
    """For each request, when each step was heard; `queued` is when the request was sent."""
    found = []
    progress = Progress()
    async with world.asker() as asker, asker.follow("/v1/requests/watch", progress.hear) as following:
        for number in range(count):
            began = time.perf_counter()
            request = (await asker.post("/v1/requests", request_for(DEVICES, cluster="a")))["id"]
            await following.until(
                lambda request=request: progress.reached(request, "mirrored"),  # type: ignore[misc]  # bound early
                within=WITHIN_S,
                what=f"request {number}, mirrored; it is at {progress.last.get(request, {}).get('step')}",
            )
            found.append({**progress.at[request], "queued": began})
    return found


def _until(times: dict[str, float], step: str) -> float:
    """To this step, or to the next that was heard where two came as one."""
    later = STEPS[STEPS.index(step) :]
    return next(times[each] for each in later if each in times) - times["queued"]


def _shares(found: list[dict[str, float]]) -> Grid:
    took = [steps(times, STEPS) for times in found]
    seen = [step for step in STEPS[1:-1] if any(step in each for each in took)]
    parts = {step: [each.get(step, 0.0) for each in took] for step in seen}
    share = shares(parts)
    return Grid(
        "Where the time goes, by the step that was reached (steps that always come as one are the later one)",
        ("step", "share", "p50", "p99"),
        [
            (step, percent(share[step]), seconds(percentile(parts[step], 50)), seconds(percentile(parts[step], 99)))
            for step in parts
        ],
    )


SECTION = Section(name="latency", order=20, about="one request at a time, until both clusters hold the lease", run=run)
