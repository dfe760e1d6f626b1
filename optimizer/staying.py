"""What leaves a running lease where it is: a pair of its own, whatever the predicates now say of its group.

A policy that changed does not end a lease. So a lease that runs has one way that is judged by nothing but whether it is
worth going on, and its group's ordinary cell, which would be the same place with its data paid for again, goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from optimizer.market import Bools, Ints, Market, column
from optimizer.problem import MAX_MONEY, Aim, Ask, Confidential
from optimizer.usage import Piece


def kept(market: Market, ask: Ask) -> tuple[Piece, ...]:
    """What each group goes on giving to a running lease."""
    assert ask.running is not None
    pieces = []
    for held in ask.running.held:
        group = market.index[held.group]
        unit = int(market.unit[group])
        units = -(-ask.devices // unit) * held.workers
        cost = -(-int(market.price[group, 0]) * unit * units * ask.duration_s // 3600)
        pieces.append(Piece(group, held.workers, units, units * unit, min(cost, MAX_MONEY + 1)))
    return tuple(pieces)


def worth_it(market: Market, ask: Ask, pieces: Sequence[Piece]) -> bool:
    """Whether a running lease may go on as it is: one that must not be ended always, others while they are worth it."""
    assert ask.running is not None
    if market.aim is not Aim.WELFARE or ask.running.end_micros is None:
        return True
    return sum(piece.cost for piece in pieces) <= (ask.value_micros or 0) + ask.running.end_micros


def seats(market: Market, ask: Ask) -> tuple[tuple[int, int], ...]:
    """(group, node) of each worker whose node was named."""
    assert ask.running is not None
    return tuple((market.index[held.group], node) for held in ask.running.held for node in held.nodes)


def alone(ask: Ask) -> bool:
    """It is a running lease in a single group: those are rows like any other. (Of several: ``bundles.py``.)"""
    return ask.running is not None and len(ask.running.held) == 1


def beside(market: Market, asks: Sequence[Ask], ask: Ints, group: Ints, workers: Ints) -> Bools | None:
    """Which cells (indices into ``asks`` and groups, and workers there) are a choice beside staying; None: all."""
    at, mine, whole, pinned = [], [], [], []
    for number, each in enumerate(asks):
        if each.running is not None and alone(each):
            held = each.running.held[0]
            at.append(number)
            mine.append(market.index[held.group])
            whole.append(held.workers)
            pinned.append(each.running.move_micros is None)
    if not at:
        return None
    where, count = np.full(len(asks), -1, dtype=np.int64), np.zeros(len(asks), dtype=np.int64)
    where[at], count[at] = mine, whole
    fixed = np.zeros(len(asks), dtype=np.bool_)
    fixed[at] = pinned
    choice: Bools = ~(fixed[ask] | ((group == where[ask]) & (workers == count[ask])))
    return choice


def rows(market: Market, asks: Sequence[Ask]) -> Mapping[str, Ints]:
    """A row for each running lease in a single group, by the columns of ``Pairs``; ``ask`` counts from the first."""
    at, found = [], []
    for number, ask in enumerate(asks):
        if alone(ask):
            (piece,) = kept(market, ask)
            if worth_it(market, ask, (piece,)):
                at.append(number)
                found.append(piece)
    group = column(piece.group for piece in found)
    units = column(piece.units for piece in found)
    those = [asks[number] for number in at]
    spans = [(0, market.span(0, ask.duration_s)[1]) for ask in those]
    prefers = np.array([ask.confidential is Confidential.PREFER for ask in those], dtype=np.bool_)
    zero, row = np.zeros(len(at), dtype=np.int64), np.arange(len(at))
    tier = offered = zero
    if at:
        offered = market.gather("offered", spans, market.least_offered)[row, group]
        if any(ask.tiers for ask in those):
            ranks = market.gather("tiers", [ask.tiers for ask in those], lambda tiers: np.stack(market.ranked(tiers)))
            tier = np.maximum(0, ranks[row, 0, group])
    return {
        "ask": column(at),
        "group": group,
        "units": units,
        "devices": column(piece.devices for piece in found),
        "cost": column(piece.cost for piece in found),
        "loss": zero,
        "tier": tier,
        "plain": (prefers & ~market.confidential[group]).astype(np.int64),
        "slack": np.maximum(0, offered - units),
        "form": zero,
        "bucket": zero,
        "until": column(until for _, until in spans),
    }
