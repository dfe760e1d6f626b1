"""Every limit of a problem as one shape: Σ weight × chosen pair ≤ most.

Groups, shared capacity, budgets, quotas and nodes differ only in what they weigh, so the exact solver, the prices and
the explanations read them from here alike. A row that no choice can break is left out.

Nodes need no variable each. For requests that want one node, with sizes that divide each other,
Σ ⌊size / s⌋ ≤ Σ over nodes ⌊free / s⌋ for each size s is necessary and sufficient (``ledger.bind`` is the constructive
half of the proof). Where sizes do not divide, the rows stay necessary and ``loose`` names the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from optimizer.filter import Bools, Ints
from optimizer.pairs import Pairs
from optimizer.solution import Limit


@dataclass(frozen=True)
class Row:
    """One limit over some pairs."""

    limit: Limit
    id: str
    pairs: Ints
    weight: Ints
    most: int


def rows(pairs: Pairs, kept: Ints) -> Iterator[Row]:
    """Every limit that the kept pairs (indices, rising) could break together."""
    by_group = _buckets(pairs.group[kept], kept, len(pairs.groups))
    for at, group in enumerate(pairs.groups):
        mine = by_group[at]
        yield from _row(Limit.GROUP, group.id, mine, pairs.units[mine], group.count)
        yield from _node_rows(pairs, at, mine)
    for shared in pairs.problem.rows:
        members = [(pairs.market.index[name], weight) for name, weight in shared.members.items() if weight]
        mine = np.concatenate([by_group[at] for at, _ in members]) if members else kept[:0]
        weight = np.concatenate([w * pairs.units[by_group[at]] for at, w in members]) if members else kept[:0]
        yield from _row(Limit.SHARED, shared.id, mine, weight, shared.limit)
    for budget in pairs.problem.budgets:
        mine = kept[_holding(pairs, budget.id, "budgets")[pairs.ask[kept]]]
        yield from _row(Limit.BUDGET, budget.id, mine, pairs.cost[mine], budget.remaining_micros)
    for quota in pairs.problem.quotas:
        mine = kept[_holding(pairs, quota.id, "quotas")[pairs.ask[kept]]]
        yield from _row(Limit.QUOTA, quota.id, mine, pairs.devices[mine], quota.remaining_devices)


def loose(pairs: Pairs, kept: Ints) -> dict[int, Ints]:
    """Groups whose same-node sizes do not divide each other, with their same-node pairs: these need nodes by name."""
    mine = kept[_same_node(pairs)[pairs.ask[kept]]]
    return {
        at: each
        for at, each in enumerate(_buckets(pairs.group[mine], mine, len(pairs.groups)))
        if any(large % small for small, large in pairwise(np.unique(pairs.units[each]).tolist()))
    }


def _node_rows(pairs: Pairs, group: int, mine: Ints) -> Iterator[Row]:
    one_node = mine[_same_node(pairs)[pairs.ask[mine]]] if len(mine) else mine
    free = np.array(pairs.groups[group].per_node, dtype=np.int64)
    for size in np.unique(pairs.units[one_node]).tolist():
        fitting = one_node[pairs.units[one_node] >= size]
        yield from _row(
            Limit.NODE,
            pairs.groups[group].id,
            fitting,
            pairs.units[fitting] // size,
            int((free // size).sum()),
        )


def _row(limit: Limit, name: str, pairs: Ints, weight: Ints, most: int) -> Iterator[Row]:
    if len(pairs) and float(weight.astype(np.float64).sum()) > most:
        yield Row(limit=limit, id=name, pairs=pairs, weight=weight, most=most)


def _holding(pairs: Pairs, name: str, where: str) -> Bools:
    return np.array([name in getattr(ask, where) for ask in pairs.asks], dtype=np.bool_)


def _same_node(pairs: Pairs) -> Bools:
    return np.array([ask.same_node for ask in pairs.asks], dtype=np.bool_)


def _buckets(key: Ints, values: Ints, size: int) -> list[Ints]:
    order = np.argsort(key, kind="stable")
    cuts = np.searchsorted(key[order], np.arange(1, size))
    return np.split(values[order], cuts)
