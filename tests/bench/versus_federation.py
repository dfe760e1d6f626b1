"""The federation instances: loads × budgets × seeds, each through ours and every peer.

Ours runs twice on each, once in a hurry and once for as long as the solvers that are its peers are given. A peer is
*better* where its welfare is above that of ours at leisure by more than solvers themselves call level; and better *in a
hurry* where it took no longer than ours in a hurry and is above that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from optimizer.check import violations
from optimizer.problem import Problem
from optimizer.solution import Placement
from optimizer.solve import solve, warm
from tests.bench.board import Board, board, placements, welfare
from tests.bench.exact import solvers
from tests.bench.federation import federation
from tests.bench.outside import asked, environment, timed
from tests.bench.peers import PEERS, Peer
from tests.bench.section import Absent, Bench, Grid

LEVELS = (2, 1, 0)
"""Priorities of the federation's requests."""
LOADS = (0.5, 0.9, 1.25)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Size:
    """How large, and what everyone is given."""

    asks: int
    groups: int
    hurry_s: float
    leisure_s: float
    """For ours at leisure, and for each solver among the peers."""
    seeds: tuple[int, ...] = SEEDS
    regimes: tuple[tuple[float, bool], ...] = tuple((load, budgets) for load in LOADS for budgets in (False, True))
    skypilot: bool = True


SIZES = (Size(100, 50, 1.0, 5.0), Size(1_000, 200, 1.0, 10.0))
LARGE = (
    Size(5_000, 1_000, 3.0, 60.0, seeds=(0,)),
    Size(20_000, 2_000, 10.0, 60.0, seeds=(0,), regimes=((1.25, True),), skypilot=False),
)
"""Only where asked for. SkyPilot's optimizer takes seconds for each call among 2,000 offers, and is left out there."""


@dataclass
class Entry:
    """One contender on one instance."""

    who: str
    ours: bool
    welfare: int
    """µUSD, as all money here."""
    cost: int
    seconds: float
    gap: float
    """To ours' best certified bound, as a share of it."""
    placed: Mapping[int, int]
    """Priority → requests placed."""
    common: int = 0
    """Requests that both it and ours at leisure placed; what they cost is next."""
    our_cost: int = 0
    their_cost: int = 0
    absent: str = ""
    """Why it didn't run; nothing else means anything then."""


@dataclass
class Instance:
    """One problem and what everyone made of it."""

    name: str
    asked: Mapping[int, int]
    """Priority → requests."""
    bound: int
    certified: Mapping[str, float]
    """Run of ours → the gap it certified itself."""
    entries: list[Entry]

    def of(self, who: str) -> Entry:
        return next(entry for entry in self.entries if entry.who == who)


@dataclass
class InstanceGroup:
    """One table: the seeds of one size, load and setting of budgets."""

    title: str
    hurry: str
    leisure: str
    instances: list[Instance] = field(default_factory=list)

    def better(self) -> list[str]:
        found = []
        for one in self.instances:
            ours = one.of(self.leisure).welfare
            found += [
                f"{one.name}: {entry.who}, {_dollars(entry.welfare)} against {_dollars(ours)} of ours"
                for entry in one.entries
                if not entry.ours and not entry.absent and entry.welfare > ours * (1 + LEVEL)
            ]
        return found

    def better_in_a_hurry(self) -> list[str]:
        found = []
        for one in self.instances:
            ours = one.of(self.hurry)
            found += [
                f"{one.name}: {entry.who}, by {100 * (entry.welfare / max(1, ours.welfare) - 1):.2f} %"
                for entry in one.entries
                if not entry.ours
                and not entry.absent
                and entry.seconds <= ours.seconds
                and entry.welfare > ours.welfare
            ]
        return found

    def data(self) -> Any:
        return {"title": self.title, "instances": [asdict(one) for one in self.instances]}

    def grid(self) -> Grid:
        rows = []
        for who in [entry.who for entry in self.instances[0].entries]:
            entries = [one.of(who) for one in self.instances]
            if entries[0].absent:
                rows.append([who, f"absent: {entries[0].absent}", *[""] * (len(COLUMNS) - 2)])
                continue
            asked = [sum(one.asked.get(level, 0) for one in self.instances) for level in LEVELS]
            served = [sum(entry.placed.get(level, 0) for entry in entries) for level in LEVELS]
            placed = [f"{part}/{whole}" for part, whole in zip(served, asked, strict=True)]
            same = f"{_dollars(sum(e.our_cost for e in entries))} | {_dollars(sum(e.their_cost for e in entries))}"
            rows.append(
                [
                    who,
                    " / ".join(_dollars(entry.welfare) for entry in entries),
                    " / ".join(f"{100 * entry.gap:.2f}" for entry in entries),
                    _dollars(sum(entry.cost for entry in entries)),
                    "" if entries[0].ours else same,
                    *placed,
                    f"{sum(entry.seconds for entry in entries) / len(entries):.2f}",
                ]
            )
        return Grid(self.title, COLUMNS, rows)


COLUMNS = (
    "who",
    "welfare $ by seed",
    "gap % by seed",
    "cost $",
    "same requests: ours | theirs $",
    "of priority 2",
    "of 1",
    "of 0",
    "s",
)


def run(bench: Bench) -> list[InstanceGroup]:
    """Every size, load and setting in turn."""
    warm()
    sizes = SIZES[:1] if bench.quick else SIZES + (LARGE if bench.large else ())
    try:
        python = environment(bench.say)
        lack = ""
    except Absent as reason:
        python, lack = None, str(reason)
    groups = []
    for size in sizes:
        for load, budgets in size.regimes:
            title = f"{size.asks:,} × {size.groups:,}, load {load:g}, budgets {'on' if budgets else 'off'}"
            group = InstanceGroup(title=title, hurry=f"ours, {size.hurry_s:g} s", leisure=f"ours, {size.leisure_s:g} s")
            for seed in size.seeds[:1] if bench.quick else size.seeds:
                bench.say(f"{title}, seed {seed}")
                problem = federation(asks=size.asks, groups=size.groups, load=load, budgets=budgets, seed=seed)
                peers: dict[str, Peer | str] = {**PEERS, **solvers(size.leisure_s)}
                theirs = asked(python, size.leisure_s, bench.say) if python else {}
                for name in OUTSIDE:
                    skipped = "too slow among so many offers" if name == OUTSIDE[0] and not size.skypilot else ""
                    peers[name] = skipped or lack or theirs[name]
                group.instances.append(compare(f"{title}, seed {seed}", problem, size, peers))
            groups.append(group)
    return groups


LEVEL = 1e-4
"""Plans that differ by less than this share are level: it is where solvers by themselves call a plan the best."""
OUTSIDE = ("SkyPilot 0.14.1 with fail-over", "CBC alone")


def compare(name: str, problem: Problem, size: Size, peers: Mapping[str, Peer | str]) -> Instance:
    """Ours, twice, and each peer; a peer that is a text is absent for that reason.

    :raises AssertionError: a plan breaks a promise, whosever it is.
    """
    runs = {limit: solve(problem, time_limit_s=limit, alternatives=0) for limit in (size.hurry_s, size.leisure_s)}
    bound = min(solution.goals[0].bound for solution in runs.values())
    instance = Instance(
        name=name,
        asked=_levels(problem, {ask.id for ask in problem.asks}),
        bound=bound,
        certified={f"ours, {limit:g} s": solution.goals[0].gap for limit, solution in runs.items()},
        entries=[],
    )
    best = runs[size.leisure_s].placements
    for limit, solution in runs.items():
        instance.entries.append(
            _entry(problem, f"ours, {limit:g} s", solution.placements, solution.wall_s, bound, best, ours=True)
        )
    seen = board(problem)
    instance.entries += _peers(problem, seen, peers, bound, best)
    return instance


def _peers(
    problem: Problem, seen: Board, peers: Mapping[str, Peer | str], bound: int, best: Mapping[str, Placement]
) -> Iterator[Entry]:
    for who, peer in peers.items():
        if isinstance(peer, str):
            yield _absent(who, peer)
            continue
        try:
            chosen, seconds = timed(peer, seen)
        except Absent as reason:
            yield _absent(who, str(reason))
            continue
        yield _entry(problem, who, placements(seen, chosen), seconds, bound, best, ours=False)


def _absent(who: str, why: str) -> Entry:
    return Entry(who=who, ours=False, welfare=0, cost=0, seconds=0, gap=0, placed={}, absent=why)


def _entry(
    problem: Problem,
    who: str,
    plan: Mapping[str, Placement],
    seconds: float,
    bound: int,
    best: Mapping[str, Placement],
    *,
    ours: bool,
) -> Entry:
    if broken := violations(problem, plan):
        raise AssertionError(f"{who}: {broken[0]}")
    reached = welfare(problem, plan)
    both = plan.keys() & best.keys()
    return Entry(
        who=who,
        ours=ours,
        welfare=reached,
        cost=sum(placement.cost_micros for placement in plan.values()),
        seconds=seconds,
        gap=1 - reached / max(1, bound),
        placed=_levels(problem, plan.keys()),
        common=len(both),
        our_cost=sum(best[name].cost_micros for name in both),
        their_cost=sum(plan[name].cost_micros for name in both),
    )


def _levels(problem: Problem, names: set[str] | Sequence[str] | Any) -> Mapping[int, int]:
    counts: dict[int, int] = {}
    for ask in problem.asks:
        if ask.id in names:
            counts[ask.priority] = counts.get(ask.priority, 0) + 1
    return counts


def _dollars(micros: int) -> str:
    return f"{micros / 1e6:,.0f}"
