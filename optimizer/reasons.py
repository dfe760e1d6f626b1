"""Why each placed ask went where it went, and why each other one went nowhere: as data.

Reasons are read off the same arrays that made the plan, given that plan: a group that was free enough before others
took it is *taken*, not *too small*. A change that is offered ("cap 3.40 instead of 3.00") is the smallest of its kind
and has been applied to the request and checked by the independent checker beside the whole plan; where the plan is
proved optimal, solving again with the change places the request, because the old plan with it added beats every plan
without it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from optimizer.changes import changes
from optimizer.filter import Verdicts, judge, lasting, shape
from optimizer.greedy import Plan, spent
from optimizer.ledger import Ledger, Seats, spread
from optimizer.market import Bits, Bools, Floats, Ints
from optimizer.offers import Offers
from optimizer.pairs import Pairs
from optimizer.problem import Aim
from optimizer.solution import Alternative, Binding, Change, Idle, Limit, Lost, Part, Placement, Refusal, Why

CAPACITY = Why.COUNT | Why.NODE | Why.SHARED | Why.BUDGET | Why.QUOTA
"""Predicates that say *not enough*, rather than *not allowed*."""
NAMED = 8
"""Most limits of one sort that a refusal names; the nearest ones."""
SLICE = 500_000
"""Cells explained at a time: about 60 MB."""


def placed(pairs: Pairs, plan: Plan, alternatives: int) -> dict[str, Placement]:
    """A placement for each chosen pair, by ask id."""
    nodes = _on_nodes(pairs, plan)
    chosen = {int(pairs.ask[pair]): pair for pair in plan}
    order = sorted(chosen)
    considered: dict[int, tuple[Alternative, ...]] = {}
    removed: dict[int, Mapping[Why, int]] = {}
    if alternatives:
        ledger = spent(pairs, plan)
        for asks, seen in _slices(pairs, order):
            removed.update(zip(asks, _removed(seen.why), strict=True))
            for row, ask in enumerate(asks):
                pair = chosen[ask]
                considered[ask] = _considered(pairs, ledger, seen, row, pair, plan[pair], alternatives)
    return {
        pairs.asks[ask].id: _placement(pairs, chosen[ask], nodes, considered.get(ask, ()), removed.get(ask, {}))
        for ask in order
    }


def unplaced(
    pairs: Pairs, plan: Plan, details: int, reduced: Floats | None = None
) -> tuple[dict[str, Refusal], dict[str, Idle]]:
    """A refusal for each ask without a chosen pair, in full for the first by priority and turn; and for each group with
    units that nobody takes now, why these asks do not. ``reduced`` are profits at clearing prices, where there are any.
    """
    ledger = spent(pairs, plan)
    chosen = np.zeros(len(pairs.asks), dtype=np.bool_)
    chosen[pairs.ask[list(plan)]] = True
    out = np.flatnonzero(~chosen).tolist()
    turn = sorted(out, key=lambda at: (-pairs.asks[at].priority, pairs.asks[at].created, at))
    full = set(turn[:details])
    answers: dict[str, Refusal] = {}
    offers = Offers(pairs, ledger, chosen, reduced)
    for asks, seen in _slices(pairs, out):
        offers.see(asks, seen)
        counts = zip(_removed(seen.why), _only(seen.why), (seen.why == 0).sum(axis=1).tolist(), strict=True)
        for row, (ask, (removed, only, eligible)) in enumerate(zip(asks, counts, strict=True)):
            binding: tuple[Binding, ...] = ()
            helps: tuple[Change, ...] = ()
            if ask in full:
                binding = _binding(pairs, ledger, seen, row, ask)
                helps = changes(pairs, ledger, seen, row, ask, only)
            answers[pairs.asks[ask].id] = Refusal(
                groups=len(pairs.groups),
                eligible=eligible,
                removed=removed,
                only=only,
                binding=binding,
                changes=helps,
                detailed=ask in full,
                outbid_micros=_outbid(pairs, ask, reduced),
            )
    return answers, offers.idle()


def _placement(
    pairs: Pairs,
    pair: int,
    nodes: Mapping[int, tuple[tuple[tuple[int, int], ...], ...]],
    considered: tuple[Alternative, ...],
    removed: Mapping[Why, int],
) -> Placement:
    ask, form = pairs.asks[int(pairs.ask[pair])], int(pairs.form[pair])
    start = int(pairs.market.starts[pairs.bucket[pair]])
    seconds, (devices, workers) = lasting(ask, form), shape(ask, form)
    pieces, kept = pairs.pieces(pair), pair in pairs.keeps
    groups = [pairs.groups[piece.group] for piece in pieces]
    hourly = sum(group.price_at(start) * piece.devices for group, piece in zip(groups, pieces, strict=True))
    fees = 0 if kept else sum(ask.transfer_micros.get(group.region, 0) for group in groups)
    rate = Fraction(hourly, devices * workers) + Fraction(3600 * fees, devices * workers * seconds)
    seats = nodes.get(pair) or ((),) * len(pieces)
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
        price_micros=math.ceil(rate),
        start_s=start,
        duration_s=seconds,
        form=form,
        tier=int(pairs.tier[pair]),
        loss_micros=int(pairs.loss[pair]),
        moved=ask.running is not None and not kept,
        considered=considered,
        removed=removed,
    )


def _slices(pairs: Pairs, asks: list[int]) -> Iterator[tuple[list[int], Verdicts]]:
    forms = 1 + max((len(pairs.asks[at].forms) for at in asks), default=0)
    step = max(1, SLICE // max(1, len(pairs.groups) * len(pairs.problem.starts) * forms))
    for low in range(0, len(asks), step):
        part = asks[low : low + step]
        yield part, judge(pairs.market, [pairs.asks[at] for at in part])


def _on_nodes(pairs: Pairs, plan: Plan) -> dict[int, tuple[tuple[tuple[int, int], ...], ...]]:
    """(node, units) of each chosen pair, group by group.

    Requests that do not care are given nodes too where the problem is about one time: whoever holds devices for them
    then need not think again.
    """
    found: dict[int, tuple[tuple[tuple[int, int], ...], ...]] = {}
    low = pairs.market.first_node
    free = {
        at: pairs.market.nodes[low[at] : low[at + 1], 0].tolist()
        for at, group in enumerate(pairs.groups)
        if group.per_node
    }
    for pair, seats in plan.items():
        if not seats:
            continue
        parts = []
        for piece in pairs.pieces(pair):
            size = piece.units // piece.workers
            taken = Counter(node for group, node in seats if group == piece.group)
            parts.append(tuple(sorted((node, size * count) for node, count in taken.items())))
            for node, count in taken.items():
                free[piece.group][node] -= size * count
        found[pair] = tuple(parts)
    if pairs.market.buckets > 1:
        return found
    for pair in sorted(plan, key=lambda pair: (-int(pairs.units[pair]), pair)):
        pieces = pairs.pieces(pair)
        # A lease that goes on has its devices already; where nobody said on which nodes, none are named.
        if not plan[pair] and pair not in pairs.keeps and any(piece.group in free for piece in pieces):
            found[pair] = tuple(
                spread(free[piece.group], piece.units) if piece.group in free else () for piece in pieces
            )
    return found


def unseated(pairs: Pairs, plan: Plan) -> list[int]:
    """Chosen pairs for which no nodes are left, though their groups have the units.

    Only where a lease that must not be ended holds more than its group has, on nodes that nobody named: if it moves,
    its units come free and no node does.
    """
    if not any(pair in pairs.keeps or pairs.asks[int(pairs.ask[pair])].running is not None for pair in plan):
        return []
    nodes = _on_nodes(pairs, plan)
    return [
        pair
        for pair in plan
        if pair not in pairs.keeps
        and any(
            pairs.groups[piece.group].per_node and sum(units for _, units in where) < piece.units
            for piece, where in zip(pairs.pieces(pair), nodes.get(pair, ()), strict=False)
        )
    ]


def _removed(why: Bits) -> list[Mapping[Why, int]]:
    return _counted([(bit, (why & np.uint32(bit)) != 0) for bit in Why if bit in _any(why)], len(why))


def _only(why: Bits) -> list[Mapping[Why, int]]:
    return _counted([(bit, why == np.uint32(bit)) for bit in Why if bit in _any(why)], len(why))


def _any(why: Bits) -> Why:
    return Why(int(np.bitwise_or.reduce(why, axis=None))) if why.size else Why(0)


def _counted(marked: list[tuple[Why, Bools]], rows: int) -> list[Mapping[Why, int]]:
    counts = [(bit, mask.sum(axis=1).tolist()) for bit, mask in marked]
    return [{bit: column[row] for bit, column in counts if column[row]} for row in range(rows)]


def _outbid(pairs: Pairs, ask: int, reduced: Floats | None) -> int | None:
    own = pairs.of(ask)
    if reduced is None or not own:
        return None
    return max(0, math.ceil(-float(reduced[own.start : own.stop].max())))


def _considered(
    pairs: Pairs, ledger: Ledger, seen: Verdicts, row: int, pair: int, seats: Seats, most: int
) -> tuple[Alternative, ...]:
    if most == 0:
        return ()
    ask = int(pairs.ask[pair])
    mine = {piece.group for piece in pairs.pieces(pair)}
    own = pairs.of(ask)
    ledger.give_back(pair, seats)
    free = dict(zip(own, ledger.fits(ask, slice(own.start, own.stop)).tolist(), strict=True))
    ledger.take_on(pair, seats)
    order = np.lexsort((seen.price[row], seen.why[row] != 0))[: most + len(mine)]
    told = set(order.tolist())
    lost: dict[int, Lost] = {}
    for other, at in zip(own, pairs.group[own.start : own.stop].tolist(), strict=True):
        if at in told and at not in lost and other not in pairs.several:
            lost[at] = _lost(pairs, pair, other, free[other])
    return tuple(
        Alternative(
            group=pairs.groups[at].id,
            price_micros=int(seen.price[row, at]),
            cost_micros=int(seen.cost[row, at]),
            tier=int(seen.tier[row, at]) if seen.tier[row, at] >= 0 else None,
            lost=lost.get(at, Lost.INELIGIBLE),
            why=Why(int(seen.why[row, at])),
        )
        for at in order.tolist()
        if at not in mine
    )[:most]


def _lost(pairs: Pairs, chosen: int, other: int, free: bool) -> Lost:
    if not free:
        return Lost.TAKEN
    if chosen in pairs.keeps and pairs.cost[other] < pairs.cost[chosen]:
        return Lost.MOVE
    both = np.array([chosen, other])
    tiered = (
        (pairs.tier[both], Lost.LATER_TIER),
        (pairs.plain[both], Lost.NOT_CONFIDENTIAL),
        (pairs.cost[both] + pairs.loss[both], Lost.COSTLIER),
        (pairs.slack[both], Lost.LOOSER),
    )
    for (mine, its), reason in tiered[2:] if pairs.problem.aim is Aim.WELFARE else tiered:
        if mine != its:
            return reason if its > mine else Lost.OTHERS
    return Lost.OTHERS


def _binding(pairs: Pairs, ledger: Ledger, seen: Verdicts, row: int, ask: int) -> tuple[Binding, ...]:
    """The limits in the way of groups that nothing else removes, the nearest first."""
    want = pairs.asks[ask]
    near = np.flatnonzero((seen.why[row] & ~np.uint32(CAPACITY)) == 0)
    if len(near) == 0:
        return ()
    found: list[Binding] = []
    units = seen.units[row, near]

    def nearest(limit: Limit, short: Ints) -> None:
        missing = np.flatnonzero(short > 0)
        found.extend(
            Binding(limit=limit, id=pairs.market.ids[int(near[at])], short_by=int(short[at]))
            for at in missing[np.argsort(short[missing], kind="stable")[:NAMED]].tolist()
        )

    nearest(Limit.GROUP, units - ledger.units_left()[near])
    if want.same_node:
        nearest(Limit.NODE, units // want.workers - ledger.largest[near])
    if pairs.problem.rows:
        found.extend(_shared(pairs, ledger, dict(zip(near.tolist(), units.tolist(), strict=True))))
    cost, devices = int(seen.cost[row, near].min()), int(seen.devices[row, near].min())
    for limit, least, left in (
        (Limit.BUDGET, cost, {name: ledger.budget(name) for name in want.budgets}),
        (Limit.QUOTA, devices, {name: ledger.quota(name) for name in want.quotas}),
    ):
        short = sorted((least - amount, name) for name, amount in left.items() if least > amount)
        found.extend(Binding(limit=limit, id=name, short_by=by) for by, name in short)
    return tuple(found)


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
