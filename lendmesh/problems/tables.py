"""A solution for people: what goes where and why there, what does not and what would help, what is left, how good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from broker.kit.durations import format_duration
from lendmesh.grid import Column, Grid
from lendmesh.problems.answer import dollars, helpful, is_money, weakest
from lendmesh.problems.usage import scarcity, usage
from lendmesh.show import money
from optimizer.explain import sentence
from optimizer.problem import Aim, Ask, Problem
from optimizer.solution import Alternative, Change, Goal, Limit, Lost, Placement, Refusal, Solution, Status, Why

Row = TypeVar("Row")
MOST_ROWS = 100
"""So many rows of a table are shown; who needs all of them takes ``--out json``."""


def draw(problem: Problem, solution: Solution, out: Console) -> None:
    """Everything, in the order in which people ask."""
    asks = {ask.id: ask for ask in problem.asks}
    if solution.placements:
        out.print(placements(problem, asks, solution))
        _more(out, len(solution.placements))
        out.print()
    if solution.unplaced:
        out.print(unplaced(asks, solution))
        _more(out, len(solution.unplaced))
        out.print()
    out.print(offers(problem, solution))
    _more(out, len(problem.groups))
    out.print()
    out.print(goals(solution.goals))
    if solution.fairness is not None:
        out.print()
        out.print(fairness(solution))
    out.print()


def _more(out: Console, rows: int) -> None:
    if rows > MOST_ROWS:
        out.print(f"and {rows - MOST_ROWS:,} more; `--out json` has all of them", style="dim")


def placements(problem: Problem, asks: dict[str, Ask], solution: Solution) -> Grid:
    """Where each request goes, and why there."""
    grid = Grid(
        "REQUEST",
        Column("TENANT", drop=2),
        Column("WHERE", fold=True),
        "WHEN",
        Column("FOR", drop=3),
        Column("DEVICES", right=True),
        Column("$/H", right=True),
        Column("COST", right=True),
        Column("TIER", drop=4),
        Column("WHY THIS ONE", fold=True, drop=1),
        title="Placed",
    )
    for name, placed in _first(solution.placements.items()):
        ask = asks[name]
        grid.add(
            name,
            ask.tenant,
            where(ask, placed),
            start(placed.start_s),
            format_duration(placed.duration_s),
            str(placed.devices),
            dollars(placed.price_micros),
            dollars(placed.cost_micros),
            _tier(ask, placed),
            Text(_because(placed), style="dim"),
        )
    return grid


def unplaced(asks: dict[str, Ask], solution: Solution) -> Grid:
    """What goes nowhere: the shortest reason, and the smallest change that would help."""
    grid = Grid(
        "REQUEST",
        Column("TENANT", drop=2),
        Column("DEVICES", right=True),
        Column("FOR", drop=1),
        Column("WHY NOT", fold=True),
        Column("IT WOULD BE PLACED WITH", fold=True),
        title="Not placed",
    )
    for name, refusal in _first(solution.unplaced.items()):
        ask = asks[name]
        ended = "the plan ends it: " if name in solution.ended else ""
        grid.add(
            name,
            ask.tenant,
            size(ask),
            format_duration(ask.duration_s),
            ended + shortest(refusal),
            Text(_smallest(refusal.changes, ask), style="green"),
        )
    return grid


def offers(problem: Problem, solution: Solution) -> Grid:
    """How much of each offer is used when it is fullest, and what an hour of it is worth."""
    used, scarce = usage(problem, solution.placements), scarcity(problem, solution)
    priced = any(limit is Limit.GROUP for limit, _ in solution.prices)
    grid = Grid(
        "OFFER",
        Column("CLUSTER", drop=2),
        Column("DEVICE", drop=1),
        Column("SUPPLY", right=True),
        Column("USED", right=True),
        Column("$/H", right=True),
        Column("CLEARING", right=True, drop=3),
        Column("WHY SOME IS LEFT", fold=True, drop=4),
        title="Offers, in devices" + (" when fullest" if len(problem.starts) > 1 else ""),
    )
    for group in _first(problem.groups):
        use = used[group.id]
        at = use.fullest
        full = use.used[at] >= use.supply[at]
        grid.add(
            group.id,
            group.cluster,
            group.kind or "–",
            str(use.supply[at] * use.unit),
            Text(str(use.used[at] * use.unit), style="" if not full else "bold"),
            dollars(group.price_micros),
            f"{(group.price_micros + scarce.get(group.id, 0)) / 1e6:.2f}" if priced else "–",
            Text(_left(solution, group.id), style="dim"),
        )
    return grid


def goals(reached: Sequence[Goal]) -> Grid:
    """What the plan reaches, and what no plan can pass."""
    grid = Grid("GOAL", Column("REACHED", right=True), Column("BOUND", right=True), Column("GAP", right=True))
    for goal in reached:
        grid.add(
            f"{'most' if goal.maximise else 'least'} {goal.name}",
            _amount(goal.name, goal.reached),
            _amount(goal.name, goal.bound),
            Text("proved best", style="green") if goal.gap == 0 else percent(goal.gap),
        )
    return grid


def fairness(solution: Solution) -> Grid:
    """What tenants get of what they are entitled to."""
    fair = solution.fairness
    assert fair is not None
    grid = Grid(
        "TENANT",
        Column("GUARANTEED", right=True),
        Column("DEVICES", right=True),
        Column("ENTITLED", right=True),
        Column("OF THAT PLACED", right=True),
        Column("DOMINANT SHARE", right=True),
        Column("COULD USE MORE THAN", fold=True),
        title="Tenants",
    )
    for tenant, share in sorted(fair.tenants.items()):
        envied = ", ".join(f"{each.devices} of {each.of}" for each in fair.envy if each.tenant == tenant)
        grid.add(
            tenant,
            str(share.guaranteed),
            str(share.devices),
            str(share.entitled),
            str(share.entitled_placed),
            percent(share.dominant),
            envied or "–",
        )
    return grid


def summary(problem: Problem, solution: Solution, *, stopped: bool) -> Text:
    """One line: how much, how good, how long."""
    done = len(solution.placements)
    line = Text(f"{done} of {len(problem.asks)} requests placed for {money(solution.cost_micros)}")
    if problem.aim is Aim.WELFARE and solution.goals:
        line.append(f", welfare {money_signed(solution.goals[-1].reached)}")
    if solution.status is Status.OPTIMAL:
        line.append("; ").append("no plan is better", style="green")
    else:
        line.append(
            f"; at most {percent(solution.gap)} from the best ({weakest(solution)}; bound by {_proof(solution)})"
        )
    line.append(f"; {solution.wall_s:.2f} s{', stopped' if stopped else ''}")
    if trouble := solution.stats.get("trouble"):
        line.append(f"\nA stage was left out, so this may be less than it could be: {trouble}", style="yellow")
    return line


def where(ask: Ask, placed: Placement) -> str:
    """``a``, or ``a ×3 + b ×1`` for workers on several offers."""
    if len(placed.parts) == 1:
        there = placed.group
    else:
        there = " + ".join(f"{part.group} ×{part.workers}" for part in placed.parts)
    return there + (" (moved)" if placed.moved else " (stays)" if ask.running is not None else "")


def start(seconds: int) -> str:
    """``now`` or ``in 6h``."""
    return f"in {format_duration(seconds)}" if seconds else "now"


def percent(share: float) -> str:
    """A share of one, with as many digits as tell it from nothing."""
    return f"{share:.1%}" if share >= 0.001 or share == 0 else f"{share:.1e}" if share < 1e-5 else f"{share:.3%}"


def money_signed(micros: int) -> str:
    """Rounded to the cent, for reading."""
    return f"{'-' if micros < 0 else ''}${abs(micros) / 1e6:,.2f}"


def size(ask: Ask) -> str:
    """``8``, or ``4 × 8`` for workers."""
    return f"{ask.workers} × {ask.devices}" if ask.workers > 1 else str(ask.devices)


def lost_by(other: Alternative) -> str:
    """Why an offer was not the one."""
    return sentence(other.why) if other.why else sentence(other.lost)


def shortest(refusal: Refusal) -> str:
    """Why it is not placed, in as few words as say it."""
    if refusal.binding:
        return sentence(refusal.binding[0])
    if refusal.groups == 0:
        return "nobody offers anything"
    if refusal.eligible == 0:
        first = sorted(refusal.only.items() or refusal.removed.items(), key=lambda each: -each[1])[:2]
        listed = "; ".join(f"{sentence(bit)} ({count} of {refusal.groups})" for bit, count in first)
        return f"no offer suits: {listed}" if listed else "no offer suits"
    if refusal.outbid_micros:
        return f"outbid by {money(refusal.outbid_micros)}"
    return f"others take what it needs ({refusal.eligible} of {refusal.groups} offers would suit)"


def _because(placed: Placement) -> str:
    """What the next best offer would have been, and why it is not."""
    able = [other for other in placed.considered if other.lost is not Lost.INELIGIBLE]
    if not able:
        return "no other offer suits" if placed.considered or placed.removed else ""
    other = able[0]
    return f"{other.group} at {money(other.price_micros)}: {lost_by(other)}"


def _smallest(changes: Sequence[Change], ask: Ask) -> str:
    return f"{helpful(changes[0], ask)} → {changes[0].group}" if changes else "–"


def _left(solution: Solution, group: str) -> str:
    idle = solution.unused.get(group)
    if idle is None:
        return "–"
    if not idle.asks:
        return "everybody has what they asked for"
    if idle.cut_micros:
        return f"{money_signed(idle.cut_micros)} an hour too dear for those left out"
    if idle.eligible:
        return f"would suit {idle.eligible} of {idle.asks} left out, were they alone"
    bit, count = max(idle.removed.items(), key=lambda each: each[1], default=(Why(0), 0))
    return f"suits none of {idle.asks} left out: {sentence(bit)} ({count})" if count else "suits none of those left out"


def _tier(ask: Ask, placed: Placement) -> str:
    if not ask.tiers:
        return "–"
    return ask.tiers[placed.tier].name or str(placed.tier + 1)


def _amount(goal: str, count: int) -> str:
    return money_signed(count) if is_money(goal) else f"{count:,}"


def _proof(solution: Solution) -> str:
    """What proved the bound of the goal that is farthest from it; it holds over the whole problem."""
    goal = next((goal for goal in solution.goals if goal.gap > 0), None)
    return "" if goal is None else goal.proof.value


def _first(rows: Iterable[Row]) -> list[Row]:
    return list(islice(rows, MOST_ROWS))
