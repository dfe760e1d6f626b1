"""Everything about one request: where it goes and what else was looked at, or why nowhere and what would help."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from broker.kit.durations import format_duration
from lendmesh.grid import Column, Grid
from lendmesh.problems.answer import dollars, helpful
from lendmesh.problems.tables import lost_by, shortest, size, start, where
from lendmesh.show import money
from optimizer.explain import sentence
from optimizer.problem import Ask, Problem
from optimizer.solution import Placement, Refusal, Solution


def about(problem: Problem, solution: Solution, name: str, out: Console) -> None:
    """All that is known about one request; it is one of the problem's."""
    ask = next(each for each in problem.asks if each.id == name)
    placed = solution.placements.get(name)
    out.print(Text.assemble((name, "bold"), f" of {ask.tenant}: {size(ask)} devices for "
                            f"{format_duration(ask.duration_s)}"))  # fmt: skip
    if placed is not None:
        _about_placed(ask, placed, out)
    else:
        _about_refused(ask, solution.unplaced[name], out)


def _about_placed(ask: Ask, placed: Placement, out: Console) -> None:
    form = f" in its form {placed.form}" if placed.form else ""
    out.print(
        f"  goes to {where(ask, placed)}{form}, {start(placed.start_s)}, for {format_duration(placed.duration_s)}: "
        f"{placed.devices} devices at {money(placed.price_micros)} a device-hour, {money(placed.cost_micros)} at most"
    )
    if placed.loss_micros:
        out.print(f"  {money(placed.loss_micros)} count beside the cost: reclaims to be expected, waiting, moving")
    for part in placed.parts:
        if part.nodes:
            nodes = ", ".join(f"{units} on node {node}" for node, units in part.nodes)
            out.print(Text(f"  on {part.group}: {nodes}", style="dim"))
    if placed.considered:
        grid = Grid("INSTEAD OF", Column("$/H", right=True), Column("COST", right=True), Column("BECAUSE", fold=True))
        for other in placed.considered:
            grid.add(other.group, dollars(other.price_micros), dollars(other.cost_micros), lost_by(other))
        out.print()
        out.print(grid)


def _about_refused(ask: Ask, refusal: Refusal, out: Console) -> None:
    out.print(Text(f"  is not placed: {shortest(refusal)}"))
    if refusal.outbid_micros is not None:
        out.print(f"  its best choice misses the clearing prices by {money(refusal.outbid_micros)}")
    for limit in refusal.binding:
        out.print(Text(f"  in the way: {sentence(limit)}"))
    if refusal.removed:
        grid = Grid("REMOVED BECAUSE", Column("OFFERS", right=True), Column("BY THIS ALONE", right=True))
        for bit, count in sorted(refusal.removed.items(), key=lambda each: -each[1]):
            grid.add(sentence(bit), str(count), str(refusal.only.get(bit, 0)))
        out.print()
        out.print(grid)
    if refusal.changes:
        grid = Grid("IT WOULD BE PLACED WITH", "ON", Column("COST", right=True))
        for change in refusal.changes:
            grid.add(Text(helpful(change, ask), style="green"), change.group, dollars(change.cost_micros))
        out.print()
        out.print(grid)
    elif not refusal.detailed:
        out.print("  What would help was not looked for: there are too many requests before it.", style="dim")
