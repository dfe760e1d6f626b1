"""The limits that some pairs could break together, for the exact solver.

They are the columns of the usage matrix, and rows for nodes besides. Nodes need no variable each: for pieces that want
one node each, with sizes that divide each other, Σ ⌊size / s⌋ ≤ Σ over nodes ⌊free / s⌋ for each size s is necessary
and sufficient at one time (``ledger.bind`` is the constructive half of the proof). Where sizes do not divide, or where
time has several buckets, the rows stay necessary; ``loose`` names the groups whose nodes have to be told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from optimizer.ledger import Ledger
from optimizer.market import Ints
from optimizer.pairs import Pairs
from optimizer.solution import Limit

BY_NAME = 5_000
"""Most pieces × nodes of one group for which nodes are told apart only because leases sit on them."""


@dataclass(frozen=True)
class Row:
    """One limit over some pairs."""

    limit: Limit
    id: str
    pairs: Ints
    weight: Ints
    most: int


@dataclass(frozen=True)
class Pieces:
    """What wants nodes of one group: of each such pair, how many units a worker takes there, and how many workers."""

    pairs: Ints
    size: Ints
    workers: Ints


def rows(pairs: Pairs, kept: Ints, left: Ledger) -> Iterator[Row]:
    """Every limit that the kept pairs (indices, rising) could break together, given what is left."""
    by_limit = pairs.usage.rows(kept).tocsc()
    names = pairs.usage.names
    for at in np.flatnonzero(np.diff(by_limit.indptr)).tolist():
        low, high = int(by_limit.indptr[at]), int(by_limit.indptr[at + 1])
        weight = by_limit.data[low:high]
        if weight.sum() > left.left[at]:
            limit, name = names[at]
            yield Row(limit, name, kept[by_limit.indices[low:high]], weight.astype(np.int64), int(left.left[at]))
    if not left.nodeless:
        for group, pieces in wanting_nodes(pairs, kept).items():
            yield from _node_rows(pairs, group, pieces, left)


def wanting_nodes(pairs: Pairs, kept: Ints) -> dict[int, Pieces]:
    """By group, the kept pairs whose workers want its nodes."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for pair in kept[pairs.same_node[pairs.ask[kept]]].tolist():
        for piece in pairs.pieces(pair):
            found.setdefault(piece.group, []).append((pair, piece.units // piece.workers, piece.workers))
    return {group: Pieces(*np.array(mine, dtype=np.int64).T) for group, mine in sorted(found.items())}


def loose(pairs: Pairs, kept: Ints) -> dict[int, Pieces]:
    """Groups whose nodes are needed by name: pieces do not divide each other, or running leases sit on some of them.

    Only looked for at one time, and the latter only where it stays small.
    """
    if pairs.market.buckets > 1:
        return {}
    nodes = np.diff(pairs.market.first_node)
    return {
        group: pieces
        for group, pieces in wanting_nodes(pairs, kept).items()
        if any(large % small for small, large in pairwise(np.unique(pieces.size).tolist()))
        or (
            len(pieces.pairs) * int(nodes[group]) <= BY_NAME
            and any(pairs.keeps.get(pair) for pair in pieces.pairs.tolist())
        )
    }


def _node_rows(pairs: Pairs, group: int, pieces: Pieces, left: Ledger) -> Iterator[Row]:
    nodes = left.nodes[group]
    bucket, until = pairs.bucket[pieces.pairs], pairs.until[pieces.pairs]
    for now in range(pairs.market.buckets):
        there = (bucket <= now) & (now < until)
        for size in np.unique(pieces.size[there]).tolist():
            fitting = there & (pieces.size >= size)
            weight = pieces.size[fitting] // size * pieces.workers[fitting]
            most = nodes.places(size, (now, now + 1))
            if weight.sum() > most:
                yield Row(Limit.NODE, pairs.groups[group].id, pieces.pairs[fitting], weight, most)
