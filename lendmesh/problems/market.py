"""Prices as an ordered supply curve with what the market would clear at, and how the gap closed while it was solved."""

from __future__ import annotations

from collections.abc import Sequence

from lendmesh.problems.answer import is_money
from lendmesh.problems.canvas import (
    BOUND,
    CARD,
    CLEARING,
    DIM,
    FREE,
    GRID,
    INK,
    TAKEN,
    Frame,
    Point,
    Scale,
    Sheet,
    counted,
    ticks,
    wide,
)
from lendmesh.problems.solving import Run
from lendmesh.problems.tables import money_signed, percent
from lendmesh.problems.usage import scarcity, usage
from lendmesh.show import money
from optimizer.effort import Progress
from optimizer.problem import Aim, Problem
from optimizer.solution import Limit

AXIS = 46.0
"""Room for the numbers of an axis."""
FOOT = 48.0
"""Room below a chart for its axis and legend."""
ROWS = 9


def prices_title(problem: Problem, run: Run) -> tuple[str, str]:
    """Title and explanation of the card."""
    if any(limit is Limit.GROUP for limit, _ in run.solution.prices):
        return "Prices", "Offers from the cheapest: asked price, and the price at which supply meets demand"
    if problem.aim is Aim.WELFARE:
        return "Prices", "Offers from the cheapest; so small a problem is solved without clearing prices"
    return "Prices", "Offers from the cheapest; clearing prices are known where the aim is welfare"


def prices(sheet: Sheet, frame: Frame, problem: Problem, run: Run) -> None:
    """One step for each offer: as wide as it has devices, as high as its price."""
    use, scarce = usage(problem, run.solution.placements), scarcity(problem, run.solution)
    order = sorted(problem.groups, key=lambda group: (group.price_micros, group.id))
    devices = [use[group.id].supply[use[group.id].fullest] * group.unit for group in order]
    highest = max(group.price_micros + scarce.get(group.id, 0.0) for group in order) / 1e6
    chart = Frame(frame.left + AXIS, frame.top + 14, frame.right, frame.bottom - FOOT)
    across = Scale(0, max(1, sum(devices)), chart.left, chart.right)
    up = Scale(0, highest * 1.15 or 1, chart.bottom, chart.top)
    _grid(sheet, chart, up, [(each, f"${each:,.4g}") for each in ticks(0, up.high, 5)])
    sheet.text(chart.left - AXIS, chart.top - 6, "per device-hour", size=10.5, fill=DIM)
    begin, cleared = 0, False
    for group, many in zip(order, devices, strict=True):
        left, right, dear = across(begin), across(begin + many), group.price_micros / 1e6
        used = use[group.id].used[use[group.id].fullest] * group.unit
        said = f"{group.id}: {used:,} of {many:,} devices used at {money(group.price_micros)}"
        gap = 1.0 if right - left > 4 else 0.0
        middle = across(begin + min(used, many))
        sheet.box(left, up(dear), middle - left, chart.bottom - up(dear), TAKEN, hint=said)
        sheet.box(middle, up(dear), right - gap - middle, chart.bottom - up(dear), FREE, hint=said)
        _named(sheet, group.id, (left, right - gap), up(dear), chart.bottom, light=used * 2 > many)
        if group.id in scarce and scarce[group.id] > 0:
            cleared = True
            at = up(dear + scarce[group.id] / 1e6)
            sheet.line([(left, at), (right - gap, at)], CLEARING, width=2.5)
        begin += many
    for tick in ticks(0, across.high, 6):
        sheet.text(across(tick), chart.bottom + 15, counted(tick), size=10.5, fill=DIM, anchor="middle")
    legend = [(TAKEN, "used"), (FREE, "free")] + ([(f"-{CLEARING}", "clearing price")] if cleared else [])
    sheet.legend(frame.left, frame.bottom, legend)
    sheet.text(frame.right, frame.bottom, "devices, cheapest first", size=10.5, fill=DIM, anchor="end")


def gap_title(problem: Problem, run: Run) -> tuple[str, str]:
    """Title and explanation of the card."""
    solution = run.solution
    how = "no plan is better" if solution.gap == 0 else f"at most {percent(solution.gap)} from the best"
    return "How good", f"{how[:1].upper()}{how[1:]}, after {solution.wall_s:.2f} s"


def gap(sheet: Sheet, frame: Frame, problem: Problem, run: Run) -> None:
    """Reached and bound over time; the goals alone where it was over before there was anything to see."""
    steps = [step for step in run.steps if step.reached is not None and step.bound is not None]
    if len(steps) < 2:
        _goals(sheet, frame, run)
    elif len({step.goal for step in steps if step.goal}) == 1 and is_money(steps[0].goal) and steps[0].reached:
        _closing(sheet, frame, steps)
    else:
        _gaps(sheet, frame, steps)


def _closing(sheet: Sheet, frame: Frame, steps: Sequence[Progress]) -> None:
    reached = [(step.seconds, (step.reached or 0) / 1e6) for step in steps]
    bound = [(step.seconds, (step.bound or 0) / 1e6) for step in steps]
    # The first bound may be a sum of everything asked; what people look at is where the two lines meet.
    low, high = min(value for _, value in reached), max(value for _, value in bound)
    last, top = reached[-1][1], bound[-1][1]
    margin = max(abs(top) * 0.01, (top - last) * 3, top - low)
    low, high = max(low, last - 2 * margin), min(high, top + margin)
    pad = (high - low) * 0.08 or 1
    chart = Frame(frame.left + AXIS + 14, frame.top + 14, frame.right, frame.bottom - FOOT)
    up = Scale(low - pad, high + pad, chart.bottom, chart.top)
    across = _seconds(sheet, chart, steps)
    _grid(sheet, chart, up, [(each, f"${counted(each)}") for each in ticks(up.low, up.high, 5)])
    below, above = _stairs(reached, across, up), _stairs(bound, across, up)
    sheet.area([*above, *reversed(below)], BOUND, opacity=0.10)
    sheet.line(above, BOUND, width=2, name="bound")
    sheet.line(below, TAKEN, width=2.5, name="reached")
    sheet.dot(below[-1], TAKEN)
    sheet.dot(above[-1], BOUND)
    sheet.legend(frame.left, frame.bottom, [(f"-{TAKEN}", "reached"), (f"-{BOUND}", "no plan is better than")])
    sheet.text(frame.right, frame.bottom, "seconds", size=10.5, fill=DIM, anchor="end")


def _gaps(sheet: Sheet, frame: Frame, steps: Sequence[Progress]) -> None:
    """Where goals follow one another, their amounts can't share an axis; their gaps can."""
    points = []
    for step in steps:
        reached, bound = step.reached or 0, step.bound or 0
        points.append((step.seconds, 100 * abs(bound - reached) / max(1, abs(bound), abs(reached))))
    chart = Frame(frame.left + AXIS, frame.top + 14, frame.right, frame.bottom - FOOT)
    up = Scale(0, max(0.1, max(value for _, value in points)) * 1.1, chart.bottom, chart.top)
    across = _seconds(sheet, chart, steps)
    _grid(sheet, chart, up, [(each, f"{each:,.3g} %") for each in ticks(0, up.high, 5)])
    line = _stairs(points, across, up)
    sheet.area([(line[0][0], chart.bottom), *line, (line[-1][0], chart.bottom)], BOUND, opacity=0.10)
    sheet.line(line, BOUND, width=2.5, name="gap")
    sheet.legend(frame.left, frame.bottom, [(f"-{BOUND}", "gap of the first goal that is not proved")])
    sheet.text(frame.right, frame.bottom, "seconds", size=10.5, fill=DIM, anchor="end")


def _goals(sheet: Sheet, frame: Frame, run: Run) -> None:
    top = frame.top + 20
    for goal in run.solution.goals[:ROWS]:
        amount = money_signed(goal.reached) if is_money(goal.name) else f"{goal.reached:,}"
        state = "proved best" if goal.gap == 0 else f"{percent(goal.gap)} from its bound"
        said = f"{'most' if goal.maximise else 'least'} {goal.name}"
        room = frame.width - wide(amount, 12.5, bold=True) - 150
        sheet.text(frame.left, top, said, size=12.5, room=room)
        sheet.text(frame.right - 128, top, amount, size=12.5, bold=True, anchor="end")
        sheet.text(frame.right, top, state, size=11.5, fill=DIM if goal.gap else TAKEN, anchor="end")
        sheet.line([(frame.left, top + 9), (frame.right, top + 9)], GRID)
        top += 27
    if len(run.solution.goals) > ROWS:
        sheet.text(frame.left, top, f"and {len(run.solution.goals) - ROWS} goals more", size=11.5, fill=DIM)


def _seconds(sheet: Sheet, chart: Frame, steps: Sequence[Progress]) -> Scale:
    across = Scale(0, max(step.seconds for step in steps) or 1, chart.left, chart.right)
    for tick in ticks(0, across.high, 6):
        sheet.text(across(tick), chart.bottom + 15, f"{tick:,.4g}", size=10.5, fill=DIM, anchor="middle")
    return across


def _stairs(points: Sequence[tuple[float, float]], across: Scale, up: Scale) -> list[Point]:
    """What is known holds until something better is."""
    line: list[Point] = []
    for at, value in points:
        clipped = min(max(value, up.low), up.high)
        if line:
            line.append((across(at), line[-1][1]))
        line.append((across(at), up(clipped)))
    return line


def _grid(sheet: Sheet, chart: Frame, up: Scale, marks: Sequence[tuple[float, str]]) -> None:
    for value, words in marks:
        sheet.line([(chart.left, up(value)), (chart.right, up(value))], GRID)
        sheet.text(chart.left - 7, up(value) + 3.5, words, size=10.5, fill=DIM, anchor="end")


def _named(sheet: Sheet, name: str, span: tuple[float, float], top: float, bottom: float, *, light: bool) -> None:
    """The offer's name above its step where that is wide, sideways in it where it is narrow, else not at all."""
    left, right = span
    room, tall = right - left - 2, bottom - top - 14
    middle = (left + right) / 2
    if wide(name, 10.5) <= room:
        sheet.text(middle, top - 5, name, size=10.5, anchor="middle")
    elif room > 11 and tall > 30:
        sheet.sideways(middle + 3.5, bottom - 7, name, size=10.5, room=tall, fill=CARD if light else INK)
    elif room > 40:
        sheet.text(middle, top - 5, name, size=10.5, anchor="middle", room=room)
