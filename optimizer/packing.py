"""A tighter bound for the price of a moment: groups cannot be filled with fractions of a gang.

The bound of the prices lets every group sell its last unit. Here the assignment is priced instead: each ask is charged
what it gains at the prices, whichever group it goes to, budgets, quotas and shared capacities keep their prices, and
every group packs by itself, exactly, what is still worth something after that. Relaxing *one group for each ask* is as
lawful as relaxing capacity, so the sum bounds every plan; and no group packs more than its units were worth, so the
bound is never weaker. (It is the Lagrangian of the generalised assignment problem with the assignment relaxed.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from optimizer.market import Floats, Ints
from optimizer.pairs import Pairs
from optimizer.prices import Prices

WORK = 40_000_000
"""Items × units of one group above which it is not packed but sold at its price."""


def packed_bound(pairs: Pairs, prices: Prices, left: Callable[[], float]) -> int:
    """A bound on the profit of every plan; where time ends, the groups not yet packed count at their price.

    A group is packed whole or not at all: where requests may be split, or where there are several buckets of time,
    groups are sold at their price.
    """
    market, groups = prices.market, len(pairs.groups)
    if pairs.market.buckets > 1 or pairs.splits.any() or pairs.several:
        return prices.whole_bound
    gain = prices.margins()
    price = prices.vector[:groups]
    worth = prices.reduced + pairs.units * price[pairs.group] - gain[pairs.ask]
    total = float(prices.vector[groups:] @ market.most[groups:] + gain.sum())
    dear = np.flatnonzero((worth > 0) & (price[pairs.group] > 0))
    dear = dear[np.argsort(pairs.group[dear], kind="stable")]
    cuts = np.searchsorted(pairs.group[dear], np.arange(groups + 1))
    for at in np.flatnonzero(price > 0).tolist():
        sold = float(price[at] * market.most[at])
        mine = dear[cuts[at] : cuts[at + 1]]
        room = int(market.most[at])
        if left() > 0 and len(mine) * room <= WORK:
            sold = min(sold, _packed(worth[mine], pairs.units[mine], room))
        total += sold
    return math.floor(total * (1 + 1e-9) + 1e-6)


def _packed(worth: Floats, units: Ints, room: int) -> float:
    """The most that fits into so many units: the 0/1 knapsack, by dynamic programming over the units used."""
    if int(units.sum()) <= room:
        return float(worth.sum())
    best = np.zeros(room + 1)
    for value, size in zip(worth.tolist(), units.tolist(), strict=True):
        if size <= room:
            best[size:] = np.maximum(best[size:], best[: room + 1 - size] + value)
    return float(best[room])
