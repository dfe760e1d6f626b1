"""How much of each offer a plan takes, from start to start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from optimizer.problem import MAX_DURATION, Problem
from optimizer.solution import Placement, Solution

ENDLESS = 2 * MAX_DURATION
"""Where the last bucket of time ends, for arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Units of one offer, for each bucket of the problem's time."""

    supply: tuple[int, ...]
    used: tuple[int, ...]
    unit: int
    """Devices in a unit."""

    @property
    def fullest(self) -> int:
        """The bucket in which the largest part is taken, the first where several are."""
        return max(range(len(self.supply)), key=lambda at: (self.used[at] / max(1, self.supply[at]), -at))


def buckets(starts: Sequence[int]) -> list[tuple[int, int]]:
    """From when to when, in seconds from now; the last is endless."""
    return list(pairwise([*starts, ENDLESS]))


def usage(problem: Problem, placements: Mapping[str, Placement]) -> dict[str, Usage]:
    """By offer. What a placement takes, it takes in every bucket that it touches."""
    spans = buckets(problem.starts)
    taken: Counter[tuple[str, int]] = Counter()
    for placement in placements.values():
        begin, end = placement.start_s, placement.start_s + placement.duration_s
        for at, (from_s, until_s) in enumerate(spans):
            if begin < until_s and from_s < end:
                for part in placement.parts:
                    taken[part.group, at] += part.units
    return {
        group.id: Usage(
            supply=tuple(group.free_within(from_s, until_s) for from_s, until_s in spans),
            used=tuple(taken[group.id, at] for at in range(len(spans))),
            unit=group.unit,
        )
        for group in problem.groups
    }


def scarcity(problem: Problem, solution: Solution) -> dict[str, float]:
    """µUSD per device-hour that an offer's clearing price adds to its own price, averaged over what runs there.

    The solver's prices are for a unit while it is held, however long; people compare hours. Offers without a clearing
    price, or without anything running there, are left out.
    """
    units: Counter[str] = Counter()
    hours: dict[str, float] = {}
    for placement in solution.placements.values():
        for part in placement.parts:
            units[part.group] += part.units
            hours[part.group] = hours.get(part.group, 0) + part.devices * placement.duration_s / 3600
    found = {}
    for (_, name), price in ((key, price) for key, price in solution.prices.items() if key[0] == "group"):
        if hours.get(name):
            found[name] = price * units[name] / hours[name]
    return found
