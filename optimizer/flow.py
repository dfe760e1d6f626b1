"""Plans by way of a flow: every device to where it is worth most, as if gangs could be cut, and then made whole again.

A minimum-cost flow of single units from requests to groups is solved in milliseconds and is exact about capacity, of
which a greedy order only guesses. It knows no gangs, so each request then goes where most of it flowed, if it fits;
and no budgets, so it flows twice: by bare profit, and by profit at the prices of budgets and quotas. (Firmament, OSDI
2016, places tasks by such a flow.)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from optimizer.greedy import Plan
from optimizer.ledger import Ledger, Seats
from optimizer.market import Floats, Ints
from optimizer.pairs import Pairs
from optimizer.prices import Prices

NEAR = 32
"""Pairs of each request that the flow may use, the best for it, where there are more than …"""
WHOLE = 200_000
"""… so many in all."""
FINE = 10_000
"""µUSD per unit that the flow tells apart: its costs are whole numbers."""


def flowed(pairs: Pairs, profit: Ints, prices: Prices) -> Iterator[Plan]:
    """Plans for one time; none where there are several, or where requests take several groups."""
    if pairs.market.buckets > 1 or pairs.several or pairs.splits.any() or pairs.must.any():
        return
    bare = profit.astype(np.float64)
    groups = len(pairs.groups)
    yield _settled(pairs, _sent(pairs, bare), bare)
    if np.any(prices.vector[groups:] > 0):
        kept = prices.vector.copy()
        kept[:groups] = 0
        worth = prices.at(kept)
        yield _settled(pairs, _sent(pairs, worth), prices.reduced)


def _sent(pairs: Pairs, worth: Floats) -> list[int]:
    """For each request that anything flowed for, the pair that most of it took."""
    which = np.arange(len(pairs))
    if len(pairs) > WHOLE:
        order = np.lexsort((-worth, pairs.ask))
        rank = np.arange(len(order)) - pairs.start[pairs.ask[order]]
        which = np.sort(order[rank < NEAR])
    which = which[worth[which] > 0]
    if not len(which):
        return []
    size = np.zeros(len(pairs.asks), dtype=np.int64)
    np.maximum.at(size, pairs.ask[which], pairs.units[which])
    gain = np.floor(worth[which] / FINE / np.maximum(1, pairs.units[which])).astype(np.int64)
    most = most_taken(pairs.ask[which], pairs.group[which], pairs.units[which], gain, size, pairs.market.count[:, 0])
    chosen: list[int] = which[most].tolist()
    return chosen


def most_taken(ask: Ints, group: Ints, units: Ints, gain: Ints, size: Ints, room: Ints) -> list[int]:
    """The flow of single units with the greatest gain, over ways from asks to groups: for each ask that anything
    flowed for, the index of the way that most of it took.

    ``ask``, ``group``, ``units`` (at most) and ``gain`` (of each unit, whole) are of the ways; ``size`` is what each
    ask wants in all, ``room`` what each group has. Empty where the solver finds nothing.
    """
    from ortools.graph.python import min_cost_flow

    asks, groups = len(size), len(room)
    sink = asks + groups
    solver = min_cost_flow.SimpleMinCostFlow()
    through = solver.add_arcs_with_capacity_and_unit_cost(ask, asks + group, units, -gain)
    solver.add_arcs_with_capacity_and_unit_cost(
        asks + np.arange(groups), np.full(groups, sink), room, np.zeros_like(room)
    )
    solver.add_arcs_with_capacity_and_unit_cost(np.arange(asks), np.full(asks, sink), size, np.zeros_like(size))
    solver.set_nodes_supplies(np.arange(asks), size)
    solver.set_nodes_supplies(np.array([sink]), np.array([-size.sum()]))
    if solver.solve() != solver.OPTIMAL:
        return []
    sent = np.asarray(solver.flows(through))
    most: dict[int, tuple[int, int]] = {}
    for way in np.flatnonzero(sent).tolist():
        most[int(ask[way])] = max(most.get(int(ask[way]), (0, -1)), (int(sent[way]), way))
    return [way for _, way in most.values()]


def _settled(pairs: Pairs, wished: list[int], score: Floats) -> Plan:
    """Those of the wished pairs that fit together, the highest score first, and then whatever else still fits."""
    ledger = Ledger(pairs)
    plan: dict[int, Seats] = {}
    served = np.zeros(len(pairs.asks), dtype=np.bool_)
    for pair in sorted(wished, key=lambda pair: (-score[pair], pair)):
        ask = int(pairs.ask[pair])
        if pair in ledger.fitting(ask, range(pair, pair + 1)):
            plan[pair] = ledger.take(pair)
            served[ask] = True
    left = pairs.having[~served[pairs.having]]
    best = np.maximum.reduceat(score, pairs.start[pairs.having])[~served[pairs.having]]
    for ask in left[np.argsort(-best, kind="stable")].tolist():
        found = ledger.best_fit(ask, score)
        if found is not None:
            plan[found] = ledger.take(found)
    return plan
