"""The rolling replay: requests come and go as the Philly trace's jobs did, and every tick somebody plans.

The jobs come in the trace's order. A tick is the time in which one twentieth of the standing population comes, and a
lease lasts as many ticks as its duration says, scaled so that one twentieth leaves in a tick on average. What isn't
placed waits for five ticks and goes. A running lease stays where it is: its devices, money and quota are taken out
before a contender plans the waiting ones. Those marked *anew* plan everything again at each tick, running leases with
what is left of their time, as a peer without memory would. What they put elsewhere is a move: it pays for bringing the
data there and for half an hour twice. What they leave out is a lease cut short: it has cost what it has cost, and earns
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


@dataclass
class Lease:
    """One that runs."""

    ask: Ask
    placement: Placement
    ends: int
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


def follow(replay: Replay, record: Record, plan: Planner, *, anew: bool = False) -> Record:
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
        again = [_rest(lease, tick, replay.lasts[name]) for name, lease in running.items()] if anew else []
        problem = _left(replay.whole, () if anew else running.values(), (*again, *(ask for _, ask in waiting)))
        began = time.perf_counter()
        found = plan(problem)
        record.took.append(time.perf_counter() - began)
        if broken := violations(problem, found):
            raise AssertionError(f"{record.who}: {broken[0]}")
        if anew:
            earned -= _carried_over(replay, record, running, {ask.id: ask for ask in again}, found, tick)
        for _, ask in waiting:
            if ask.id in found:
                running[ask.id] = Lease(ask=ask, placement=found[ask.id], ends=tick + replay.lasts[ask.id])
                record.placed += 1
        waiting = [(since, ask) for since, ask in waiting if ask.id not in found]
    record.welfare = round(earned + sum(_earned(lease) for lease in running.values()))
    return record


def _earned(lease: Lease) -> float:
    return (lease.ask.value_micros or 0) - lease.paid - lease.placement.cost_micros


def _rest(lease: Lease, tick: int, lasts: int) -> Ask:
    """The lease as a request for what is left of its time."""
    left = lease.ends - tick
    return replace(lease.ask, duration_s=max(1, -(-lease.ask.duration_s * left // lasts)))


def _carried_over(
    replay: Replay,
    record: Record,
    running: dict[str, Lease],
    again: Mapping[str, Ask],
    found: Mapping[str, Placement],
    tick: int,
) -> float:
    """Leases stay, move or are cut short, as the plan has it; what was spent in vain on the last, in µUSD."""
    regions = {group.id: group.region for group in replay.whole.groups}
    vain = 0.0
    for name, lease in list(running.items()):
        rest, old, new = again[name], lease.placement, found.get(name)
        fee = rest.transfer_micros.get(regions[old.group], 0)
        # What the placement still had to cost, without the fee, ran evenly since it was last looked at.
        had = old.cost_micros - fee
        left = lease.ends - tick
        spent = fee + had / (left + 1)
        if new is None:
            record.cut += 1
            vain += lease.paid + spent
            del running[name]
            continue
        arriving = rest.transfer_micros.get(regions[new.group], 0)
        if new.group == old.group:
            # It has its data already: the fee was paid, and stays in the placement, so that it is not paid twice.
            lease.paid += spent - arriving
        else:
            record.moved += 1
            lease.paid += spent + (new.cost_micros - arriving) * RESTART_S / rest.duration_s
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
