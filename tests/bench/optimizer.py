"""The optimizer's certified gap in the time a person waits, and after a little change: what the README states.

    python -m tests.bench optimizer

Federations of real prices, sizes and durations. Greedy peers stand beside it for scale; `python -m tests.bench peers`
is the comparison with everyone. Every plan, ours and theirs, goes through the same independent checker. The gap is to
the best bound that ours proved for the instance, so it says how far each can be from the best possible at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

from optimizer.check import violations
from optimizer.memory import Memory
from optimizer.problem import Ask, Held, Problem, Running
from optimizer.solution import Placement
from optimizer.solve import solve, warm
from tests.bench.board import board, placements, welfare
from tests.bench.exact import cp_sat
from tests.bench.federation import federation, missing
from tests.bench.outside import timed
from tests.bench.peers import PEERS
from tests.bench.section import Absent, Bench, Figure, Grid, Outcome, Section

SIZES = {
    (100, 50): (0.3, 1.0),
    (1_000, 200): (1.0, 30.0),
    (5_000, 1_000): (3.0, 60.0),
    (20_000, 2_000): (10.0,),
}
"""(requests, offers) → seconds given to ours, once in a hurry and once at leisure."""
TARGETS = {
    (100, 50, 0.3): 0.0,
    (1_000, 200, 1.0): 4.0,
    (1_000, 200, 30.0): 2.0,
    (5_000, 1_000, 3.0): 3.0,
    (5_000, 1_000, 60.0): 1.5,
    (20_000, 2_000, 10.0): 1.3,
}
"""Certified gap in %, on 2 cores."""
CHURN = {(5_000, 1_000): (3.0, 0.5), (20_000, 2_000): (10.0, 2.0)}
"""(requests, offers) → seconds for the plan before, and what solving again from it should take at most."""
LEAVE = 20
"""One request in so many ends, and another comes."""
DIRECT_UP_TO = 1_000
"""The bare solver gets no larger instance: it finds nothing there in any time a person waits."""


def run(bench: Bench) -> Outcome:
    if lack := missing():
        raise Absent(lack)
    warm()
    figures: list[Figure] = []
    grids: list[Grid] = []
    for size, limits in SIZES.items():
        if bench.quick and size[0] > 100:
            continue
        bench.say(f"{size[0]} requests × {size[1]} offers")
        rows, gaps = _beside_peers(federation(asks=size[0], groups=size[1]), limits)
        grids.append(Grid(f"{size[0]} × {size[1]}, load 1.25, budgets on", COLUMNS, rows))
        for seconds, (gap, wall) in gaps.items():
            target = TARGETS.get((*size, seconds))
            figures.append(
                Figure(
                    f"certified gap at {size[0]:,} × {size[1]:,}, given {seconds:g} s",
                    f"{gap:.2f} % in {wall:.2f} s",
                    "" if target is None else f"≤ {target:g} %",
                    None if target is None else gap <= target + 1e-9,
                )
            )
    for size, (before_s, target_s) in {} if bench.quick else CHURN.items():
        bench.say(f"{size[0]} requests × {size[1]} offers, 5 % churn")
        figures += _churned(size, before_s, target_s)
    bench.say("loads, budgets and seeds")
    rows, worse = _regimes(bench.quick)
    grids.append(
        Grid(
            f"{'100 × 50' if bench.quick else '1,000 × 200'}, 1 s: gap % (ours | best greedy peer)",
            ("load", "budgets", "gap by seed"),
            rows,
        )
    )
    figures.append(Figure("of those below, instances where a greedy peer is better", str(worse), "0", worse == 0))
    return Outcome(
        how=(
            "Offers from published prices, gangs and durations from the Philly trace, egress prices between clouds; "
            "values, capacities and budgets are invented. Welfare is Σ (value − cost) of what is placed. Peers are "
            "re-implementations that are given capacity and budgets; all plans pass one checker."
        ),
        figures=figures,
        grids=grids,
    )


COLUMNS = ("who", "welfare $", "gap %", "cost $", "placed", "of priority 2", "of 1", "of 0", "s")


def _beside_peers(
    problem: Problem, limits: tuple[float, ...]
) -> tuple[list[list[str]], Mapping[float, tuple[float, float]]]:
    """A row for each, and for each time limit the certified gap in % and the seconds it took."""
    plans: dict[str, tuple[Mapping[str, Placement], float]] = {}
    bounds, gaps = [], {}
    for seconds in limits:
        solution = solve(problem, time_limit_s=seconds, alternatives=0)
        plans[f"ours, given {seconds:g} s"] = solution.placements, solution.wall_s
        bounds.append(solution.goals[0].bound)
        gaps[seconds] = 100 * solution.goals[0].gap, solution.wall_s
    peers = dict(PEERS)
    if len(problem.asks) <= DIRECT_UP_TO:
        peers["CP-SAT alone, cold, 20 s"] = cp_sat(20.0)
    seen = board(problem)
    for name, peer in peers.items():
        chosen, took = timed(peer, seen)
        plans[name] = placements(seen, chosen), took
    return [_row(problem, name, plan, took, min(bounds)) for name, (plan, took) in plans.items()], gaps


def _row(problem: Problem, name: str, plan: Mapping[str, Placement], took: float, bound: int) -> list[str]:
    if broken := violations(problem, plan):
        raise AssertionError(f"{name}: {broken[0]}")
    reached = welfare(problem, plan)
    by_priority = [
        f"{sum(ask.id in plan for ask in problem.asks if ask.priority == level)}"
        f"/{sum(ask.priority == level for ask in problem.asks)}"
        for level in (2, 1, 0)
    ]
    cost = sum(placement.cost_micros for placement in plan.values())
    return [
        name,
        f"{reached / 1e6:,.0f}",
        f"{100 * (1 - reached / bound):.2f}",
        f"{cost / 1e6:,.0f}",
        str(len(plan)),
        *by_priority,
        f"{took:.2f}",
    ]


def _churned(size: tuple[int, int], before_s: float, target_s: float) -> list[Figure]:
    """One request in `LEAVE` gone and as many new ones, solved again from the plan, prices and pairs of before: among
    requests that are all free to go elsewhere, and among leases that run, whose move costs and whose end costs more."""
    more = size[0] // LEAVE
    whole = federation(asks=size[0] + more, groups=size[1], load=1.25 * (1 + 1 / LEAVE))
    memory = Memory()
    first = solve(replace(whole, asks=whole.asks[: size[0]]), time_limit_s=before_s, alternatives=0, memory=memory)
    free = replace(whole, asks=whole.asks[more:])
    again = solve(free, time_limit_s=target_s, alternatives=0, details=0, previous=first, memory=memory)
    running = replace(whole, asks=tuple(_running(ask, first.placements.get(ask.id)) for ask in whole.asks))
    kept = Memory()
    before = replace(running, asks=running.asks[: size[0]])
    went_on = solve(before, time_limit_s=before_s, alternatives=0, previous=first, memory=kept)
    leases = replace(running, asks=running.asks[more:])
    moving = solve(leases, time_limit_s=target_s, alternatives=0, details=0, previous=went_on, memory=kept)
    found = []
    for who, solution, was in (("requests", again, first), ("running leases", moving, went_on)):
        moved = sum(placement.moved for placement in solution.placements.values())
        leases_say = "" if solution is again else f", {moved:,} leases moved, {len(solution.ended):,} ended"
        found += [
            Figure(
                f"5 % churn of {who} solved again at {size[0]:,} × {size[1]:,}, given {target_s:g} s",
                f"{solution.wall_s:.2f} s{leases_say}",
                f"< {target_s:g} s",
                solution.wall_s < target_s,
            ),
            Figure(
                f"certified gap of that (the plan before, given {before_s:g} s: {100 * was.goals[0].gap:.2f} %)",
                f"{100 * solution.goals[0].gap:.2f} %",
            ),
        ]
    return found


def _running(ask: Ask, placement: Placement | None) -> Ask:
    """The request as a lease that runs where it was placed; to move it costs 5 % of its value, to end it 10 % of it."""
    if placement is None:
        return ask
    value = ask.value_micros or 0
    held = tuple(Held(group=part.group, workers=part.workers) for part in placement.parts)
    return replace(ask, running=Running(held=held, move_micros=value // 20, end_micros=value // 10))


def _regimes(quick: bool) -> tuple[list[list[str]], int]:
    rows, worse = [], 0
    size = (100, 50) if quick else (1_000, 200)
    for load in (0.5, 0.9, 1.25):
        for budgets in (False, True):
            cells = []
            for seed in range(1 if quick else 3):
                problem = federation(asks=size[0], groups=size[1], load=load, budgets=budgets, seed=seed)
                solution = solve(problem, time_limit_s=1.0, alternatives=0)
                bound, ours = solution.goals[0].bound, welfare(problem, solution.placements)
                seen = board(problem)
                best = max(welfare(problem, placements(seen, peer(seen))) for peer in PEERS.values())
                worse += best > ours
                cells.append((100 * (1 - ours / bound), 100 * (1 - best / bound)))
            shown = ", ".join(f"{own:.2f} | {other:.2f}" for own, other in cells)
            mean = f"mean {fmean(own for own, _ in cells):.2f} | {fmean(other for _, other in cells):.2f}"
            rows.append([f"{load:g}", "on" if budgets else "off", f"{shown} ({mean})"])
    return rows, worse


SECTION = Section(name="optimizer", order=40, about="the optimizer's plans beside greedy peers, with bounds", run=run)
