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

from optimizer.filter import Ints
from optimizer.ledger import Ledger
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


def rows(pairs: Pairs, kept: Ints, left: Ledger) -> Iterator[Row]:
    """Every limit that the kept pairs (indices, rising) could break together, given what is left."""
    by_group = _buckets(pairs.group[kept], kept, len(pairs.groups))
    for at, group in enumerate(pairs.groups):
        mine = by_group[at]
        if not len(mine):
            continue
        yield from _row(Limit.GROUP, group.id, mine, pairs.units[mine], int(left.count[at]))
        yield from _node_rows(pairs, at, mine, left)
    for shared, most in zip(pairs.problem.rows, left.rows, strict=True):
        members = [(pairs.market.index[name], weight) for name, weight in shared.members.items() if weight]
        mine = np.concatenate([by_group[at] for at, _ in members]) if members else kept[:0]
        weight = np.concatenate([w * pairs.units[by_group[at]] for at, w in members]) if members else kept[:0]
        yield from _row(Limit.SHARED, shared.id, mine, weight, most)
    for budget in pairs.problem.budgets:
        mine = _drawing(pairs, kept, ("budgets", budget.id))
        yield from _row(Limit.BUDGET, budget.id, mine, pairs.cost[mine], left.budgets[budget.id])
    for quota in pairs.problem.quotas:
        mine = _drawing(pairs, kept, ("quotas", quota.id))
        yield from _row(Limit.QUOTA, quota.id, mine, pairs.devices[mine], left.quotas[quota.id])


def loose(pairs: Pairs, kept: Ints) -> dict[int, Ints]:
    """Groups whose same-node sizes do not divide each other, with their same-node pairs: these need nodes by name."""
    mine = kept[pairs.same_node[pairs.ask[kept]]]
    return {
        at: each
        for at, each in enumerate(_buckets(pairs.group[mine], mine, len(pairs.groups)))
        if any(large % small for small, large in pairwise(np.unique(pairs.units[each]).tolist()))
    }


def _node_rows(pairs: Pairs, group: int, mine: Ints, left: Ledger) -> Iterator[Row]:
    one_node = mine[pairs.same_node[pairs.ask[mine]]]
    free = np.array(left.nodes[group].free, dtype=np.int64)
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


def _drawing(pairs: Pairs, kept: Ints, limit: tuple[str, str]) -> Ints:
    mask = np.zeros(len(pairs.asks), dtype=np.bool_)
    mask[pairs.holders.get(limit, kept[:0])] = True
    return kept[mask[pairs.ask[kept]]]


def _buckets(key: Ints, values: Ints, size: int) -> list[Ints]:
    order = np.argsort(key, kind="stable")
    cuts = np.searchsorted(key[order], np.arange(1, size))
    return np.split(values[order], cuts)
