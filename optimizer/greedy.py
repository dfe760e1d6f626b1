"""Plans in milliseconds: each ask in turn takes its best pair that still fits.

Several orders are tried, because each is bad somewhere: arrival order wastes capacity on the first comer, largest first
starves the many, smallest first strands the gangs. The best of them is an answer at any moment and the exact solver's
first hint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import numpy as np

from optimizer.filter import Ints
from optimizer.ledger import Ledger
from optimizer.pairs import Pairs
from optimizer.prices import Prices
from optimizer.problem import Aim

Plan = Mapping[int, int | None]
"""Chosen pair → index of the node it was given; None where the ask does not care."""


def fill(pairs: Pairs, order: Iterable[int]) -> Plan:
    """The plan of one order of asks (indices)."""
    ledger = Ledger(pairs)
    return {pair: ledger.take(pair) for ask in order if (pair := ledger.first_fit(int(ask))) is not None}


def plans(pairs: Pairs) -> Iterator[tuple[str, Plan]]:
    """The portfolio, the most promising first, each with its name."""
    for name, order in _orders(pairs):
        yield name, fill(pairs, order)


def priced(pairs: Pairs, prices: Prices) -> Iterator[Plan]:
    """Each ask takes what is best at the prices: those with most to lose first, and in the first orders above."""
    having = np.flatnonzero(np.diff(pairs.start))
    margin = np.maximum.reduceat(prices.reduced, pairs.start[having]) if len(having) else prices.reduced
    for order in (having[np.argsort(-margin, kind="stable")], *(order for _, order in islice(_orders(pairs), 2))):
        ledger = Ledger(pairs)
        plan: dict[int, int | None] = {}
        for ask in order.tolist():
            best = ledger.best_fit(ask, prices.reduced)
            if best is not None:
                plan[best] = ledger.take(best)
        yield plan


def kept_up(pairs: Pairs, wanted: Mapping[str, str]) -> Plan:
    """What is still possible of an earlier plan (ask id → group id), in order of turn."""
    ledger = Ledger(pairs)
    plan: dict[int, int | None] = {}
    for ask in sorted(range(len(pairs.asks)), key=lambda at: (pairs.asks[at].created, at)):
        group = pairs.market.index.get(wanted.get(pairs.asks[ask].id, ""), -1)
        own = pairs.of(ask)
        found = np.flatnonzero(pairs.group[own.start : own.stop] == group)
        if len(found):
            pair = own.start + int(found[0])
            if ledger.fits(ask, slice(pair, pair + 1))[0]:
                plan[pair] = ledger.take(pair)
    return topped_up(pairs, plan)


def topped_up(pairs: Pairs, plan: Plan) -> Plan:
    """The plan, and every ask that still fits beside it."""
    ledger = Ledger(pairs)
    for pair, node in plan.items():
        ledger.take_on(pair, node)
    more = dict(plan)
    placed = {int(pairs.ask[pair]) for pair in plan}
    for ask in next(iter(_orders(pairs)))[1].tolist():
        fitting = None if ask in placed else ledger.first_fit(ask)
        if fitting is not None:
            more[fitting] = ledger.take(fitting)
    return more


def eased(pairs: Pairs, plan: Plan) -> Plan:
    """The same asks, each moved to a better pair of its own where one is free, until none is; worse in no goal.

    The exact solver, asked for one goal, leaves the later ones as they happen to fall; this picks up most of it.
    """
    ledger = Ledger(pairs)
    for pair, node in plan.items():
        ledger.take_on(pair, node)
    now = dict(plan)
    for _ in range(5):
        before = set(now)
        for pair in sorted(now, key=lambda pair: (int(pairs.start[pairs.ask[pair]]) - pair, pair)):
            ask = int(pairs.ask[pair])
            if pair > pairs.start[ask]:
                ledger.give_back(pair, now.pop(pair))
                best = ledger.first_fit(ask)
                better = pair if best is None else best
                now[better] = ledger.take(better)
        if set(now) == before:
            break
    return dict(sorted(now.items()))


def _orders(pairs: Pairs) -> Iterator[tuple[str, Ints]]:
    asks = pairs.asks
    having = np.flatnonzero(np.diff(pairs.start))
    first = pairs.start[having]
    created = np.array([asks[at].created for at in having], dtype=np.int64)
    devices = np.array([asks[at].devices for at in having], dtype=np.int64)
    if pairs.problem.aim is Aim.WELFARE:
        value = np.array([asks[at].value_micros for at in having], dtype=np.float64)
        profit = value - pairs.cost[first]
        yield "profit by root of devices", having[np.lexsort((created, -profit / np.sqrt(devices)))]
        yield "profit by device", having[np.lexsort((created, -profit / devices))]
        yield "profit by cost", having[np.lexsort((created, -profit / (pairs.cost[first] + 1)))]
        yield "profit", having[np.lexsort((created, -profit))]
        return
    priority = -np.array([asks[at].priority for at in having], dtype=np.int64)
    weight = np.array([asks[at].counts_for for at in having], dtype=np.int64)
    choices = np.diff(pairs.start)[having]
    keys: dict[str, Callable[[], tuple[Ints, ...]]] = {
        "turn": lambda: (created, priority),
        "fewest choices first": lambda: (created, -devices, choices, priority),
        "largest first": lambda: (created, -devices, priority),
        "weight by device": lambda: (created, -(weight * 1000) // devices, priority),
        "smallest first": lambda: (created, devices, priority),
        "cheapest first": lambda: (created, pairs.cost[first], priority),
    }
    for name, key in keys.items():
        yield name, having[np.lexsort(key())]
