"""The rolling replay: requests come and go as the Philly trace's jobs did, and every tick somebody plans.

The jobs come in the trace's order. A tick is the time in which one twentieth of the standing population comes, and a
lease lasts as many ticks as its duration says, scaled so that one twentieth leaves in a tick on average. What isn't
placed waits for five ticks and goes. A running lease stays where it is: its devices, money and quota are taken out
before a contender plans the waiting ones. Those marked *anew* plan everything again from nothing at each tick, as a
peer without memory would; what they put elsewhere is a move, what they leave out is a lease cut short, which earns
nothing. A budget bounds what is reserved at one time.

Regret is to a bound no one can reach who knew all that would come: the same requests against each group's devices added
up over all ticks, without budgets, bounded by ours' certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from optimizer.check import violations
from optimizer.problem import MAX_DEVICES, Ask, Problem
from optimizer.solution import Placement, Solution
from optimizer.solve import solve, warm
from tests.bench.board import board, placements
from tests.bench.exact import cp_sat, flow
from tests.bench.federation import federation
from tests.bench.figures import percentile
from tests.bench.peers import Peer, best_fit, cheapest, density, fair_queues, least_allocated, most_allocated
from tests.bench.section import Bench, Grid

POPULATION, GROUPS = 1_000, 200
TICKS = 40
CHURN = 20
"""One in so many comes, and goes, in a tick."""
PATIENCE = 5
"""Ticks that a request waits."""
GIVEN_S = 1.0
"""For ours, and for a solver, in each tick."""
SETTINGS = ((0.9, False), (1.25, False), (1.25, True))
"""Load and budgets."""

Planner = Callable[[Problem], Mapping[str, Placement]]


@dataclass(frozen=True)
class Replay:
    """What comes when, and for how long; the same for everyone."""

    whole: Problem
    """All requests, all groups empty."""
    arrivals: tuple[tuple[Ask, ...], ...]
    """By tick; at the first one the whole population comes."""
    lasts: Mapping[str, int]
    """Ask → ticks."""


@dataclass
class Lease:
    """One that runs."""

    ask: Ask
    placement: Placement
    ends: int


@dataclass
class Record:
    """How one contender fared."""

    who: str
    ours: bool = False
    welfare: int = 0
    """µUSD, of all leases that were placed and not cut short."""
    placed: int = 0
    moved: int = 0
    cut: int = 0
    """Running leases that a plan anew left out."""
    took: list[float] = field(default_factory=list)
    """Seconds, by tick."""


def replayed(load: float, *, budgets: bool, population: int, groups: int, ticks: int, seed: int = 0) -> Replay:
    """The trace cut into ticks; capacities are for `load` with the standing population."""
    fresh = max(1, population // CHURN)
    count = population + fresh * (ticks - 1)
    made = federation(
        asks=count, groups=groups, load=load * count / population, budgets=budgets, seed=seed, in_a_row=True
    )
    # The generator gives each tenant money and quota for all it will ever ask; here they bound what stands at one time.
    made = replace(
        made,
        budgets=tuple(
            replace(each, remaining_micros=each.remaining_micros * population // count) for each in made.budgets
        ),
        quotas=tuple(
            replace(each, remaining_devices=max(8, each.remaining_devices * population // count))
            for each in made.quotas
        ),
    )
    asks = sorted(made.asks, key=lambda ask: ask.created)
    cuts = [0, *range(population, count + 1, fresh)]
    arrivals = tuple(tuple(asks[low:high]) for low, high in pairwise(cuts))
    mean = sum(ask.duration_s for ask in asks) / count
    lasts = {ask.id: max(1, round(ask.duration_s * CHURN / mean)) for ask in asks}
    return Replay(whole=made, arrivals=arrivals, lasts=lasts)


def follow(replay: Replay, record: Record, plan: Planner, *, anew: bool = False) -> Record:
    """Every tick: who is done leaves, who comes waits, the contender plans, and its plan is checked and carried out.

    :raises AssertionError: a plan breaks a promise.
    """
    running: dict[str, Lease] = {}
    waiting: list[tuple[int, Ask]] = []
    for tick, arrivals in enumerate(replay.arrivals):
        for name in [name for name, lease in running.items() if lease.ends <= tick]:
            record.welfare += (running[name].ask.value_micros or 0) - running[name].placement.cost_micros
            del running[name]
        waiting = [(since, ask) for since, ask in waiting if since + PATIENCE > tick]
        waiting += [(tick, ask) for ask in arrivals]
        fixed = {} if anew else running
        again = tuple(lease.ask for lease in running.values()) if anew else ()
        problem = _left(replay.whole, fixed.values(), (*again, *(ask for _, ask in waiting)))
        began = time.perf_counter()
        found = plan(problem)
        record.took.append(time.perf_counter() - began)
        if broken := violations(problem, found):
            raise AssertionError(f"{record.who}: {broken[0]}")
        if anew:
            record.cut += sum(name not in found for name in running)
            record.moved += sum(
                name in found and found[name].group != running[name].placement.group for name in running
            )
            running = {name: replace(lease, placement=found[name]) for name, lease in running.items() if name in found}
        for _, ask in waiting:
            if ask.id in found:
                running[ask.id] = Lease(ask=ask, placement=found[ask.id], ends=tick + replay.lasts[ask.id])
                record.placed += 1
        waiting = [(since, ask) for since, ask in waiting if ask.id not in found]
    record.welfare += sum((each.ask.value_micros or 0) - each.placement.cost_micros for each in running.values())
    return record


def _left(whole: Problem, running: Any, asks: tuple[Ask, ...]) -> Problem:
    """What the running leases leave, and who wants it."""
    units: dict[str, int] = {}
    nodes: dict[tuple[str, int], int] = {}
    money: dict[str, int] = {}
    devices: dict[str, int] = {}
    for lease in running:
        at = lease.placement
        units[at.group] = units.get(at.group, 0) + at.units
        for node, held in at.nodes:
            nodes[at.group, node] = nodes.get((at.group, node), 0) + held
        for name in set(lease.ask.budgets):
            money[name] = money.get(name, 0) + at.cost_micros
        for name in set(lease.ask.quotas):
            devices[name] = devices.get(name, 0) + at.devices
    return replace(
        whole,
        asks=asks,
        groups=tuple(
            replace(
                group,
                count=group.count - units.get(group.id, 0),
                per_node=tuple(free - nodes.get((group.id, at), 0) for at, free in enumerate(group.per_node)),
            )
            for group in whole.groups
        ),
        budgets=tuple(
            replace(each, remaining_micros=each.remaining_micros - money.get(each.id, 0)) for each in whole.budgets
        ),
        quotas=tuple(
            replace(each, remaining_devices=each.remaining_devices - devices.get(each.id, 0)) for each in whole.quotas
        ),
    )


def clairvoyant(replay: Replay, given_s: float = 20.0) -> int:
    """µUSD that nobody can pass: all requests at once, devices × ticks against each group's devices over all ticks."""
    ticks = len(replay.arrivals)
    comes = {ask.id: tick for tick, asks in enumerate(replay.arrivals) for ask in asks}
    asks = []
    for ask in replay.whole.asks:
        lasts = replay.lasts[ask.id]
        # It may start late, and run on when the replay ends: what it needs of the replay at least.
        within = max(1, min(lasts, ticks - min(ticks - 1, comes[ask.id] + PATIENCE - 1)))
        asks.append(
            replace(
                ask,
                devices=min(MAX_DEVICES, ask.devices * within),
                # Not more than it really costs, whatever is rounded.
                duration_s=max(1, ask.duration_s // within),
                budgets=(),
                quotas=(),
            )
        )
    groups = tuple(replace(group, count=group.count * ticks, per_node=()) for group in replay.whole.groups)
    relaxed = replace(replay.whole, asks=tuple(asks), groups=groups, budgets=(), quotas=())
    return solve(relaxed, time_limit_s=given_s, alternatives=0, details=0).goals[0].bound


def planners() -> Mapping[str, tuple[Planner, bool]]:
    """By name: how it plans, and whether it plans everything anew."""
    greedy: Mapping[str, Peer] = {
        "cheapest first": cheapest,
        "kube MostAllocated": most_allocated,
        "kube LeastAllocated": least_allocated,
        "best fit": best_fit,
        "DRF queues, packed": fair_queues,
        "profit by root of devices": density(0.5),
        "min-cost flow, rounded": flow,
        f"CP-SAT alone, {GIVEN_S:g} s": cp_sat(GIVEN_S),
    }
    return {
        "ours, warm": (_warm(), False),
        "ours, cold": (lambda problem: _ours(problem).placements, False),
        **{name: (_planner(peer), False) for name, peer in greedy.items()},
        **{f"{name}, anew": (_planner(greedy[name]), True) for name in ("cheapest first", "profit by root of devices")},
    }


def _planner(peer: Peer) -> Planner:
    def planned(problem: Problem) -> Mapping[str, Placement]:
        seen = board(problem)
        return placements(seen, peer(seen))

    return planned


def _ours(problem: Problem, previous: Solution | None = None) -> Solution:
    return solve(problem, time_limit_s=GIVEN_S, alternatives=0, details=0, previous=previous)


def _warm() -> Planner:
    last: list[Solution] = []

    def planned(problem: Problem) -> Mapping[str, Placement]:
        last[:] = [_ours(problem, last[0] if last else None)]
        return last[0].placements

    return planned


@dataclass
class Setting:
    """One table."""

    title: str
    bound: int
    asked: int
    records: list[Record]

    def better(self) -> list[str]:
        ours = max(record.welfare for record in self.records if record.ours)
        return [
            f"rolling, {self.title}: {record.who}, {record.welfare / 1e6:,.0f} against {ours / 1e6:,.0f} $ of ours"
            for record in self.records
            if not record.ours and record.welfare > ours
        ]

    def grid(self) -> Grid:
        return Grid(
            f"rolling replay, {self.title}",
            ("who", "welfare $", "regret %, at most", "placed", "moved", "cut short", "p50 s", "p99 s"),
            [
                [
                    record.who,
                    f"{record.welfare / 1e6:,.0f}",
                    f"{100 * (1 - record.welfare / self.bound):.1f}",
                    f"{record.placed}/{self.asked}",
                    str(record.moved),
                    str(record.cut),
                    f"{percentile(record.took, 50):.3f}",
                    f"{percentile(record.took, 99):.3f}",
                ]
                for record in self.records
            ],
        )


def run(bench: Bench) -> list[Setting]:
    """Every setting in turn."""
    warm()
    population, groups, ticks = (100, 50, 8) if bench.quick else (POPULATION, GROUPS, TICKS)
    settings = []
    for load, budgets in SETTINGS:
        title = (
            f"{population:,} standing × {groups}, {ticks} ticks, load {load:g}, budgets {'on' if budgets else 'off'}"
        )
        replay = replayed(load, budgets=budgets, population=population, groups=groups, ticks=ticks)
        bench.say(f"rolling, {title}: the bound")
        setting = Setting(title=title, bound=clairvoyant(replay), asked=len(replay.whole.asks), records=[])
        for who, (plan, anew) in planners().items():
            bench.say(f"rolling, {title}: {who}")
            setting.records.append(follow(replay, Record(who=who, ours=who.startswith("ours")), plan, anew=anew))
        settings.append(setting)
    return settings


def data(settings: Sequence[Setting]) -> Any:
    return [
        {
            "title": setting.title,
            "bound": setting.bound,
            "asked": setting.asked,
            "records": [vars(record) for record in setting.records],
        }
        for setting in settings
    ]
