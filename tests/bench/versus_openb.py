"""The openb instances: published policies, ours in batches, and what the authors published beside both.

A re-implementation counts as a peer only where it is within half a point of the published mean; where it isn't, the
table says so, and the published figure stands for it.

Ours places pods in batches, in the order in which they arrive, and moves nobody. What `optimizer` can say of a batch is
this: each node is a group of thousandths of GPUs, each GPU one of its nodes, so that a share stays on one GPU; whole
GPUs are counted. CPU, models and whether enough GPUs are wholly free are checked for each pod and node alone, before
(as `matched`) and, because two pods of a batch may meet on a node, again when the plan is carried out: what doesn't fit
then, or was left out among the nodes looked at, goes where it costs least. The cost of a pod on a node is how much it
would fragment and, beyond FGD, how crowded the node's model is by pods that name it, together in FGD's own steps; among
equal steps the tightest node (`costs`). A peer may know the workload, so may we. The rule is one for all workloads.
Pods without GPUs are no business of the optimizer; they go where they cost least.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from optimizer.check import violations
from optimizer.problem import Ask, Group, Problem
from optimizer.solve import solve, warm
from tests.bench.board import Ints
from tests.bench.openb import (
    MILLI,
    POLICIES,
    WORKLOADS,
    Cluster,
    Fragmentation,
    Pod,
    cluster,
    pods,
    points,
    published,
    replay,
    stream,
)
from tests.bench.section import Bench, Grid

SEEDS = (0, 1, 2)
NEAR = 0.5
"""Points from the published mean within which a re-implementation counts."""
BATCHES, MORE = (1,), (1, 16)
"""Pods at a time; more where the larger instances are asked for."""
CANDIDATES = 24
"""Nodes for each pod that are put to the optimizer: those where it would cost least."""
OURS = {1: "ours, one by one", 16: "ours, 16 at a time"}
CROWDED = 0.5
"""Of a pod's size, so much counts as fragmented for each whole GPU's worth by which a GPU of a model is asked for more
often than one of the least asked model."""
STEP = 10_000
"""µUSD; more than there are nodes to be told apart within a step."""
GIVEN_S = 2.0
"""For each batch; it takes far less."""


@dataclass
class Row:
    """One contender on one workload: % of all GPUs allocated, by seed."""

    who: str
    ours: bool = False
    at: dict[int, list[float]] = field(default_factory=lambda: {100: [], 130: []})
    seconds: list[float] = field(default_factory=list)
    published: dict[int, float] = field(default_factory=dict)

    def mean(self, at: int) -> float:
        return fmean(self.at[at])

    def validates(self, at: int) -> bool:
        return at in self.published and abs(self.mean(at) - self.published[at]) <= NEAR


def run(bench: Bench) -> list[tuple[str, list[Row]]]:
    """Each workload with its rows."""
    warm()
    known = published()
    found = []
    for workload in WORKLOADS[:1] if bench.quick else WORKLOADS:
        given = pods(workload)
        rows = []
        ours = {OURS[size]: size for size in (MORE if bench.large else BATCHES)}
        for name in (*POLICIES, *ours):
            row = Row(
                who=name,
                ours=name in ours,
                published={at: known[workload, name, at] for at in (100, 130) if name in POLICIES},
            )
            for seed in SEEDS[:1] if bench.quick else SEEDS:
                bench.say(f"openb {workload}, {name}, seed {seed}")
                rng = np.random.default_rng(seed)
                on = cluster()
                arrivals = stream(given, on.total, rng)
                began = time.perf_counter()
                if name in ours:
                    reached = in_batches(ours[name], arrivals, on, Fragmentation(given))
                else:
                    reached = replay(POLICIES[name](given), arrivals, on, rng)
                row.seconds.append(1_000 * (time.perf_counter() - began) / len(arrivals))
                for at, value in reached.items():
                    row.at[at].append(value)
            rows.append(row)
        found.append((workload, rows))
    return found


def in_batches(size: int, arrivals: Sequence[Pod], on: Cluster, fragmentation: Fragmentation) -> dict[int, float]:
    """As `openb.replay`, with ours placing `size` pods at a time; sampled when a batch is done."""
    asked = used = 0
    seen: dict[int, list[float]] = {100: [], 130: []}
    for low in range(0, len(arrivals), size):
        batch = arrivals[low : low + size]
        used += place(batch, on, fragmentation)
        asked += sum(pod.total for pod in batch)
        now = round(100 * asked / on.total)
        if now in seen:
            seen[now].append(100 * used / on.total)
    return {at: fmean(values) if values else 100 * used / on.total for at, values in seen.items()}


def place(batch: Sequence[Pod], on: Cluster, fragmentation: Fragmentation) -> int:
    """Thousandths of GPU placed."""
    planned = _planned([pod for pod in batch if pod.gpus], on, fragmentation)
    used = 0
    for pod in sorted(batch, key=lambda pod: pod.gpus == 0):
        node = next(planned) if pod.gpus else None
        able = on.holding(pod)
        if node is None or not able[node]:
            nodes = np.flatnonzero(able)
            if not len(nodes):
                continue
            node = int(nodes[costs(on, pod, nodes, fragmentation).argmin()])
        _, gpu = fragmentation.growth(on, pod, np.array([node]))
        on.take(node, pod, int(gpu[0]) if pod.gpus and pod.milli < MILLI else None)
        used += pod.total
    return used


def _planned(batch: Sequence[Pod], on: Cluster, fragmentation: Fragmentation) -> Iterator[int | None]:
    """The optimizer's node for each, in their order; None: it found none."""
    if not batch:
        return
    problem = as_problem(batch, on, fragmentation)
    solution = solve(problem, time_limit_s=GIVEN_S, alternatives=0, details=0)
    if broken := violations(problem, solution.placements):
        raise AssertionError(broken[0])
    for ask in problem.asks:
        placement = solution.placements.get(ask.id)
        yield None if placement is None else int(placement.group)


def costs(on: Cluster, pod: Pod, nodes: Ints, fragmentation: Fragmentation) -> Ints:
    """What the pod costs on each of these nodes, µUSD: a step of FGD's scale is more than any difference in tightness.

    Tight is what has few GPUs left; for whole GPUs, few GPUs × CPU. Both were found by trying (docs/peers.md).
    """
    grown, _ = fragmentation.growth(on, pod, nodes)
    steps = 100 - points(grown + CROWDED * pod.total * fragmentation.crowding(on)[nodes])
    left = on.free[nodes].sum(axis=1)
    if pod.gpus and not (pod.gpus == 1 and pod.milli < MILLI):
        left = left * (on.cpu[nodes] + 1)
    _, rank = np.unique(left, return_inverse=True)
    total: Ints = steps * STEP + rank
    return total


def as_problem(batch: Sequence[Pod], on: Cluster, fragmentation: Fragmentation) -> Problem:
    """A batch of pods with GPUs as the optimizer sees it."""
    asks, nodes = [], set()
    for at, pod in enumerate(batch):
        able: Ints = np.flatnonzero(on.holding(pod))
        cost = costs(on, pod, able, fragmentation)
        best = np.argsort(cost, kind="stable")[:CANDIDATES]
        nodes.update(able[best].tolist())
        asks.append(
            Ask(
                id=f"p{at:03}",
                tenant="openb",
                devices=pod.total,
                duration_s=3_600,
                matched=frozenset(str(node) for node in able[best].tolist()),
                transfer_micros={
                    str(node): micros for node, micros in zip(able[best].tolist(), cost[best].tolist(), strict=True)
                },
                same_node=pod.gpus == 1 and pod.milli < MILLI,
                created=at,
            )
        )
    groups = tuple(
        Group(
            id=str(node),
            cluster=f"node {node}",
            kind=str(on.models[node]),
            price_micros=0,
            count=int(on.free[node].sum()),
            region=str(node),
            per_node=tuple(int(free) for free in on.free[node] if free),
        )
        for node in sorted(nodes)
    )
    return Problem(groups=groups, asks=tuple(asks))


def grid(workload: str, rows: Sequence[Row]) -> Grid:
    """One table."""
    return Grid(
        f"openb {workload}: % of GPUs allocated, mean of {len(rows[0].seconds)} shuffles",
        ("who", "100 % arrived", "published", "", "130 % arrived", "published", "", "ms per pod"),
        [
            [
                row.who,
                *(cell for at in (100, 130) for cell in (f"{row.mean(at):.2f}", *_beside(row, at))),
                f"{fmean(row.seconds):.1f}",
            ]
            for row in rows
        ],
    )


def _beside(row: Row, at: int) -> tuple[str, str]:
    if at not in row.published:
        return "", ""
    return f"{row.published[at]:.2f}", "validates" if row.validates(at) else "DOES NOT VALIDATE"


def better(workload: str, rows: Sequence[Row]) -> list[str]:
    """Where a policy is above ours: the re-implementation if it validates, and in any case the published mean."""
    found = []
    for at in (100, 130):
        ours = max(row.mean(at) for row in rows if row.ours)
        for row in rows:
            theirs = 0.0 if row.ours else max(row.published[at], row.mean(at) if row.validates(at) else 0.0)
            if theirs > ours:
                found.append(f"openb {workload}, {at} % arrived: {row.who}, {theirs:.2f} against {ours:.2f} %")
    return found


def data(found: Sequence[tuple[str, Sequence[Row]]]) -> Any:
    return {
        workload: [
            {"who": row.who, "allocated": row.at, "published": row.published, "ms per pod": row.seconds} for row in rows
        ]
        for workload, rows in found
    }
