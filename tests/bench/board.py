"""What a peer sees of a problem, and what is left of it while the peer plans: columns, a ledger, and placements.

Deliberately not the optimizer's own ledger: a peer that shared our book-keeping would share its mistakes. A board has
the eligible pairs of `compile_pairs` as columns, asks and groups in order of their ids. Rows of shared capacity and
requests for one node are not understood here, and refused: no instance of the bench has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optimizer.check import rate_of
from optimizer.pairs import compile_pairs
from optimizer.problem import Ask, Group, Problem
from optimizer.solution import Part, Placement

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class NotUnderstood(ValueError):
    """The problem has something that the peers' ledger doesn't keep."""


@dataclass(frozen=True)
class Board:
    """Eligible pairs as columns; those of ask i lie at start[i]:start[i + 1]."""

    problem: Problem
    asks: tuple[Ask, ...]
    groups: tuple[Group, ...]
    ask: Ints
    group: Ints
    units: Ints
    devices: Ints
    cost: Ints
    """µUSD."""
    profit: Ints
    """Value − cost, µUSD; what a request is worth is 0 where it doesn't say."""
    start: Ints

    def of(self, ask: int) -> slice:
        return slice(int(self.start[ask]), int(self.start[ask + 1]))

    def __len__(self) -> int:
        return len(self.ask)


def board(problem: Problem) -> Board:
    """:raises NotUnderstood: shared capacity or one-node requests."""
    if problem.rows or any(ask.same_node for ask in problem.asks):
        raise NotUnderstood("the peers' ledger knows neither shared capacity nor requests for one node")
    pairs = compile_pairs(problem)
    asks = pairs.asks
    value = np.array([ask.value_micros or 0 for ask in asks], dtype=np.int64)
    return Board(
        problem=problem,
        asks=asks,
        groups=pairs.groups,
        ask=pairs.ask,
        group=pairs.group,
        units=pairs.units,
        devices=pairs.devices,
        cost=pairs.cost,
        profit=value[pairs.ask] - pairs.cost,
        start=pairs.start,
    )


class Room:
    """Units, money and quota that are left; mutable, one for each plan."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.count = np.array([group.count for group in board.groups], dtype=np.int64)
        self.free = self.count.copy()
        self.budgets = {budget.id: budget.remaining_micros for budget in board.problem.budgets}
        self.quotas = {quota.id: quota.remaining_devices for quota in board.problem.quotas}

    def fits(self, ask: int) -> Bools:
        """Which of the ask's pairs still fit."""
        board, own, want = self._board, self._board.of(ask), self._board.asks[ask]
        fit: Bools = board.units[own] <= self.free[board.group[own]]
        for name in want.budgets:
            fit &= board.cost[own] <= self.budgets[name]
        for name in want.quotas:
            fit &= board.devices[own] <= self.quotas[name]
        return fit

    def holds(self, pair: int) -> bool:
        """Whether this pair still fits."""
        ask = int(self._board.ask[pair])
        return bool(self.fits(ask)[pair - int(self._board.start[ask])])

    def take(self, pair: int) -> None:
        board = self._board
        want = board.asks[int(board.ask[pair])]
        self.free[board.group[pair]] -= board.units[pair]
        for name in set(want.budgets):
            self.budgets[name] -= int(board.cost[pair])
        for name in set(want.quotas):
            self.quotas[name] -= int(board.devices[pair])


def settled(board: Board, wished: Iterable[int]) -> list[int]:
    """Those of the wished pairs that fit together, dearest profit first, and then whatever else still fits.

    For plans of solvers that count in floating point, or in flows that can be cut: generous, because what rounding
    took away is filled up.
    """
    room, chosen = Room(board), []
    served: set[int] = set()
    for pair in sorted(set(wished), key=lambda pair: (-int(board.profit[pair]), pair)):
        if int(board.ask[pair]) not in served and room.holds(pair):
            room.take(pair)
            chosen.append(pair)
            served.add(int(board.ask[pair]))
    left = [ask for ask in range(len(board.asks)) if ask not in served and board.start[ask] < board.start[ask + 1]]
    for ask in sorted(left, key=lambda ask: -int(board.profit[board.of(ask)].max())):
        own = board.of(ask)
        fit = room.fits(ask)
        if fit.any():
            pair = own.start + int(np.where(fit, board.profit[own], np.iinfo(np.int64).min).argmax())
            room.take(pair)
            chosen.append(pair)
    return chosen


def placements(board: Board, chosen: Iterable[int]) -> dict[str, Placement]:
    """The plan as the checker reads it, with nodes where the group has some."""
    free = {at: list(group.per_node) for at, group in enumerate(board.groups) if group.per_node}
    plan: dict[str, Placement] = {}
    for pair in sorted(chosen, key=lambda pair: (-int(board.units[pair]), pair)):
        ask, at = board.asks[int(board.ask[pair])], int(board.group[pair])
        group, units = board.groups[at], int(board.units[pair])
        if ask.id in plan:
            raise AssertionError(f"{ask.id} is placed twice")
        part = Part(
            group=group.id,
            workers=ask.workers,
            units=units,
            devices=int(board.devices[pair]),
            cost_micros=int(board.cost[pair]),
            nodes=_seats(free[at], units) if at in free else (),
        )
        plan[ask.id] = Placement(parts=(part,), price_micros=math.ceil(rate_of(ask, group)), duration_s=ask.duration_s)
    return plan


def _seats(free: list[int], units: int) -> tuple[tuple[int, int], ...]:
    """The fullest node that holds it all, else as few as will do; what doesn't fit is left for the checker to find."""
    fitting = [(room, node) for node, room in enumerate(free) if room >= units]
    order = [min(fitting)[1]] if fitting else sorted(range(len(free)), key=lambda node: (-free[node], node))
    seats = []
    for node in order:
        part = min(free[node], units)
        if part:
            free[node] -= part
            units -= part
            seats.append((node, part))
    return tuple(sorted(seats))


def welfare(problem: Problem, plan: Mapping[str, Placement]) -> int:
    """Σ (value − cost) of what is placed, µUSD."""
    values = {ask.id: ask.value_micros or 0 for ask in problem.asks}
    return sum(values[name] - placement.cost_micros for name, placement in plan.items())
