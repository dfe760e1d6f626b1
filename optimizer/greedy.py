"""Plans in milliseconds: each ask in turn takes its best pair that still fits.

Several orders are tried, because each is bad somewhere: arrival order wastes capacity on the first comer, largest first
starves the many, smallest first strands the gangs. The best of them is an answer at any moment and the exact solver's
first hint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import numpy as np

from optimizer.columns import BLOCK
from optimizer.ledger import Ledger, Seats
from optimizer.market import Bools, Ints
from optimizer.pairs import Pairs
from optimizer.prices import Prices
from optimizer.problem import Aim
from optimizer.solution import Placement

Plan = Mapping[int, Seats]
"""Chosen pair → where its workers sit, if they want nodes."""


def fill(pairs: Pairs, order: Iterable[int]) -> Plan:
    """The plan of one order of requests (indices); leases that must not be ended come first, and stay."""
    ledger, plan = _staying(pairs)
    for ask in order:
        if not pairs.must[ask] and (pair := ledger.first_fit(int(ask))) is not None:
            plan[pair] = ledger.take(pair)
    return plan


def plans(pairs: Pairs, entitled: Bools) -> Iterator[tuple[str, Plan]]:
    """The portfolio, the most promising first, each with its name."""
    for name, order in _orders(pairs, entitled):
        yield name, fill(pairs, order)


def priced(pairs: Pairs, prices: Prices, entitled: Bools) -> Iterator[Plan]:
    """Each request takes what is best at the prices: those with most to lose first, and in the first orders above."""
    having = pairs.having
    margin = np.maximum.reduceat(prices.reduced, pairs.start[having]) if len(having) else prices.reduced
    by_margin = having[np.lexsort((-margin, ~entitled[having]))]
    for order in (by_margin, *(order for _, order in islice(_orders(pairs, entitled), 2))):
        ledger, plan = _staying(pairs)
        for ask in order.tolist():
            best = None if pairs.must[ask] else ledger.best_fit(ask, prices.reduced)
            if best is not None:
                plan[best] = ledger.take(best)
        yield plan


def kept_up(pairs: Pairs, wanted: Mapping[str, Placement]) -> Plan:
    """What is still possible of an earlier plan, by the ids of its requests; and every request that fits beside it."""
    ledger, plan = _staying(pairs)
    again = _again(pairs, wanted)
    if not len(again):
        return topped_up(pairs, plan)
    # What all of them together leave room for needs no look at each.
    used = pairs.usage.rows(again)
    short = used.sum(axis=0) > ledger.left
    careful = pairs.same_node[pairs.ask[again]] | (used @ short.astype(np.float64) > 0)
    careful |= np.isin(again, [pair for pair, seats in pairs.keeps.items() if seats])
    easy = {pair: () for pair in again[~careful].tolist()}
    ledger.take_all(easy)
    plan |= easy
    for pair in sorted(again[careful].tolist(), key=lambda pair: pairs.asks[int(pairs.ask[pair])].created):
        if (seats := ledger.take_if_fits(pair)) is not None:
            plan[pair] = seats
    return topped_up(pairs, plan)


def _again(pairs: Pairs, wanted: Mapping[str, Placement]) -> Ints:
    """The pairs that are where an earlier plan had their requests, rising; leases that must stay are left out."""
    asks, names = pairs.asks, pairs.market.ids
    group, start = np.full(len(asks), -1, dtype=np.int64), np.zeros(len(asks), dtype=np.int64)
    for at, ask in enumerate(asks):
        was = wanted.get(ask.id)
        if was is not None and not pairs.must[at]:
            start[at] = was.start_s
            if len(was.parts) == 1:
                group[at] = pairs.market.index.get(was.group, -1)
    alone = np.concatenate(
        [
            np.flatnonzero(pairs.group[low : low + BLOCK] == group[pairs.ask[low : low + BLOCK]]) + low
            for low in range(0, max(1, len(pairs)), BLOCK)
        ]
    )
    alone = alone[pairs.market.starts[pairs.bucket[alone]] == start[pairs.ask[alone]]]
    varied = np.array([bool(ask.forms) or ask.split > 1 for ask in asks], dtype=np.bool_)
    plain = ~varied[pairs.ask[alone]]

    def meant(pair: int) -> bool:
        ask = int(pairs.ask[pair])
        was = wanted.get(asks[ask].id)
        if was is None or pairs.must[ask] or was.start_s != pairs.market.starts[pairs.bucket[pair]]:
            return False
        here = {(names[piece.group], piece.workers) for piece in pairs.pieces(pair)}
        return here == {(part.group, part.workers) for part in was.parts}

    unsure = {*alone[~plain].tolist(), *pairs.several}
    same = np.array(sorted([*alone[plain].tolist(), *filter(meant, unsure)]), dtype=np.int64)
    first: Ints = same[np.flatnonzero(np.diff(pairs.ask[same], prepend=-1))]
    return first


def topped_up(pairs: Pairs, plan: Plan) -> Plan:
    """The plan, and every request that still fits beside it."""
    ledger = spent(pairs, plan)
    more = dict(plan)
    placed = {int(pairs.ask[pair]) for pair in plan}
    nobody = np.zeros(len(pairs.asks), dtype=np.bool_)
    for ask in next(iter(_orders(pairs, nobody)))[1].tolist():
        fitting = None if ask in placed else ledger.first_fit(ask)
        if fitting is not None:
            more[fitting] = ledger.take(fitting)
    return more


def spent(pairs: Pairs, plan: Plan) -> Ledger:
    """What a plan leaves."""
    ledger = Ledger(pairs)
    ledger.take_all(plan)
    return ledger


def eased(pairs: Pairs, plan: Plan) -> Plan:
    """The same requests, each moved to a better pair of its own where one is free, until none is; worse in no goal.

    The exact solver, asked for one goal, leaves the later ones as they happen to fall; this picks up most of it.
    """
    ledger = spent(pairs, plan)
    now = dict(plan)
    for _ in range(5):
        before = set(now)
        for pair in sorted(now, key=lambda pair: (int(pairs.start[pairs.ask[pair]]) - pair, pair)):
            ask = int(pairs.ask[pair])
            if pair > pairs.start[ask]:
                seats = now.pop(pair)
                ledger.give_back(pair, seats)
                best = next(ledger.fitting(ask, range(int(pairs.start[ask]), pair)), None)
                if best is None:
                    now[pair] = seats
                    ledger.take_on(pair, seats)
                else:
                    now[best] = ledger.take(best)
        if set(now) == before:
            break
    return dict(sorted(now.items()))


def returned(pairs: Pairs, plan: Plan, profit: Ints) -> Plan:
    """The plan, and in it no lease that was moved for nothing: whose place is free still, and worth as much as the
    new one once moving is paid."""
    home = np.full(len(pairs.asks), -1, dtype=np.int64)
    keeps, chosen = np.array(list(pairs.keeps), dtype=np.int64), np.array(list(plan), dtype=np.int64)
    home[pairs.ask[keeps]] = keeps
    before = home[pairs.ask[chosen]]
    moved = (before >= 0) & (before != chosen) & (profit[before] >= profit[chosen])
    away = list(zip(before[moved].tolist(), chosen[moved].tolist(), strict=True))
    if not away:
        return plan
    ledger, now = spent(pairs, plan), dict(plan)
    for old, new in away:
        seats = now.pop(new)
        ledger.give_back(new, seats)
        if (free := ledger.take_if_fits(old)) is not None:
            now[old] = free
        else:
            now[new] = seats
            ledger.take_on(new, seats)
    return dict(sorted(now.items()))


def _staying(pairs: Pairs) -> tuple[Ledger, dict[int, Seats]]:
    """A new ledger, and in it the leases that must not be ended: each where it is, until something better moves it."""
    ledger = Ledger(pairs)
    plan: dict[int, Seats] = {}
    for pair, seats in pairs.keeps.items():
        if pairs.must[pairs.ask[pair]]:
            ledger.take_on(pair, seats)
            plan[pair] = seats
    return ledger, plan


def _orders(pairs: Pairs, entitled: Bools) -> Iterator[tuple[str, Ints]]:
    asks, having = pairs.asks, pairs.having
    later = ~entitled[having]
    first = pairs.start[having]
    created = np.array([asks[at].created for at in having], dtype=np.int64)
    devices = np.array([asks[at].total for at in having], dtype=np.int64)
    cost = pairs.cost[first] + pairs.loss[first]
    if pairs.problem.aim is Aim.WELFARE:
        value = np.array([asks[at].value_micros for at in having], dtype=np.float64)
        profit = value - cost
        yield "profit by root of devices", having[np.lexsort((created, -profit / np.sqrt(devices), later))]
        yield "profit by device", having[np.lexsort((created, -profit / devices, later))]
        yield "profit by cost", having[np.lexsort((created, -profit / (cost + 1), later))]
        yield "profit", having[np.lexsort((created, -profit, later))]
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
        "cheapest first": lambda: (created, cost, priority),
    }
    for name, key in keys.items():
        yield name, having[np.lexsort((*key(), later))]
