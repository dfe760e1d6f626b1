"""How others place, re-implemented: what each decides by, and nothing it is not known for.

All of them are generous readings: each is given the capacity, the budgets and the quotas of this problem, which the
real one often does not look at, and a request that does not fit on its first choice takes the next that holds it. They
are not the authors' code. `exact` has the solvers, `outside` SkyPilot itself; docs/peers.md says whose idea each is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tests.bench.board import Board, Floats, Room

Peer = Callable[[Board], list[int]]
"""From a board to the chosen pairs."""
Score = Callable[[Room, slice], Floats]
"""How good each pair of one ask is now; the highest that fits is taken."""


def arrival(board: Board) -> list[int]:
    """First come, first served."""
    return sorted(range(len(board.asks)), key=lambda at: (board.asks[at].created, board.asks[at].id))


def priority(board: Board) -> list[int]:
    """kube-scheduler's queue: the highest priority first, then first come."""
    return sorted(arrival(board), key=lambda at: -board.asks[at].priority)


def fill(board: Board, order: Iterable[int], score: Score) -> list[int]:
    """One request after another, each to the best that still holds it; nobody is moved."""
    room = Room(board)
    return [pair for ask in order if (pair := _take_best(board, room, ask, score)) is not None]


def _take_best(board: Board, room: Room, ask: int, score: Score) -> int | None:
    own = board.of(ask)
    fit = room.fits(ask)
    if not fit.any():
        return None
    pair: int = own.start + int(np.where(fit, score(room, own), -np.inf).argmax())
    room.take(pair)
    return pair


def cheapest(board: Board) -> list[int]:
    """In order of arrival, each to its cheapest offer that still holds it."""
    return fill(board, arrival(board), _cheap(board))


def most_allocated(board: Board) -> list[int]:
    """kube-scheduler's MostAllocated among offers: the largest share in use afterwards."""
    return fill(board, priority(board), _packed(board))


def least_allocated(board: Board) -> list[int]:
    """kube-scheduler's LeastAllocated among offers: the largest share still free afterwards."""
    packed = _packed(board)
    return fill(board, priority(board), lambda room, own: -packed(room, own))


def best_fit(board: Board) -> list[int]:
    """In order of arrival, to the offer with the fewest units left afterwards."""
    return fill(
        board, arrival(board), lambda room, own: (board.units[own] - room.free[board.group[own]]).astype(np.float64)
    )


def dot_product(board: Board) -> list[int]:
    """In order of arrival, where demand and what is left point the same way (Tetris); here in one dimension."""
    return fill(
        board, arrival(board), lambda room, own: (board.units[own] * room.free[board.group[own]]).astype(np.float64)
    )


def fair_queues(board: Board) -> list[int]:
    """The tenant with the smallest share next, its requests by priority and arrival, packed: KAI, Volcano with DRF."""
    room, chosen, packed = Room(board), [], _packed(board)
    queues: dict[str, list[int]] = {}
    for ask in reversed(priority(board)):
        queues.setdefault(board.asks[ask].tenant, []).append(ask)
    held = dict.fromkeys(queues, 0)
    while queues:
        tenant = min(queues, key=lambda name: (held[name], name))
        pair = _take_best(board, room, queues[tenant].pop(), packed)
        if not queues[tenant]:
            del queues[tenant]
        if pair is not None:
            chosen.append(pair)
            held[tenant] += int(board.devices[pair])
    return chosen


def density(power: float) -> Peer:
    """By the best profit ÷ devices ** power, highest first, each to its cheapest that still holds it."""

    def planned(board: Board) -> list[int]:
        worth = np.full(len(board.asks), -np.inf)
        for ask in range(len(board.asks)):
            own = board.of(ask)
            if own.start < own.stop:
                worth[ask] = (board.profit[own] / board.devices[own] ** power).max()
        return fill(board, np.argsort(-worth, kind="stable").tolist(), _cheap(board))

    return planned


def _cheap(board: Board) -> Score:
    return lambda room, own: -board.cost[own].astype(np.float64)


def _packed(board: Board) -> Score:
    def score(room: Room, own: slice) -> Floats:
        group = board.group[own]
        share: Floats = (room.count[group] - room.free[group] + board.units[own]) / np.maximum(1, room.count[group])
        return share

    return score


PEERS: Mapping[str, Peer] = {
    "cheapest first": cheapest,
    "kube MostAllocated": most_allocated,
    "kube LeastAllocated": least_allocated,
    "best fit": best_fit,
    "dot product": dot_product,
    "DRF queues, packed": fair_queues,
    "profit first": density(0.0),
    "profit by root of devices": density(0.5),
    "profit by device": density(1.0),
}
"""Those that take no time to speak of."""
