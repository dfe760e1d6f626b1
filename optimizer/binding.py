"""The limits in the way of refused requests: of groups that nothing else removes, how much is missing at the least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from optimizer.grid import Seen
from optimizer.ledger import Ledger
from optimizer.market import Bools, Ints, column
from optimizer.pairs import Pairs
from optimizer.problem import Ask
from optimizer.purses import Purses
from optimizer.solution import Binding, Limit, Why

CAPACITY = (Why.COUNT, Why.NODE, Why.SHARED, Why.BUDGET, Why.QUOTA)
"""Predicates that say *not enough*, rather than *not allowed*."""
NAMED = 8
"""Most limits of one sort that a refusal names; the nearest ones."""
NONE = int(np.iinfo(np.int64).max)


def binding(pairs: Pairs, ledger: Ledger, purses: Purses, seen: Seen, rows: Sequence[int]) -> list[tuple[Binding, ...]]:
    """For some of the requests seen: groups, nodes, shared capacity, budgets, quotas; the nearest of each first."""
    asks = [seen.asks[row] for row in rows]
    near = seen.among(seen.spared(*CAPACITY)[list(rows)])
    units = seen.units[list(rows)]
    found: list[list[Binding]] = [[] for _ in rows]
    for at, missing in enumerate(_nearest(pairs, Limit.GROUP, units - ledger.units_left(), near)):
        found[at] += missing
    one_node = [at for at, ask in enumerate(asks) if ask.same_node]
    if one_node:
        worker = units[one_node] // column(asks[at].workers for at in one_node)[:, None]
        for at, missing in zip(
            one_node, _nearest(pairs, Limit.NODE, worker - ledger.largest, near[one_node]), strict=True
        ):
            found[at] += missing
    if pairs.problem.rows:
        for at, mine in enumerate(near):
            wanted = np.broadcast_to(units[at], mine.shape)[mine].tolist()
            found[at] += _shared(pairs, ledger, dict(zip(np.flatnonzero(mine).tolist(), wanted, strict=True)))
    cost, devices = (_least(each[list(rows)], near) for each in (seen.cost, seen.devices))
    starts = pairs.market.starts.tolist()
    for at, (ask, *least) in enumerate(zip(asks, cost, devices, strict=True)):
        if least[0] != NONE:
            found[at] += _allowances(purses, starts, ask, (least[0], least[1]), seen.devices[rows[at]], near[at])
    return [tuple(each) for each in found]


def _nearest(pairs: Pairs, limit: Limit, short: Ints, near: Bools) -> Iterator[list[Binding]]:
    """Of each row, the groups among these that are short, by how much and then as they lie."""
    width = near.shape[1]
    # The place is part of the key, so that of equals the first is taken however many there are.
    key = np.where(near & (short > 0), short * width + np.arange(width), NONE)
    if width > NAMED:
        key = np.partition(key, NAMED - 1, axis=1)[:, :NAMED]
    key.sort(axis=1)
    by, group = np.divmod(key, max(1, width))
    ids = pairs.market.ids
    # Many requests lack as much of the same group: thousands of equal values need not be thousands of objects.
    known: dict[tuple[int, int], Binding] = {}
    for amounts, places, count in zip(by.tolist(), group.tolist(), (key != NONE).sum(axis=1).tolist(), strict=True):
        mine = []
        for cell in zip(amounts[:count], places[:count], strict=True):
            if cell not in known:
                known[cell] = Binding(limit=limit, id=ids[cell[1]], short_by=cell[0])
            mine.append(known[cell])
        yield mine


def _least(values: Ints, near: Bools) -> list[int]:
    least: list[int] = np.where(near, values, NONE).min(axis=1, initial=NONE).tolist()
    return least


def _allowances(
    purses: Purses, starts: Sequence[int], ask: Ask, least: tuple[int, int], devices: Ints, near: Bools
) -> Iterator[Binding]:
    """Budgets that do not hold the cheapest of these groups, quotas that do not hold the smallest of their own.

    ``least`` is the cost of the one, and the devices of the other where a quota counts all groups.
    """
    mine = starts if len(starts) == 1 else [each for each in starts if ask.not_before_s <= each <= ask.latest_s] or [0]
    cost, smallest = least
    budgets = {
        name: cost - left + purses.overdrawn(name)
        for start in mine
        for name, left in purses.budgets(ask, start)
        if cost > left
    }
    quotas: dict[str, int] = {}
    for quota, left in (each for start in mine for each in purses.quotas(ask, start)):
        least_of = smallest
        if quota.groups is not None:
            inside = purses.inside(quota, near)
            least_of = int(np.broadcast_to(devices, near.shape)[inside].min(initial=NONE))
        if left < least_of < NONE:
            quotas[quota.id] = least_of - left + purses.exceeded(quota)
    for limit, short in ((Limit.BUDGET, budgets), (Limit.QUOTA, quotas)):
        for by, name in sorted((by, name) for name, by in short.items()):
            yield Binding(limit=limit, id=name, short_by=by)


def _shared(pairs: Pairs, ledger: Ledger, needed: Mapping[int, int]) -> list[Binding]:
    """Shared capacities too small for what is needed of each group, the nearest first."""
    short = []
    for row, left in zip(pairs.problem.rows, ledger.shared_left(), strict=True):
        wanted = [
            weight * needed[at] for name, weight in row.members.items() if (at := pairs.market.index[name]) in needed
        ]
        if wanted and min(wanted) > left:
            short.append((min(wanted) - left, row.id))
    return [Binding(limit=Limit.SHARED, id=name, short_by=by) for by, name in sorted(short)[:NAMED]]
