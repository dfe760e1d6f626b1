"""The eligible (ask, group) pairs of a problem as columns: what the solvers choose from.

Asks and groups are put in order of their ids first, so that the same problem in another order has the same answer.
The pairs of an ask lie together, best first by what matters to that ask alone: tier, confidential where preferred,
cost, tightness of fit. A greedy takes the first that still fits; the exact solver keeps the first few where there are
too many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from optimizer.filter import Bits, Bools, Ints, Market, judge
from optimizer.problem import Aim, Ask, Confidential, Group, Problem

SLICE = 500_000
"""(ask, group) cells judged at a time: about 40 MB."""


@dataclass(frozen=True)
class Pairs:
    """Columns of equal length, one entry for each eligible pair, and where each ask's pairs begin."""

    problem: Problem
    """In canonical order; indices below refer to it."""
    market: Market
    why: Bits
    """Asks × groups: why each pair is not eligible; 0 where it is."""
    ask: Ints
    group: Ints
    units: Ints
    devices: Ints
    cost: Ints
    tier: Ints
    plain: Ints
    """1 where the ask prefers confidential and the group is not."""
    slack: Ints
    """Units the group would have left, taken alone: less is tighter."""
    start: Ints
    """Pairs of ask i are start[i]:start[i + 1]."""

    @property
    def asks(self) -> tuple[Ask, ...]:
        return self.problem.asks

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.problem.groups

    @cached_property
    def same_node(self) -> Bools:
        """Which asks want one node."""
        return np.array([ask.same_node for ask in self.asks], dtype=np.bool_)

    @cached_property
    def holders(self) -> dict[tuple[str, str], Ints]:
        """("budgets" | "quotas", id) → the asks that draw on it."""
        found: dict[tuple[str, str], list[int]] = {}
        for at, ask in enumerate(self.asks):
            for name in set(ask.budgets):
                found.setdefault(("budgets", name), []).append(at)
            for name in set(ask.quotas):
                found.setdefault(("quotas", name), []).append(at)
        return {key: np.array(asks, dtype=np.int64) for key, asks in found.items()}

    def __len__(self) -> int:
        return len(self.ask)

    def of(self, ask: int) -> range:
        """The pairs of one ask, best first."""
        return range(int(self.start[ask]), int(self.start[ask + 1]))


def compile_pairs(problem: Problem) -> Pairs:
    """Judge every pair and keep the eligible ones."""
    problem = replace(
        problem,
        groups=tuple(sorted(problem.groups, key=lambda group: group.id)),
        asks=tuple(sorted(problem.asks, key=lambda ask: ask.id)),
    )
    market = Market(problem)
    step = min(2**13, max(1, SLICE // max(1, len(market))))
    parts: list[Ints] = [np.zeros((8, 0), dtype=np.int64)]
    why: list[Bits] = [np.zeros((0, len(market)), dtype=np.uint32)]
    for low in range(0, len(problem.asks), step):
        asks = problem.asks[low : low + step]
        seen = judge(market, asks, prices=any(ask.price_cap_micros is not None or ask.tiers for ask in asks))
        why.append(seen.why)
        row, group = np.nonzero(seen.why == 0)
        prefers = np.array([ask.confidential is Confidential.PREFER for ask in asks], dtype=np.bool_)
        units = seen.units[row, group]
        tier, cost = seen.tier[row, group], seen.cost[row, group]
        plain = (prefers[row] & ~market.confidential[group]).astype(np.int64)
        slack = market.count[group] - units
        # A cost is below 2^50 and a row below 2^13, so that one number holds both; groups come in order, and sorting
        # by the last key first is stable.
        wish = np.zeros_like(row) if problem.aim is Aim.WELFARE else 2 * tier + plain
        best = np.lexsort((slack, (row << 50) | cost)) if not wish.any() else np.lexsort((slack, cost, wish, row))
        part = np.stack((row + low, group, units, seen.devices[row, group], cost, tier, plain, slack))
        parts.append(part[:, best])
    columns: Ints = np.concatenate(parts, axis=1)
    ask, group, units, devices, cost, tier, plain, slack = columns
    start = np.searchsorted(ask, np.arange(len(problem.asks) + 1)).astype(np.int64)
    return Pairs(
        problem=problem,
        market=market,
        why=np.concatenate(why),
        ask=ask,
        group=group,
        units=units,
        devices=devices,
        cost=cost,
        tier=tier,
        plain=plain,
        slack=slack,
        start=start,
    )
