"""Bars: supply and demand of each device kind, and what each tenant gets of what it asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lendmesh.problems.canvas import DIM, FREE, INK, TAKEN, Frame, Scale, Sheet, wide
from lendmesh.problems.solving import Run
from lendmesh.problems.usage import usage
from optimizer.problem import Ask, Group, Problem
from optimizer.solution import Solution

MOST = 8
"""So many bars; what comes after is one bar together."""
CHOICES = 3
"""So many choices of kinds have a bar of their own."""
MISSING = "url(#missing)"
TENANTS = ("Who gets what", "Devices asked for by each tenant: placed, and not placed")
TALLEST = 40.0


@dataclass(frozen=True)
class Bar:
    """One bar: what is used, what is free, and what is asked for beyond."""

    name: str
    used: int
    free: int
    missing: int

    @property
    def total(self) -> int:
        return self.used + self.free + self.missing


def supply_title(problem: Problem) -> tuple[str, str]:
    """Title and explanation of the card."""
    when = "when the kind is fullest" if len(problem.starts) > 1 else "of each kind"
    return "Supply and demand", f"Devices {when}: used, free, and asked for but not placed"


def supply(sheet: Sheet, frame: Frame, problem: Problem, run: Run) -> None:
    """A bar for each kind, and one for each choice of kinds that goes unserved."""
    bars = _most(by_kind(problem, run.solution))
    _draw(sheet, frame, bars, [_said(bar) for bar in bars])
    sheet.legend(frame.left, frame.bottom, [(TAKEN, "used"), (FREE, "free"), (MISSING, "asked, not placed")])


def _said(bar: Bar) -> str:
    used = f"{bar.used:,} of {bar.used + bar.free:,} used" if bar.used + bar.free else ""
    return ", ".join(filter(None, (used, f"{bar.missing:,} not placed" if bar.missing else "")))


def tenants(sheet: Sheet, frame: Frame, problem: Problem, run: Run) -> None:
    """A bar for each tenant."""
    bars = _most(by_tenant(problem, run.solution))
    _draw(sheet, frame, bars, [f"{bar.used:,} of {bar.total:,} placed" for bar in bars])
    sheet.legend(frame.left, frame.bottom, [(TAKEN, "placed"), (MISSING, "not placed")])


def by_kind(problem: Problem, solution: Solution) -> list[Bar]:
    """Kinds by supply; then what is not placed and would take one of several kinds."""
    use = usage(problem, solution.placements)
    groups: dict[str, list[Group]] = {}
    for group in problem.groups:
        groups.setdefault(group.kind, []).append(group)
    missing: Counter[str] = Counter()
    for ask in problem.asks:
        if ask.id in solution.unplaced:
            missing[_kinds(ask, problem)] += ask.total
    bars = []
    for kind, members in groups.items():
        supplies = [
            sum(use[group.id].supply[at] * group.unit for group in members) for at in range(len(problem.starts))
        ]
        used = [sum(use[group.id].used[at] * group.unit for group in members) for at in range(len(problem.starts))]
        at = max(range(len(used)), key=lambda at: (used[at] / max(1, supplies[at]), -at))
        bars.append(
            Bar(kind or "(unnamed)", used[at], max(0, supplies[at] - used[at]), missing.pop(kind or "(unnamed)", 0))
        )
    bars.sort(key=lambda bar: -bar.total)
    if len(missing) > CHOICES:
        missing = Counter({"several kinds": missing.total()})
    return bars + [Bar(kinds, 0, 0, many) for kinds, many in missing.most_common()]


def by_tenant(problem: Problem, solution: Solution) -> list[Bar]:
    """Tenants by what they ask for."""
    placed: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for ask in problem.asks:
        if ask.id in solution.placements:
            placed[ask.tenant] += solution.placements[ask.id].devices
        else:
            missing[ask.tenant] += ask.total
    bars = [Bar(name, placed[name], 0, missing[name]) for name in {ask.tenant for ask in problem.asks}]
    return sorted(bars, key=lambda bar: (-bar.total, bar.name))


def _kinds(ask: Ask, problem: Problem) -> str:
    if ask.matched is None:
        return "any kind"
    kinds = sorted({group.kind or "(unnamed)" for group in problem.groups if group.id in ask.matched})
    return " or ".join(kinds) if kinds else "not on offer"


def _most(bars: Sequence[Bar]) -> list[Bar]:
    if len(bars) <= MOST:
        return list(bars)
    rest = bars[MOST - 1 :]
    used, free = sum(bar.used for bar in rest), sum(bar.free for bar in rest)
    return [*bars[: MOST - 1], Bar(f"{len(rest)} others", used, free, sum(bar.missing for bar in rest))]


def _draw(sheet: Sheet, frame: Frame, bars: Sequence[Bar], words: Sequence[str]) -> None:
    names = min(130.0, max((wide(bar.name, 12.5) for bar in bars), default=0) + 2)
    legend = 26.0
    step = min(TALLEST * 1.5, (frame.height - legend) / max(1, len(bars)))
    thick = min(20.0, step * 0.45)
    scale = Scale(0, max((bar.total for bar in bars), default=1) or 1, frame.left + names + 14, frame.right - 4)
    for at, (bar, said) in enumerate(zip(bars, words, strict=True)):
        top = frame.top + at * step + 14
        middle = top + thick / 2
        sheet.text(frame.left + names, middle + 4.5, bar.name, size=12.5, anchor="end", room=names)
        sheet.text(scale.begin, top - 4, said, size=11, fill=DIM if bar.used or bar.free else INK)
        free, gone = scale(bar.used), scale(bar.used + bar.free)
        sheet.box(scale.begin, top, free - scale.begin, thick, TAKEN, round_=2, hint=f"{bar.name}: {said}")
        sheet.box(free, top, gone - free, thick, FREE, round_=2, hint=f"{bar.name}: {said}")
        if bar.missing:
            gone += 2 if gone > scale.begin else 0
            sheet.box(gone, top, scale(bar.total) - gone, thick, MISSING, round_=2, hint=f"{bar.name}: {said}")
