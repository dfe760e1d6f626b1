"""How much of each offer is used from moment to moment, for problems in which something may start later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.kit.durations import format_duration
from lendmesh.problems.canvas import DIM, FREE, GRID, TAKEN, Frame, Scale, Sheet, spans
from optimizer.problem import Group, Problem
from optimizer.solution import Solution

TITLE = (
    "Use over time",
    "Devices of each offer: used, and free; dashed lines are moments at which something may start",
)
MOST = 16
ROW, AXIS = 40.0, 30.0


@dataclass(frozen=True)
class Row:
    """One offer's steps: (second, devices) from which on they hold."""

    name: str
    supply: tuple[tuple[int, int], ...]
    used: tuple[tuple[int, int], ...]
    device_hours: float


def rows(problem: Problem, solution: Solution) -> list[Row]:
    """The offers of which most is used, in the problem's order."""
    found = [_row(group, solution) for group in problem.groups]
    busiest = sorted(range(len(found)), key=lambda at: -found[at].device_hours)[:MOST]
    return [found[at] for at in sorted(busiest)]


def height(rows: Sequence[Row]) -> float:
    """What they take."""
    return ROW * len(rows) + AXIS + 22


def draw(sheet: Sheet, frame: Frame, rows: Sequence[Row], problem: Problem) -> None:
    """A row for each offer, over one axis of time."""
    end = _end(rows, problem)
    chart = Frame(frame.left + 150, frame.top, frame.right - 44, frame.bottom - AXIS - 18)
    across = Scale(0, end, chart.left, chart.right)
    for second in spans(end, 14):
        sheet.line([(across(second), chart.top), (across(second), chart.top + ROW * len(rows))], GRID)
        sheet.text(across(second), chart.top + ROW * len(rows) + 16, format_duration(second) if second else "now",
                   size=10.5, fill=DIM, anchor="middle")  # fmt: skip
    for at, row in enumerate(rows):
        base = chart.top + ROW * (at + 1) - 4
        most = max(1, *(many for _, many in (*row.supply, *row.used)))
        up = Scale(0, most, base, base - ROW + 12)
        sheet.text(chart.left - 10, base - ROW / 2 + 10, row.name, size=12.5, anchor="end", room=138)
        sheet.text(chart.right + 8, up(most) + 9, f"{most:,}", size=10.5, fill=DIM)
        sheet.area(_under(row.supply, end, across, up), FREE, hint=f"{row.name}: free")
        sheet.area(_under(row.used, end, across, up), TAKEN, hint=f"{row.name}: used")
        sheet.line([(chart.left, base), (chart.right, base)], GRID)
    for second in problem.starts:
        if second <= end:
            sheet.line([(across(second), chart.top), (across(second), chart.top + ROW * len(rows))], DIM, dash="3 4")
    sheet.legend(frame.left, frame.bottom, [(TAKEN, "used"), (FREE, "free")])


def _row(group: Group, solution: Solution) -> Row:
    changes: dict[int, int] = {0: 0}
    hours = 0.0
    for placed in solution.placements.values():
        for part in placed.parts:
            if part.group == group.id:
                end = placed.start_s + placed.duration_s
                changes[placed.start_s] = changes.get(placed.start_s, 0) + part.devices
                changes[end] = changes.get(end, 0) - part.devices
                hours += part.devices * placed.duration_s / 3600
    later: dict[int, int] = {0: group.count * group.unit}
    for change in group.later:
        later[change.at_s] = later.get(change.at_s, 0) + change.units * group.unit
    return Row(group.id, _levels(later), _levels(changes), hours)


def _levels(changes: dict[int, int]) -> tuple[tuple[int, int], ...]:
    level, found = 0, []
    for second in sorted(changes):
        level += changes[second]
        found.append((second, level))
    return tuple(found)


def _end(rows: Sequence[Row], problem: Problem) -> int:
    """Where the picture ends: a little after the last thing does."""
    ends = [second for row in rows for second, _ in (*row.used, *row.supply)]
    return max(3600, *ends, problem.starts[-1]) * 103 // 100


def _under(levels: Sequence[tuple[int, int]], end: int, across: Scale, up: Scale) -> list[tuple[float, float]]:
    points = [(across(0), up(0))]
    for (second, level), (until, _) in zip(levels, [*levels[1:], (end, 0)], strict=True):
        points += [(across(second), up(level)), (across(until), up(level))]
    return [*points, (across(end), up(0))]
