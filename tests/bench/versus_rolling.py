"""The rolling replay: requests come and go as the Philly trace's jobs did, and every tick somebody plans.

The jobs come in the trace's order. A tick is the time in which one twentieth of the standing population comes, and a
lease lasts as many ticks as its duration says, scaled so that one twentieth leaves in a tick on average. What isn't
placed waits for five ticks and goes. Contenders are given what runs in one of three ways (`Kept`). Most keep what runs
where it is: its devices, money and quota are taken out before they plan the waiting ones. Those marked *anew* plan
everything again, running leases as requests for what is left of their time, as a peer without memory would. Ours is
told what runs where and what it costs to move it, which is what the optimizer has `Running` for.

What is charged is the same for all. A lease that goes elsewhere is a move: it pays for bringing the data there, unless
that is the region it is in, and for half an hour twice. One that is left out is cut short: it has cost what it has
cost, and earns nothing. A budget bounds what is reserved at one time. No contender knows what will come.

Regret is to a bound no one can reach who knew all that would come: the same requests against each group's devices added
up over all ticks, without budgets, bounded by ours' certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import Any

from optimizer.check import violations
from optimizer.problem import MAX_DEVICES, Ask, Held, Problem, Running
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
RESTART_S = 1_800
"""A lease that moves pays for so many seconds twice."""
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

    @cached_property
    def regions(self) -> Mapping[str, str]:
        """Group → region."""
        return {group.id: group.region for group in self.whole.groups}


class Kept(Enum):
    """What a contender is given of the leases that run."""

    OUT = "nothing: what they hold is taken out, and they stay"
    ANEW = "requests like any other: a plan that forgets where they are"
    TOLD = "running leases, with what it costs to move them; one that is left out earns nothing"


@dataclass
class Lease:
    """One that runs."""

    ask: Ask
    placement: Placement
    ends: int
    fee: int = 0
    """µUSD of the placement's cost that brought its data there, and is spent at once."""
    paid: float = 0.0
    """µUSD so far; what it will cost from now on is in the placement."""


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


def follow(replay: Replay, record: Record, plan: Planner, *, kept: Kept = Kept.OUT) -> Record:
    """Every tick: who is done leaves, who comes waits, the contender plans, and its plan is checked and carried out.

    :raises AssertionError: a plan breaks a promise.
    """
    running: dict[str, Lease] = {}
    waiting: list[tuple[int, Ask]] = []
    earned = 0.0
    for tick, arrivals in enumerate(replay.arrivals):
        for name in [name for name, lease in running.items() if lease.ends <= tick]:
            earned += _earned(running.pop(name))
        waiting = [(since, ask) for since, ask in waiting if since + PATIENCE > tick]
        waiting += [(tick, ask) for ask in arrivals]
        again = [] if kept is Kept.OUT else [_rest(replay, lease, tick, kept) for lease in running.values()]
        out = running.values() if kept is Kept.OUT else ()
        problem = _left(replay.whole, out, (*again, *(ask for _, ask in waiting)))
        began = time.perf_counter()
        found = plan(problem)
        record.took.append(time.perf_counter() - began)
        if broken := violations(problem, found):
            raise AssertionError(f"{record.who}: {broken[0]}")
        if again:
            earned -= _carried_over(replay, record, running, {ask.id: ask for ask in again}, found, tick)
        for _, ask in waiting:
            if ask.id in found:
                fee = ask.transfer_micros.get(replay.regions[found[ask.id].group], 0)
                running[ask.id] = Lease(ask=ask, placement=found[ask.id], ends=tick + replay.lasts[ask.id], fee=fee)
                record.placed += 1
        waiting = [(since, ask) for since, ask in waiting if ask.id not in found]
    record.welfare = round(earned + sum(_earned(lease) for lease in running.values()))
    return record


def _earned(lease: Lease) -> float:
    return (lease.ask.value_micros or 0) - lease.paid - lease.placement.cost_micros


def _rest(replay: Replay, lease: Lease, tick: int, kept: Kept) -> Ask:
    """The lease as a request for what is left of its time; its data is where it is, and need not be brought there."""
    ask, at = lease.ask, lease.placement
    left = lease.ends - tick
    seconds = max(1, -(-ask.duration_s * left // replay.lasts[ask.id]))
    running = None
    if kept is Kept.TOLD:
        # Half an hour is paid twice, at the price of where it goes; told as if that were the price of where it is.
        hourly = (at.cost_micros - lease.fee) / at.duration_s
        running = Running(
            held=(Held(group=at.group, workers=ask.workers),), move_micros=round(hourly * RESTART_S), end_micros=0
        )
    fees = {**ask.transfer_micros, replay.regions[at.group]: 0}
    return replace(ask, duration_s=seconds, transfer_micros=fees, running=running)


def _carried_over(
    replay: Replay,
    record: Record,
    running: dict[str, Lease],
    again: Mapping[str, Ask],
    found: Mapping[str, Placement],
    tick: int,
) -> float:
    """Leases stay, move or are cut short, as the plan has it; what was spent in vain on the last, in µUSD."""
    vain = 0.0
    for name, lease in list(running.items()):
        rest, old, new = again[name], lease.placement, found.get(name)
        # What the placement still had to cost, without the fee, ran evenly since it was last looked at.
        lease.paid += lease.fee + (old.cost_micros - lease.fee) / (lease.ends - tick + 1)
        if new is None:
            record.cut += 1
            vain += lease.paid
            del running[name]
            continue
        lease.fee = 0 if new.group == old.group else rest.transfer_micros.get(replay.regions[new.group], 0)
        if new.group != old.group:
            record.moved += 1
            lease.paid += (new.cost_micros - lease.fee) * RESTART_S / rest.duration_s
        lease.placement = new
    return vain


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


def planners() -> Mapping[str, tuple[Planner, Kept]]:
    """By name: how it plans, and what it is given of the leases that run."""
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
        "ours": (_ours(), Kept.TOLD),
        "ours, moving nothing": (_ours(), Kept.OUT),
        **{name: (_planner(peer), Kept.OUT) for name, peer in greedy.items()},
        **{
            f"{name}, anew": (_planner(greedy[name]), Kept.ANEW)
            for name in ("cheapest first", "profit by root of devices", "min-cost flow, rounded")
        },
    }


def _planner(peer: Peer) -> Planner:
    def planned(problem: Problem) -> Mapping[str, Placement]:
        seen = board(problem)
        return placements(seen, peer(seen))

    return planned


def _ours() -> Planner:
    """Each plan starts from the one before."""
    last: list[Solution] = []

    def planned(problem: Problem) -> Mapping[str, Placement]:
        before = last[0] if last else None
        last[:] = [solve(problem, time_limit_s=GIVEN_S, alternatives=0, details=0, previous=before)]
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
        for who, (plan, kept) in planners().items():
            bench.say(f"rolling, {title}: {who}")
            setting.records.append(follow(replay, Record(who=who, ours=who.startswith("ours")), plan, kept=kept))
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
