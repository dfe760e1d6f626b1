"""Why each placed ask went where it went, and why each other one went nowhere: as data.

Reasons are read off the same arrays that made the plan, given that plan: a group that was free enough before others
took it is *taken*, not *too small*. A change that is offered ("cap 3.40 instead of 3.00") is the smallest of its kind
and has been applied to the request and checked by the independent checker beside the whole plan; where the plan is
proved optimal, solving again with the change places the request, because the old plan with it added beats every plan
without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from optimizer.changes import changes
from optimizer.check import rate_of
from optimizer.filter import Bits, Ints, Verdicts, judge
from optimizer.greedy import Plan
from optimizer.ledger import Ledger, spread
from optimizer.pairs import SLICE, Pairs
from optimizer.problem import Aim
from optimizer.solution import Alternative, Binding, Change, Limit, Lost, Placement, Refusal, Why

CAPACITY = Why.COUNT | Why.NODE | Why.SHARED | Why.BUDGET | Why.QUOTA
"""Predicates that say *not enough*, rather than *not allowed*."""
NAMED = 8
"""Most limits of one sort that a refusal names; the nearest ones."""


def placed(pairs: Pairs, plan: Plan, alternatives: int) -> dict[str, Placement]:
    """A placement for each chosen pair, by ask id."""
    ledger = _spent(pairs, plan)
    seats = _seats(pairs, plan)
    chosen = {int(pairs.ask[pair]): pair for pair in plan}
    order = sorted(chosen)
    considered: dict[int, tuple[Alternative, ...]] = {}
    if alternatives:
        for asks, seen in _slices(pairs, order):
            for row, ask in enumerate(asks):
                pair = chosen[ask]
                considered[ask] = _considered(pairs, ledger, seen, row, pair, plan[pair], alternatives)
    answer = {}
    for ask, removed in zip(order, _removed(pairs.why[order]), strict=True):
        pair, want = chosen[ask], pairs.asks[ask]
        group = pairs.groups[int(pairs.group[pair])]
        answer[want.id] = Placement(
            group=group.id,
            units=int(pairs.units[pair]),
            devices=int(pairs.devices[pair]),
            cost_micros=int(pairs.cost[pair]),
            price_micros=math.ceil(rate_of(want, group)),
            tier=int(pairs.tier[pair]),
            nodes=seats.get(pair, ()),
            considered=considered.get(ask, ()),
            removed=removed,
        )
    return answer


def refused(pairs: Pairs, plan: Plan, details: int) -> dict[str, Refusal]:
    """A refusal for each ask without a chosen pair, by ask id; in full for the first by priority and turn."""
    ledger = _spent(pairs, plan)
    chosen = {int(pairs.ask[pair]) for pair in plan}
    out = [ask for ask in range(len(pairs.asks)) if ask not in chosen]
    eligible = np.diff(pairs.start).tolist()
    counts = dict(zip(out, zip(_removed(pairs.why[out]), _only(pairs.why[out]), strict=True), strict=True))
    turn = sorted(out, key=lambda at: (-pairs.asks[at].priority, pairs.asks[at].created, at))
    found: dict[int, tuple[tuple[Binding, ...], tuple[Change, ...]]] = {}
    for asks, seen in _slices(pairs, sorted(turn[:details])):
        for row, ask in enumerate(asks):
            alone = counts[ask][1]
            found[ask] = _binding(pairs, ledger, seen, row, ask), changes(pairs, ledger, seen, row, ask, alone)
    return {
        pairs.asks[ask].id: Refusal(
            groups=len(pairs.groups),
            eligible=eligible[ask],
            removed=counts[ask][0],
            only=counts[ask][1],
            binding=found[ask][0] if ask in found else (),
            changes=found[ask][1] if ask in found else (),
            detailed=ask in found,
        )
        for ask in out
    }


def _slices(pairs: Pairs, asks: list[int]) -> list[tuple[list[int], Verdicts]]:
    step = max(1, SLICE // max(1, len(pairs.groups)))
    parts = [asks[low : low + step] for low in range(0, len(asks), step)]
    return [(part, judge(pairs.market, [pairs.asks[at] for at in part])) for part in parts]


def _spent(pairs: Pairs, plan: Plan) -> Ledger:
    ledger = Ledger(pairs)
    for pair, node in plan.items():
        ledger.take_on(pair, node)
    return ledger


def _seats(pairs: Pairs, plan: Plan) -> dict[int, tuple[tuple[int, int], ...]]:
    free = {at: list(group.per_node) for at, group in enumerate(pairs.groups) if group.per_node}
    seats: dict[int, tuple[tuple[int, int], ...]] = {}
    for pair, node in plan.items():
        if node is not None:
            units = int(pairs.units[pair])
            free[int(pairs.group[pair])][node] -= units
            seats[pair] = ((node, units),)
    for pair in sorted(plan, key=lambda pair: (-int(pairs.units[pair]), pair)):
        group = int(pairs.group[pair])
        if plan[pair] is None and group in free:
            seats[pair] = spread(free[group], int(pairs.units[pair]))
    return seats


def _removed(why: Bits) -> list[Mapping[Why, int]]:
    counts = [(bit, np.count_nonzero(why & np.uint32(bit), axis=1).tolist()) for bit in Why]
    return [{bit: column[row] for bit, column in counts if column[row]} for row in range(len(why))]


def _only(why: Bits) -> list[Mapping[Why, int]]:
    counts = [(bit, np.count_nonzero(why == np.uint32(bit), axis=1).tolist()) for bit in Why]
    return [{bit: column[row] for bit, column in counts if column[row]} for row in range(len(why))]


def _considered(
    pairs: Pairs, ledger: Ledger, seen: Verdicts, row: int, pair: int, node: int | None, most: int
) -> tuple[Alternative, ...]:
    if most == 0:
        return ()
    ask, group = int(pairs.ask[pair]), int(pairs.group[pair])
    own = pairs.of(ask)
    ledger.give_back(pair, node)
    free = dict(zip(own, ledger.fits(ask, slice(own.start, own.stop)).tolist(), strict=True))
    ledger.take_on(pair, node)
    lost = {int(pairs.group[other]): _lost(pairs, pair, other, free[other]) for other in own}
    order = np.lexsort((seen.price[row], seen.why[row] != 0))
    return tuple(
        Alternative(
            group=pairs.groups[at].id,
            price_micros=int(seen.price[row, at]),
            cost_micros=int(seen.cost[row, at]),
            tier=int(seen.tier[row, at]) if seen.tier[row, at] >= 0 else None,
            lost=lost.get(at, Lost.INELIGIBLE),
            why=Why(int(seen.why[row, at])),
        )
        for at in order[: most + 1].tolist()
        if at != group
    )[:most]


def _lost(pairs: Pairs, chosen: int, other: int, free: bool) -> Lost:
    if not free:
        return Lost.TAKEN
    tiered = (
        (pairs.tier, Lost.LATER_TIER),
        (pairs.plain, Lost.NOT_CONFIDENTIAL),
        (pairs.cost, Lost.COSTLIER),
        (pairs.slack, Lost.LOOSER),
    )
    for column, reason in tiered[2:] if pairs.problem.aim is Aim.WELFARE else tiered:
        if column[other] != column[chosen]:
            return reason if column[other] > column[chosen] else Lost.OTHERS
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

    nearest(Limit.GROUP, units - ledger.count[near])
    if want.same_node:
        nearest(Limit.NODE, units - ledger.largest[near])
    if pairs.problem.rows:
        found.extend(_shared(pairs, ledger, dict(zip(near.tolist(), units.tolist(), strict=True))))
    cost, devices = int(seen.cost[row, near].min()), int(seen.devices[row, near].min())
    for limit, least, left in (
        (Limit.BUDGET, cost, {name: ledger.budgets[name] for name in want.budgets}),
        (Limit.QUOTA, devices, {name: ledger.quotas[name] for name in want.quotas}),
    ):
        short = sorted((least - amount, name) for name, amount in left.items() if least > amount)
        found.extend(Binding(limit=limit, id=name, short_by=by) for by, name in short)
    return tuple(found)


def _shared(pairs: Pairs, ledger: Ledger, needed: Mapping[int, int]) -> list[Binding]:
    """Shared capacities too small for what is needed of each group, the nearest first."""
    short = []
    for row, left in zip(pairs.problem.rows, ledger.rows, strict=True):
        wanted = [
            weight * needed[at] for name, weight in row.members.items() if (at := pairs.market.index[name]) in needed
        ]
        if wanted and min(wanted) > left:
            short.append((min(wanted) - left, row.id))
    return [Binding(limit=Limit.SHARED, id=name, short_by=by) for by, name in sorted(short)[:NAMED]]
