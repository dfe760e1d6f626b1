"""Why each placed ask went where it went, and why each other one went nowhere: as data.

Reasons are read off the same arrays that made the plan, given that plan: a group that was free enough before others
took it is *taken*, not *too small*. A change that is offered ("cap 3.40 instead of 3.00") is the smallest of its kind
and has been applied to the request and checked by the independent checker beside the whole plan; where the plan is
proved optimal, solving again with the change places the request, because the old plan with it added beats every plan
without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from optimizer.alternatives import alternatives as beside
from optimizer.binding import binding
from optimizer.changes import changes
from optimizer.greedy import Plan
from optimizer.grid import slices
from optimizer.ledger import Ledger, spread
from optimizer.market import Floats, Ints
from optimizer.offers import Offers
from optimizer.pairs import Pairs
from optimizer.purses import Purses
from optimizer.solution import Alternative, Idle, Part, Placement, Refusal, Why
from optimizer.usage import Piece
from optimizer.variants import lasting, shape


def placed(pairs: Pairs, plan: Plan, alternatives: int) -> dict[str, Placement]:
    """A placement for each chosen pair, by ask id."""
    pieces = {pair: pairs.pieces(pair) for pair in plan}
    nodes = _on_nodes(pairs, plan, pieces)
    chosen = dict(zip(pairs.ask[list(plan)].tolist(), plan, strict=True))
    order = sorted(chosen)
    considered: dict[int, tuple[Alternative, ...]] = {}
    removed: dict[int, Mapping[Why, int]] = {}
    if alternatives:
        ledger = Ledger(pairs)
        ledger.take_all(plan)
        for asks, seen in slices(pairs.market, pairs.asks, order):
            mine = [chosen[ask] for ask in asks]
            removed.update(zip(asks, _told(seen.removed(), len(asks)), strict=True))
            considered.update(zip(asks, beside(pairs, ledger, seen, plan, mine, alternatives), strict=True))
    return {
        pairs.asks[ask].id: _placement(
            pairs, pair, pieces[pair], nodes.get(pair), considered.get(ask, ()), removed.get(ask, {})
        )
        for ask, pair in ((ask, chosen[ask]) for ask in order)
    }


def unplaced(
    pairs: Pairs, plan: Plan, details: int, reduced: Floats | None = None, *, unused: bool = True
) -> tuple[dict[str, Refusal], dict[str, Idle]]:
    """A refusal for each ask without a chosen pair, in full for the first by priority and turn; and for each group with
    units that nobody takes now, why these asks do not (``unused=False``: not that). ``reduced`` are profits at clearing
    prices, where there are any.
    """
    ledger = Ledger(pairs)
    ledger.take_all(plan)
    chosen = np.zeros(len(pairs.asks), dtype=np.bool_)
    chosen[pairs.ask[list(plan)]] = True
    out = np.flatnonzero(~chosen).tolist()
    turn = sorted(out, key=lambda at: (-pairs.asks[at].priority, pairs.asks[at].created, at))
    full = set(turn[:details])
    missed, purses = _outbid(pairs, reduced), Purses(pairs.market, ledger)
    answers: dict[str, Refusal] = {}
    offers = Offers(pairs, ledger, chosen, reduced) if unused else None
    for asks, seen in slices(pairs.market, pairs.asks, out):
        if offers is not None:
            offers.see(seen)
        rows = [row for row, ask in enumerate(asks) if ask in full]
        limits = dict(zip(rows, binding(pairs, ledger, purses, seen, rows), strict=True))
        helps = dict(zip(rows, changes(pairs, ledger, purses, seen, rows), strict=True))
        counts = zip(
            _told(seen.removed(), len(asks)), _told(seen.only(), len(asks)), seen.eligible().tolist(), strict=True
        )
        for row, (ask, (removed, only, eligible)) in enumerate(zip(asks, counts, strict=True)):
            answers[pairs.asks[ask].id] = Refusal(
                groups=len(pairs.groups),
                eligible=eligible,
                removed=removed,
                only=only,
                binding=limits.get(row, ()),
                changes=helps.get(row, ()),
                detailed=ask in full,
                outbid_micros=missed.get(ask),
            )
    return answers, {} if offers is None else offers.idle()


def _placement(
    pairs: Pairs,
    pair: int,
    pieces: tuple[Piece, ...],
    nodes: tuple[tuple[tuple[int, int], ...], ...] | None,
    considered: tuple[Alternative, ...],
    removed: Mapping[Why, int],
) -> Placement:
    ask, form = pairs.asks[int(pairs.ask[pair])], int(pairs.form[pair])
    start = int(pairs.market.starts[pairs.bucket[pair]])
    seconds, (devices, workers) = lasting(ask, form), shape(ask, form)
    kept = pair in pairs.keeps
    groups = [pairs.groups[piece.group] for piece in pieces]
    hourly = sum(group.price_at(start) * piece.devices for group, piece in zip(groups, pieces, strict=True))
    fees = 0 if kept else sum(ask.transfer_micros.get(group.region, 0) for group in groups)
    rate = -(-(hourly * seconds + 3600 * fees) // (devices * workers * seconds))
    seats = nodes or ((),) * len(pieces)
    return Placement(
        parts=tuple(
            Part(
                group=group.id,
                workers=piece.workers,
                units=piece.units,
                devices=piece.devices,
                cost_micros=piece.cost,
                nodes=where,
            )
            for group, piece, where in zip(groups, pieces, seats, strict=True)
        ),
        price_micros=rate,
        start_s=start,
        duration_s=seconds,
        form=form,
        tier=int(pairs.tier[pair]),
        loss_micros=int(pairs.loss[pair]),
        moved=ask.running is not None and not kept,
        considered=considered,
        removed=removed,
    )


def _on_nodes(
    pairs: Pairs, plan: Plan, pieces: Mapping[int, tuple[Piece, ...]]
) -> dict[int, tuple[tuple[tuple[int, int], ...], ...]]:
    """(node, units) of each chosen pair, group by group.

    Requests that do not care are given nodes too where the problem is about one time: whoever holds devices for them
    then need not think again.
    """
    found: dict[int, tuple[tuple[tuple[int, int], ...], ...]] = {}
    low = pairs.market.first_node
    chosen = {piece.group for those in pieces.values() for piece in those}
    free = {at: pairs.market.nodes[low[at] : low[at + 1], 0].tolist() for at in chosen if pairs.groups[at].per_node}
    for pair, seats in plan.items():
        if not seats:
            continue
        parts = []
        for piece in pieces[pair]:
            size = piece.units // piece.workers
            taken = Counter(node for group, node in seats if group == piece.group)
            parts.append(tuple(sorted((node, size * count) for node, count in taken.items())))
            for node, count in taken.items():
                free[piece.group][node] -= size * count
        found[pair] = tuple(parts)
    if pairs.market.buckets > 1:
        return found
    some = np.array(list(plan), dtype=np.int64)
    for pair in some[np.lexsort((some, -pairs.units[some]))].tolist():
        # A lease that goes on has its devices already; where nobody said on which nodes, none are named.
        if not plan[pair] and pair not in pairs.keeps and any(piece.group in free for piece in pieces[pair]):
            found[pair] = tuple(
                spread(free[piece.group], piece.units) if piece.group in free else () for piece in pieces[pair]
            )
    return found


def unseated(pairs: Pairs, plan: Plan) -> list[int]:
    """Chosen pairs for which no nodes are left, though their groups have the units.

    Only where a lease that must not be ended holds more than its group has, on nodes that nobody named: if it moves,
    its units come free and no node does.
    """
    if not pairs.must.any():
        return []
    pieces = {pair: pairs.pieces(pair) for pair in plan}
    nodes = _on_nodes(pairs, plan, pieces)
    return [
        pair
        for pair in plan
        if pair not in pairs.keeps
        and any(
            pairs.groups[piece.group].per_node and sum(units for _, units in where) < piece.units
            for piece, where in zip(pieces[pair], nodes.get(pair, ()), strict=False)
        )
    ]


def _told(counts: Mapping[Why, Ints], rows: int) -> list[Mapping[Why, int]]:
    """Of each row its counts that are not 0."""
    columns = [(bit, column.tolist()) for bit, column in sorted(counts.items())]
    return [{bit: column[row] for bit, column in columns if column[row]} for row in range(rows)]


def _outbid(pairs: Pairs, reduced: Floats | None) -> Mapping[int, int]:
    """Ask → µUSD by which its best pair misses the clearing prices."""
    having = pairs.having
    if reduced is None or not len(having):
        return {}
    missed = np.maximum(0, np.ceil(-np.maximum.reduceat(reduced, pairs.start[having])))
    return dict(zip(having.tolist(), map(int, missed.tolist()), strict=True))
