"""Solvers as peers: the whole problem at once, or cut into parts, or relaxed to a flow.

CP-SAT and HiGHS (the one inside OR-Tools, so that no second copy of it is loaded) get the assignment model cold, as
one who knows the solver and not the problem would write it. POP cuts the problem into parts and solves each with
CP-SAT. The flow is Firmament's idea at the granularity of devices: no gangs and no budgets, then rounded.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from optimizer.flow import most_taken
from optimizer.problem import Problem
from tests.bench.board import Board, Ints, board, settled
from tests.bench.peers import Peer, density

LARGEST = 1 << 60
"""Sums of coefficients stay below; CP-SAT counts in 64 bits."""
NEAREST = 32
"""Above `WHOLE` pairs the direct solvers get each request's best so many: with all of them they don't even start."""
WHOLE = 200_000


@dataclass(frozen=True)
class Model:
    """max profit · x over 0/1 x of the given pairs, each row Σ coefficient · x ≤ limit."""

    pairs: Ints
    profit: Ints
    rows: tuple[tuple[Ints, Ints, int], ...]
    """Columns, coefficients, limit."""


def model(board: Board) -> Model:
    """Each request once, each group's units, each budget's money, each quota's devices; amounts in µUSD and units."""
    pairs = np.arange(len(board)) if len(board) <= WHOLE else _nearest(board)
    ask, group = board.ask[pairs], board.group[pairs]
    rows = [(columns, np.ones_like(columns), 1) for columns in _grouped(ask)]
    rows += [
        (columns, board.units[pairs][columns], board.groups[int(group[columns[0]])].count)
        for columns in _grouped(group)
    ]
    for field, amounts, limits in (
        ("budgets", board.cost, {each.id: each.remaining_micros for each in board.problem.budgets}),
        ("quotas", board.devices, {each.id: each.remaining_devices for each in board.problem.quotas}),
    ):
        for name, limit in limits.items():
            draws = np.array([name in getattr(each, field) for each in board.asks], dtype=np.bool_)
            columns = np.flatnonzero(draws[ask])
            rows.append((columns, amounts[pairs][columns], limit))
    # A row that holds everything at once says nothing.
    tight = tuple((columns, weights, limit) for columns, weights, limit in rows if weights.sum() > limit)
    return Model(pairs=pairs, profit=board.profit[pairs], rows=tight)


def _nearest(board: Board) -> Ints:
    order = np.lexsort((-board.profit, board.ask))
    rank = np.arange(len(order)) - board.start[board.ask[order]]
    kept: Ints = np.sort(order[rank < NEAREST])
    return kept


def _grouped(keys: Ints) -> list[Ints]:
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    return [part for part in np.split(order, cuts) if len(part)]


def cp_sat(seconds: float, *, workers: int = 1, seed: int = 0) -> Peer:
    """The whole to CP-SAT, cold: DCM, Priority Matters."""
    from ortools.sat.python import cp_model

    def solved(board: Board) -> list[int]:
        until = time.perf_counter() + seconds
        given = model(board)
        if not len(given.pairs):
            return []
        whole = cp_model.CpModel()
        x = [whole.new_bool_var("") for _ in range(len(given.pairs))]
        for columns, weights, limit in given.rows:
            # What leaves 64 bits is rounded so that nothing becomes possible that was not.
            scale = max(1, -(-int(weights.sum()) // LARGEST))
            whole.add(
                cp_model.LinearExpr.weighted_sum([x[at] for at in columns], (-(-weights // scale)).tolist())
                <= limit // scale
            )
        scale = max(1, -(-int(np.abs(given.profit).sum()) // LARGEST))
        whole.maximize(cp_model.LinearExpr.weighted_sum(x, (given.profit // scale).tolist()))
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = max(0.01, until - time.perf_counter())
        solver.parameters.num_workers = workers
        solver.parameters.random_seed = seed
        status = solver.solve(whole)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return []
        return [int(given.pairs[at]) for at, var in enumerate(x) if solver.boolean_value(var)]

    return solved


def highs(seconds: float) -> Peer:
    """The whole to HiGHS as a mixed-integer program, cold; money in dollars."""
    from ortools.linear_solver.python import model_builder

    def solved(board: Board) -> list[int]:
        until = time.perf_counter() + seconds
        given = model(board)
        if not len(given.pairs):
            return []
        whole = model_builder.Model()  # type: ignore[no-untyped-call]  # the library's
        x = [whole.new_bool_var("") for _ in range(len(given.pairs))]
        for columns, weights, limit in given.rows:
            scale = 1e6 if limit > 10**6 else 1.0
            whole.add(
                model_builder.LinearExpr.weighted_sum([x[at] for at in columns], (weights / scale).tolist())
                <= limit / scale
            )
        whole.maximize(model_builder.LinearExpr.weighted_sum(x, (given.profit / 1e6).tolist()))
        solver = model_builder.Solver("highs")
        solver.set_time_limit_in_seconds(max(0.01, until - time.perf_counter()))
        with _silent():
            status = solver.solve(whole)
        if status not in (model_builder.SolveStatus.OPTIMAL, model_builder.SolveStatus.FEASIBLE):
            return []
        return settled(board, (int(given.pairs[at]) for at, var in enumerate(x) if solver.value(var) > 0.5))

    return solved


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """HiGHS prints its name on standard output, whatever one asks of it."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def flow(board: Board) -> list[int]:
    """Min-cost flow of single devices, requests to groups; each request then goes where most of it flowed."""
    pairs = np.arange(len(board)) if len(board) <= WHOLE else _nearest(board)
    size = np.array([ask.devices for ask in board.asks], dtype=np.int64)
    # Cents per device: whole numbers for the solver, fine enough to rank by.
    gain = board.profit[pairs] // (10_000 * np.maximum(1, board.devices[pairs]))
    room = np.array([group.count * group.unit for group in board.groups], dtype=np.int64)
    ask, group = board.ask[pairs], board.group[pairs]
    return settled(board, pairs[most_taken(ask, group, size[ask], gain, size, room)].tolist())


def pop(parts: int, seconds: float, *, by_tenant: bool, seed: int = 0) -> Peer:
    """POP: the problem cut into `parts`, each solved by CP-SAT in its share of the time, the answers put together.

    At random, every part gets a share of every group, budget and quota (resource splitting). By tenant, budgets stay
    whole and the groups are dealt out.
    """
    solve = cp_sat(seconds / parts)

    def solved(whole: Board) -> list[int]:
        rng = random.Random(seed)
        cut = _by_tenant if by_tenant else _at_random
        at = {group.id: index for index, group in enumerate(whole.groups)}
        index = {ask.id: index for index, ask in enumerate(whole.asks)}
        chosen = []
        for part in cut(whole.problem, parts, rng):
            small = board(part)
            # A part in which CP-SAT finds nothing in time is filled greedily, rather than left empty.
            for pair in solve(small) or density(0.5)(small):
                own = whole.of(index[small.asks[int(small.ask[pair])].id])
                group = at[small.groups[int(small.group[pair])].id]
                chosen.append(own.start + int(np.flatnonzero(whole.group[own] == group)[0]))
        return chosen

    return solved


def _at_random(problem: Problem, parts: int, rng: random.Random) -> Iterable[Problem]:
    asks = list(problem.asks)
    rng.shuffle(asks)
    for at in range(parts):
        yield replace(
            problem,
            asks=tuple(asks[at::parts]),
            groups=tuple(
                replace(group, count=_share(group.count, parts, (at + turn) % parts))
                for turn, group in enumerate(problem.groups)
            ),
            budgets=tuple(replace(each, remaining_micros=each.remaining_micros // parts) for each in problem.budgets),
            quotas=tuple(
                replace(each, remaining_devices=_share(each.remaining_devices, parts, (at + turn) % parts))
                for turn, each in enumerate(problem.quotas)
            ),
        )


def _by_tenant(problem: Problem, parts: int, rng: random.Random) -> Iterable[Problem]:
    tenants = sorted({ask.tenant for ask in problem.asks})
    groups = list(problem.groups)
    rng.shuffle(tenants)
    rng.shuffle(groups)
    for at in range(parts):
        own, dealt = set(tenants[at::parts]), {group.id for group in groups[at::parts]}
        yield replace(
            problem,
            asks=tuple(ask for ask in problem.asks if ask.tenant in own),
            groups=tuple(group for group in problem.groups if group.id in dealt),
        )


def _share(whole: int, parts: int, at: int) -> int:
    return whole // parts + (at < whole % parts)


def solvers(seconds: float) -> Mapping[str, Peer]:
    """By name; each is given so many seconds, to write its model and to solve it."""
    return {
        "min-cost flow, rounded": flow,
        "POP, 4 at random": pop(4, seconds, by_tenant=False),
        "POP, 4 by tenant": pop(4, seconds, by_tenant=True),
        "CP-SAT alone": cp_sat(seconds),
        "HiGHS alone": highs(seconds),
    }
