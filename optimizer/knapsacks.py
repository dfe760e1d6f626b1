"""A bound from what prices leave out: that a budget or a quota is spent on whole requests.

At prices of groups alone, requests that share no budget or quota have nothing to do with each other. What those that do
can gain within them is a knapsack of its own, and never more than the prices of the budgets said; so solving one part
after another, and counting the others at their prices, lowers the bound step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from optimizer.cpsat import Model
from optimizer.effort import Effort
from optimizer.ledger import Ledger
from optimizer.market import Floats, Ints
from optimizer.pairs import Pairs
from optimizer.prices import Prices
from optimizer.problem import Ask

KNAPSACK = 1.0
"""Deterministic seconds for one tenant's knapsack; its bound counts also where it is cut short."""


@dataclass(frozen=True, slots=True)
class Tightened:
    """After one more part."""

    bound: int
    """No plan has a higher profit."""
    solves: int
    work: float
    """In deterministic seconds."""


def tightened(
    pairs: Pairs, prices: Prices, plan: Iterable[int], left: Callable[[], float], effort: Effort
) -> Iterator[Tightened]:
    """Bounds, each at least as low as the one before, the weightiest part first, while time lasts.

    ``plan`` are the pairs of the plan so far, a hint.
    """
    market, hard = prices.market, pairs.usage.hard
    vector = prices.vector.copy()
    vector[hard:] = 0
    rest = prices.at(vector)
    margins = prices.margins()
    earned = prices.vector * market.most
    total = float(earned[:hard].sum())
    priced = _priced(pairs, earned)
    parts, known = [], 0.0
    for asks in sharing(pairs):
        drawn = [pairs.asks[at] for at in asks.tolist()]
        shared = sum(priced.get(name, 0.0) for name in {name for ask in drawn for name in _names(ask)})
        part = shared + float(margins[asks].sum())
        known += part
        # Where nothing shared has a price, there is nothing that a knapsack would know better; and a split way mixes
        # whole ones, and a mixture can fill a budget that no whole one does.
        if shared and part > 0 and not pairs.splits[asks].any():
            parts.append((asks, part))
    for asks, part in sorted(parts, key=lambda each: -each[1]):
        if left() <= 0:
            return
        most, solves, work = _one(pairs, asks, rest, plan, replace(effort, seconds=left()))
        known += min(0.0, most - part)
        yield Tightened(int(np.ceil((total + known) * (1 + 1e-12))), solves, work)


def _priced(pairs: Pairs, earned: Floats) -> Mapping[tuple[str, str], float]:
    """What the whole of each budget and quota that has a price is worth at it."""
    names = [("budget", each.id) for each in pairs.problem.budgets]
    names += [("quota", each.id) for each in pairs.problem.quotas]
    worth = earned[pairs.usage.hard :].tolist()
    return {name: each for name, each in zip(names, worth, strict=True) if each}


def _names(ask: Ask) -> Iterator[tuple[str, str]]:
    """Of the budgets and quotas it draws on."""
    yield from (("budget", name) for name in ask.budgets)
    yield from (("quota", name) for name in ask.quotas)


def _one(pairs: Pairs, asks: Ints, rest: Floats, plan: Iterable[int], effort: Effort) -> tuple[float, int, float]:
    """The most these asks can gain at the prices within their budgets and quotas; how many solves, and their work."""
    own = np.concatenate([np.arange(pairs.start[ask], pairs.start[ask + 1]) for ask in asks])
    own = undominated(pairs, own[rest[own] > 0], rest)
    if not len(own):
        return 0.0, 0, 0.0
    # Rounded up to whole µUSD, so that the optimum of the rounded problem is never too low.
    gain = np.zeros(len(rest), dtype=np.int64)
    gain[own] = np.ceil(rest[own])
    free = Ledger(pairs)
    free.unlimited()
    model = Model(pairs, own, free)
    step = replace(effort, deterministic=effort.deterministic or KNAPSACK)
    found = model.solve(gain, [pair for pair in plan if gain[pair]], step)
    return float(found.best) if model.exact else np.inf, 1, found.work


def sharing(pairs: Pairs) -> list[Ints]:
    """Asks grouped so that no budget or quota reaches across two groups."""
    root = list(range(len(pairs.asks)))

    def find(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = root[at]
        return at

    first: dict[tuple[str, str], int] = {}
    for at, ask in enumerate(pairs.asks):
        for name in _names(ask):
            root[find(at)] = find(first.setdefault(name, at))
    parts: dict[int, list[int]] = {}
    for at in range(len(root)):
        parts.setdefault(find(at), []).append(at)
    return [np.array(part, dtype=np.int64) for part in parts.values()]


def undominated(pairs: Pairs, own: Ints, rest: Floats) -> Ints:
    """Pairs that are not beaten by another of the same ask and limits in gain, cost and devices at once."""
    drawn = _drawn(pairs, own)
    order = np.lexsort((pairs.devices[own], pairs.cost[own], -rest[own], drawn, pairs.ask[own]))
    keep, group, cost, devices = [], (-1, -1), 0, 0
    for pair, limits in zip(own[order].tolist(), drawn[order].tolist(), strict=True):
        if (int(pairs.ask[pair]), limits) != group:
            group, cost, devices = (int(pairs.ask[pair]), limits), 2**62, 2**62
        if int(pairs.cost[pair]) < cost or int(pairs.devices[pair]) < devices:
            keep.append(pair)
            cost, devices = min(cost, int(pairs.cost[pair])), min(devices, int(pairs.devices[pair]))
    return np.array(sorted(keep), dtype=np.int64)


def _drawn(pairs: Pairs, own: Ints) -> Ints:
    """A number for each of these pairs, the same where the same budgets and quotas count it.

    A cap on some groups, or a budget with a window, counts one pair of an ask and not another.
    """
    problem = pairs.problem
    windows = {(each.from_s, each.until_s) for each in problem.budgets}
    windows |= {(each.from_s, each.until_s) for each in problem.quotas}
    if windows <= {(0, None)} and all(quota.groups is None for quota in problem.quotas):
        return np.zeros(len(own), dtype=np.int64)
    used = pairs.usage.rows(own)
    numbers: dict[tuple[int, ...], int] = {}
    found = []
    for low, high in pairwise(used.indptr.tolist()):
        mine = used.indices[low:high]
        key = tuple(sorted(mine[mine >= pairs.usage.hard].tolist()))
        found.append(numbers.setdefault(key, len(numbers)))
    return np.array(found, dtype=np.int64)
