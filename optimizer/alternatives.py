"""Which other groups a placement could have had, and why it has not: taken by others, or worse, for it or for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from optimizer.greedy import Plan
from optimizer.grid import Seen
from optimizer.ledger import Ledger
from optimizer.market import Bools, Ints
from optimizer.pairs import Pairs
from optimizer.problem import Aim
from optimizer.solution import Alternative, Lost, Why

LOST = tuple(Lost)
_CODE = {lost: at for at, lost in enumerate(LOST)}


def alternatives(
    pairs: Pairs, ledger: Ledger, seen: Seen, plan: Plan, chosen: Sequence[int], most: int
) -> Iterator[tuple[Alternative, ...]]:
    """For each request seen, placed by this pair: eligible groups first, then by price; at most so many."""
    mine = [{piece.group for piece in pairs.pieces(pair)} for pair in chosen]
    row = np.arange(len(chosen))[:, None]
    barred = seen.among(~seen.spared())
    told = _first(seen.price + barred * (int(seen.price.max()) + 1), most + max(map(len, mine)))
    lost = _lost(pairs, ledger, plan, chosen, told)
    known: dict[int, Why] = {}
    columns = (
        told,
        *(np.broadcast_to(each, barred.shape)[row, told] for each in (seen.price, seen.cost, seen.tier)),
        lost,
        seen.why(row, told),
    )
    for own, *cells in zip(mine, *(each.tolist() for each in columns), strict=True):
        yield tuple(
            Alternative(
                group=pairs.market.ids[group],
                price_micros=price,
                cost_micros=cost,
                tier=tier if tier >= 0 else None,
                lost=LOST[code],
                why=known[why] if why in known else known.setdefault(why, Why(why)),
            )
            for group, price, cost, tier, code, why in zip(*cells, strict=True)
            if group not in own
        )[:most]


def _first(order: Ints, most: int) -> Ints:
    """Of each row, where the least values are, in order; of equals the first."""
    width = order.shape[1]
    if most >= width or int(order.max()) >= 2**62 // width:
        return np.argsort(order, axis=1, kind="stable")[:, :most]
    key: Ints = np.partition(order * width + np.arange(width), most - 1, axis=1)[:, :most]
    key.sort(axis=1)
    places: Ints = key % width
    return places


def _lost(pairs: Pairs, ledger: Ledger, plan: Plan, chosen: Sequence[int], told: Ints) -> Ints:
    """Why each of these groups was not the one: places in ``LOST``."""
    other = np.full(told.shape, -1, dtype=np.int64)
    free = np.zeros(told.shape, dtype=np.bool_)
    for row, pair in enumerate(chosen):
        other[row], free[row] = _others(pairs, ledger, plan, pair, told[row])
    mine = np.array(chosen, dtype=np.int64)[:, None]
    # The first difference counts; of pairs that do not differ, the plan as a whole decided.
    code = np.full(told.shape, _CODE[Lost.OTHERS], dtype=np.int64)
    open_ = np.ones(told.shape, dtype=np.bool_)
    tiered = (
        ((pairs.tier,), Lost.LATER_TIER),
        ((pairs.plain,), Lost.NOT_CONFIDENTIAL),
        ((pairs.cost, pairs.loss), Lost.COSTLIER),
        ((pairs.slack,), Lost.LOOSER),
    )
    for columns, reason in tiered[2:] if pairs.problem.aim is Aim.WELFARE else tiered:
        worse = sum(column[other] - column[mine] for column in columns)
        code[open_ & (worse > 0)] = _CODE[reason]
        open_ &= worse == 0
    keeps = np.array([pair in pairs.keeps for pair in chosen], dtype=np.bool_)[:, None]
    code[keeps & (pairs.cost[other] < pairs.cost[mine])] = _CODE[Lost.MOVE]
    code[~free] = _CODE[Lost.TAKEN]
    code[other < 0] = _CODE[Lost.INELIGIBLE]
    return code


def _others(pairs: Pairs, ledger: Ledger, plan: Plan, pair: int, told: Ints) -> tuple[Ints, Bools]:
    """Its request's first pair in each of these groups (−1: none), and whether it is free beside the others."""
    ask = int(pairs.ask[pair])
    own = pairs.of(ask)
    group = pairs.group[own.start : own.stop]
    at = np.arange(len(own))
    if pairs.several:
        single = np.array([each not in pairs.several for each in own], dtype=np.bool_)
        group, at = group[single], at[single]
    place = np.full(len(pairs.groups), -1, dtype=np.int64)
    place[group[::-1]] = at[::-1]
    first = place[told]
    free = np.zeros(len(told), dtype=np.bool_)
    having = first[first >= 0]
    if len(having):
        low, high = own.start + int(having.min()), own.start + int(having.max()) + 1
        ledger.give_back(pair, plan[pair])
        fits = ledger.fits(ask, slice(low, high))
        ledger.take_on(pair, plan[pair])
        free[first >= 0] = fits[having - (low - own.start)]
    return np.where(first >= 0, own.start + first, -1), free
