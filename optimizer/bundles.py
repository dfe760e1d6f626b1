"""Ways that take several groups: pairs that no single cell says.

A request that may be split over k groups has as many ways as there are k groups and ways to share its workers among
them. Where they are few all of them become pairs. Where they are many, those become pairs that look good: led by each
of the cheapest groups in turn, and, once the plan has prices, filled from what is left where it is worth least
(``afresh``). The bound does not depend on which: a split way is a mixture of whole ones, and never better than the best
of them, so the pairs of single groups, those too large for their group or its cap among them, bound it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from optimizer.columns import copied, ordered
from optimizer.ledger import Ledger
from optimizer.market import Floats, Ints, Market
from optimizer.pairs import NAMES, Pairs, assembled, best_first
from optimizer.problem import MAX_MONEY, Aim, Ask, Confidential
from optimizer.staying import alone, kept, seats, worth_it
from optimizer.usage import Piece
from optimizer.variants import lasting, shape

ALL = 150
"""So many ways of one request, form and start are listed without choosing."""
LEADING = 8
"""Otherwise so many of the cheapest groups each lead a few."""
_Value = TypeVar("_Value")
Shares = tuple[tuple[int, int], ...]
"""(group, workers)"""


class TooMany(RuntimeError):
    """There are more ways than are worth listing."""


@dataclass(frozen=True)
class Way:
    """One pair to be: of which request, in which form, from which start, with what of which group."""

    ask: int
    form: int
    bucket: int
    pieces: tuple[Piece, ...]
    keep: bool = False


def bundled(pairs: Pairs) -> Pairs:
    """The pairs, and the ways that take several groups, of running leases those they have among them."""
    ways: list[Way] = []
    dropped: list[int] = []
    partial = False
    for at, ask in enumerate(pairs.asks):
        if ask.running is not None and not alone(ask):
            way = Way(at, 0, 0, kept(pairs.market, ask), keep=True)
            ways += [way] if worth_it(pairs.market, ask, way.pieces) else []
            pinned = ask.running.move_micros is None
            held = _held(pairs.market, ask)
            dropped += [pair for pair in pairs.of(at) if pinned or _shares(pairs.pieces(pair)) == held]
            if pinned:
                continue
        if ask.split > 1:
            for mine in _cells(pairs, at):
                found, complete = _splits(pairs, mine, pairs.cost + pairs.loss)
                ways += found
                partial |= not complete
    return replace(extended(pairs, ways, dropped=dropped)[0], partial=partial)


def standing(pairs: Pairs) -> Pairs:
    """The pairs without those that take several groups, or go on, and would not fit if they were the only ones.

    Among ordinary cells they are left out when they are judged; here they would only loosen every bound.
    """
    special = np.array(sorted({*pairs.several, *pairs.keeps}), dtype=np.int64)
    if not len(special):
        return pairs
    used = pairs.usage.rows(special)
    fit = np.logical_and.reduceat(used.data <= pairs.usage.most[used.indices], used.indptr[:-1])
    ledger = Ledger(pairs)
    seated = [pair for pair in special[fit].tolist() if pairs.keeps.get(pair) or pairs.same_node[pairs.ask[pair]]]
    hopeless = special[~fit].tolist() + [pair for pair in seated if ledger.seats(pair) is None]
    return without(pairs, hopeless) if hopeless else pairs


def without(pairs: Pairs, dropped: Iterable[int]) -> Pairs:
    """The other pairs."""
    out = np.array(sorted(dropped), dtype=np.int64)
    edges = zip([0, *(out + 1).tolist()], [*out.tolist(), len(pairs)], strict=True)

    def now(values: Mapping[int, _Value]) -> dict[int, _Value]:
        own = np.array(list(values), dtype=np.int64)
        places = zip((own - np.searchsorted(out, own)).tolist(), np.isin(own, out).tolist(), strict=True)
        return {at: value for (at, gone), value in zip(places, values.values(), strict=True) if not gone}

    columns = copied((pairs.columns,), [(0, low, high) for low, high in edges])
    several, keeps = now(pairs.several), now(pairs.keeps)
    return assembled(pairs.problem, pairs.market, columns, several, keeps, partial=pairs.partial)


def afresh(pairs: Pairs, room: Ints, score: Floats) -> list[Way]:
    """Ways for requests that may be split, from what is left (units by group, in the first bucket), by score."""
    known = {
        (int(pairs.ask[pair]), int(pairs.form[pair]), int(pairs.bucket[pair]), _shares(pieces))
        for pair, pieces in pairs.several.items()
    }
    ways = []
    for at in np.flatnonzero(pairs.splits).tolist():
        for mine in _cells(pairs, at):
            for each in _splits(pairs, mine, -score, room)[0]:
                key = (each.ask, each.form, each.bucket, _shares(each.pieces))
                if key not in known:
                    known.add(key)
                    ways.append(each)
    return ways


def extended(pairs: Pairs, ways: Sequence[Way], *, dropped: Iterable[int] = ()) -> tuple[Pairs, Ints]:
    """The pairs and these ways, and where each pair that was there before is now (−1: dropped)."""
    dropped = list(dropped)
    if not ways and not dropped:
        return pairs, np.arange(len(pairs))
    keep = np.ones(len(pairs), dtype=np.bool_)
    keep[dropped] = False
    new = np.array([_row(pairs, way) for way in ways], dtype=np.int64).reshape(-1, len(NAMES)).T
    columns = {name: np.concatenate((new[at], getattr(pairs, name)[keep])) for at, name in enumerate(NAMES)}
    order = best_first(columns, pairs.problem.aim)
    order = np.arange(len(columns["ask"])) if order is None else order
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    moved = np.full(len(pairs), -1, dtype=np.int64)
    moved[keep] = place[len(ways) :]
    several = {int(moved[pair]): pieces for pair, pieces in pairs.several.items() if moved[pair] >= 0}
    several |= {int(place[at]): way.pieces for at, way in enumerate(ways) if len(way.pieces) > 1}
    keeps = {int(moved[pair]): seats for pair, seats in pairs.keeps.items() if moved[pair] >= 0}
    keeps |= {int(place[at]): seats(pairs.market, pairs.asks[way.ask]) for at, way in enumerate(ways) if way.keep}
    columns = ordered(columns, order)
    return assembled(pairs.problem, pairs.market, columns, several, keeps, partial=pairs.partial), moved


# --- running leases ---------------------------------------------------------------------------------------------------


def _held(market: Market, ask: Ask) -> Shares:
    assert ask.running is not None
    return tuple(sorted((market.index[held.group], held.workers) for held in ask.running.held))


def _shares(pieces: Iterable[Piece]) -> Shares:
    return tuple(sorted((piece.group, piece.workers) for piece in pieces))


# --- several groups ---------------------------------------------------------------------------------------------------


def _cells(pairs: Pairs, ask: int) -> Iterator[list[int]]:
    """The single-group pairs of one request, apart by form and start."""
    apart: dict[tuple[int, int], list[int]] = {}
    for pair in pairs.of(ask):
        if pair not in pairs.several and pair not in pairs.keeps:
            apart.setdefault((int(pairs.form[pair]), int(pairs.bucket[pair])), []).append(pair)
    yield from apart.values()


def _splits(pairs: Pairs, mine: list[int], order: Ints | Floats, room: Ints | None = None) -> tuple[list[Way], bool]:
    """Ways over several of these pairs' groups, the lowest ``order`` first, and whether they are all there are."""
    mine = sorted(mine, key=lambda pair: (order[pair], pair))
    ask, form, bucket = int(pairs.ask[mine[0]]), int(pairs.form[mine[0]]), int(pairs.bucket[mine[0]])
    want = pairs.asks[ask]
    devices, workers = shape(want, form)
    groups = [int(pairs.group[pair]) for pair in mine]
    span = (bucket, int(pairs.until[mine[0]]))
    hold = [min(workers - 1, _holds(pairs.market, want, devices, group, span, room)) for group in groups]
    usable = [at for at, most in enumerate(hold) if most > 0]
    most = min(want.split, workers)
    holding = [hold[at] for at in usable]
    try:
        every, complete = list(islice(_all_ways(holding, workers, most), ALL + 1)), True
    except TooMany:
        every, complete = [], False
    if len(every) > ALL or not complete:
        every, complete = list(_good_ways(holding, workers, most)), False
    held = _held(pairs.market, want) if want.running is not None else None
    ways = []
    for shares in every:
        named = tuple((groups[usable[at]], count) for at, count in shares)
        way = Way(ask, form, bucket, tuple(_piece(pairs, want, form, bucket, *each) for each in named))
        if tuple(sorted(named)) != held and _allowed(pairs, want, way):
            ways.append(way)
    return ways, complete


def _holds(market: Market, ask: Ask, devices: int, group: int, span: tuple[int, int], room: Ints | None) -> int:
    units = -(-devices // int(market.unit[group]))
    free = int(market.room(span)[group]) if room is None else int(room[group])
    fits = free // units
    return min(fits, int(market.places(units, span)[group])) if ask.same_node else fits


def _all_ways(hold: Sequence[int], workers: int, most: int) -> Iterator[Shares]:
    """Every way to share the workers among two groups or more; gives up where that takes long."""
    largest = np.maximum.accumulate(np.array([*hold, 0])[::-1])[::-1].tolist()
    steps = 0

    def further(at: int, left: int, taken: Shares) -> Iterator[Shares]:
        nonlocal steps
        if left == 0:
            if len(taken) > 1:
                yield taken
            return
        for place in range(at, len(hold)):
            steps += 1
            if steps > 20 * ALL:
                raise TooMany
            if left > (most - len(taken)) * largest[place]:
                return
            # What is left must fit into as many of the groups that follow as are still allowed.
            fewest = max(1, left - (most - len(taken) - 1) * largest[place + 1])
            for count in range(min(left, hold[place]), fewest - 1, -1):
                yield from further(place + 1, left - count, (*taken, (place, count)))

    yield from further(0, workers, ())


def _good_ways(hold: Sequence[int], workers: int, most: int) -> Iterator[Shares]:
    """Ways led by each of the first groups in turn: all it holds, or an even part; the rest from the first others."""
    seen = set()
    for lead in range(min(LEADING, len(hold))):
        for count in sorted({min(hold[lead], workers - 1), *(-(-workers // parts) for parts in range(2, most + 1))}):
            if count <= hold[lead]:
                shares = _filled(hold, workers, most, lead, count)
                if shares is not None and len(shares) > 1 and frozenset(shares) not in seen:
                    seen.add(frozenset(shares))
                    yield shares


def _filled(hold: Sequence[int], workers: int, most: int, lead: int, count: int) -> Shares | None:
    taken, left = [(lead, count)], workers - count
    for at, room in enumerate(hold):
        if left == 0 or len(taken) == most:
            break
        # The last group must hold all that is left; before it, any does.
        if at != lead and room and (len(taken) < most - 1 or room >= left):
            taken.append((at, min(room, left)))
            left -= taken[-1][1]
    return tuple(taken) if left == 0 else None


def _piece(pairs: Pairs, ask: Ask, form: int, bucket: int, group: int, workers: int) -> Piece:
    market = pairs.market
    unit = int(market.unit[group])
    units = -(-shape(ask, form)[0] // unit) * workers
    paid = -(-int(market.price[group, bucket]) * unit * units * lasting(ask, form) // 3600)
    fee = ask.transfer_micros.get(pairs.groups[group].region, 0)
    return Piece(group, workers, units, units * unit, min(paid + fee, MAX_MONEY + 1))


def _allowed(pairs: Pairs, ask: Ask, way: Way) -> bool:
    cost = sum(piece.cost for piece in way.pieces)
    if cost > (MAX_MONEY if ask.total_cap_micros is None else ask.total_cap_micros):
        return False
    if pairs.problem.aim is not Aim.WELFARE:
        return True
    saved = (ask.running.end_micros or 0) if ask.running is not None else 0
    return cost + _lost(pairs, ask, way) <= (ask.value_micros or 0) + saved


def _lost(pairs: Pairs, ask: Ask, way: Way) -> int:
    if way.keep:
        return 0
    market, seconds = pairs.market, lasting(ask, way.form)
    waited = max(0, int(market.starts[way.bucket]) - ask.not_before_s)
    lost = -(-ask.delay_micros * waited // 3600)
    lost += (ask.running.move_micros or 0) if ask.running is not None else 0
    for piece in way.pieces:
        lost += -(-int(market.reclaims[piece.group]) * seconds * ask.restart_micros // 3_600_000_000)
    return min(lost, MAX_MONEY)


def _row(pairs: Pairs, way: Way) -> tuple[int, ...]:
    """The columns of one way, in the order of ``NAMES``."""
    market, ask = pairs.market, pairs.asks[way.ask]
    groups = [piece.group for piece in way.pieces]
    ranks = market.ranked(ask.tiers)[0]
    prefers = ask.confidential is Confidential.PREFER
    start = int(market.starts[way.bucket])
    until = market.span(start, start + lasting(ask, way.form))[1]
    values: Mapping[str, int] = {
        "ask": way.ask,
        "group": groups[0],
        "units": sum(piece.units for piece in way.pieces),
        "devices": sum(piece.devices for piece in way.pieces),
        "cost": sum(piece.cost for piece in way.pieces),
        "loss": _lost(pairs, ask, way),
        "tier": max(0, *(int(ranks[group]) for group in groups)),
        "plain": int(prefers and not all(market.confidential[group] for group in groups)),
        "slack": sum(
            max(0, int(market.least_offered((way.bucket, until))[piece.group]) - piece.units) for piece in way.pieces
        ),
        "form": way.form,
        "bucket": way.bucket,
        "until": until,
    }
    return tuple(values[name] for name in NAMES)
