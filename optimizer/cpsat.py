"""The exact part: OR-Tools CP-SAT over the pairs. The only file that knows the solver, and loads it when first used.

One Boolean for each pair, at most one pair for each ask, one linear row for each limit, and the goals solved one after
another: what a goal reached becomes a constraint for the next. Neighbouring goals are joined into one objective while
the joint coefficients stay small, because one solve is cheaper than two; the joint bound is taken apart again exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.effort import Effort
from optimizer.goals import SAFE, Line
from optimizer.ledger import Ledger, Seats
from optimizer.limits import Pieces, loose, rows
from optimizer.market import Ints
from optimizer.pairs import Pairs

JOIN_SMALL = 2**56
"""Joint coefficients of goals may grow to this where there are few pairs: exact arithmetic is all that matters."""
JOIN_LARGE = 2**12
"""… and to this where there are many: larger spreads make the linear relaxation useless."""
FEW = 60
"""So many pairs are few: presolve costs more than it saves, and goals may be joined freely."""


@dataclass(frozen=True)
class Found:
    """What one solve says."""

    chosen: frozenset[int] | None
    """None where nothing was found in time."""
    nodes: Mapping[int, Seats]
    """Pair → where its workers sit, for the pairs whose nodes had to be named."""
    best: int
    """No choice of the modelled pairs has a higher joint value."""
    status: str
    work: float


class Model:
    """One problem's constraints, to be solved for several goals in a row.

    ``kept`` are the pairs to choose from (indices, rising), ``left`` what they may use; None is everything there is.
    """

    def __init__(self, pairs: Pairs, kept: Ints, left: Ledger | None = None) -> None:
        from ortools.sat.python import cp_model

        self._cp = cp_model
        self._pairs = pairs
        self._left = left or Ledger(pairs)
        self.kept = kept
        self.exact = True
        """False where a row had to be rounded to fit 64 bits; its bounds then prove nothing."""
        self._model: Any = cp_model.CpModel()
        self._x = [self._model.new_bool_var("") for _ in range(len(kept))]
        self._at = np.full(len(pairs), -1, dtype=np.int64)
        self._at[kept] = np.arange(len(kept))
        self._node_vars: dict[int, dict[int, list[tuple[int, Any]]]] = {}
        """Pair → group → (node, how many of its workers sit there)."""
        owner = pairs.ask[kept]
        cuts = np.flatnonzero(np.diff(owner)) + 1
        for mine in np.split(np.arange(len(kept)), cuts):
            if len(mine) > 1:
                self._model.add_at_most_one([self._x[at] for at in mine.tolist()])
        for row in rows(pairs, kept, self._left):
            weight, most = self._fitting(row.weight, row.most)
            self._model.add(self._sum(row.pairs, weight) <= most)
        if not self._left.nodeless:
            for group, pieces in loose(pairs, kept).items():
                self._name_nodes(group, pieces)

    def require(self, line: Line, reached: int) -> None:
        """From now on only choices at least as good in this goal."""
        total = self._sum(self.kept, line.coefficient[self.kept])
        self._model.add(total >= reached if line.maximise else total <= reached)

    def solve(self, coefficient: Ints, hint: Collection[int], effort: Effort) -> Found:
        """Maximise Σ coefficient × pair (over all pairs; those not kept do not count), starting from a choice."""
        self._model.clear_hints()
        hinted = set(hint)
        for pair, x in zip(self.kept.tolist(), self._x, strict=True):
            self._model.add_hint(x, pair in hinted)
        self._model.maximize(self._sum(self.kept, coefficient[self.kept]))
        solver = self._cp.CpSolver()
        given = solver.parameters
        # Otherwise a solve leaves SIGINT at its default, and Ctrl-C kills the process in the middle of anything.
        given.catch_sigint_signal = False
        given.num_workers = effort.workers
        given.random_seed = effort.seed % 2**31
        # The full linear relaxation proves in one second what the default does not in ten: knapsacks, all of it.
        given.linearization_level = 2
        given.relative_gap_limit = effort.gap
        given.max_time_in_seconds = max(0.001, effort.seconds)
        if effort.deterministic is not None:
            given.max_deterministic_time = effort.deterministic
        if len(self.kept) <= FEW:
            given.cp_model_presolve = False
            given.cp_model_probing_level = 0
        with effort.stop.stopping(solver.stop_search):
            status = solver.solve(self._model)
        name = solver.status_name(status)
        if status not in (self._cp.OPTIMAL, self._cp.FEASIBLE):
            return Found(chosen=None, nodes={}, best=SAFE, status=name, work=0.0)
        taken = [pair for pair, x in zip(self.kept.tolist(), self._x, strict=True) if solver.boolean_value(x)]
        nodes = {pair: seats for pair in taken if (seats := self._seated(pair, solver))}
        bound = float(solver.best_objective_bound)
        best = int(np.floor(bound + max(1e-6, abs(bound) * 2.0**-51)))
        if status == self._cp.OPTIMAL and effort.gap == 0:
            # The bound travels as a double; an optimum is known exactly. With a gap allowed it need not be one.
            best = int(coefficient[taken].sum()) if taken else 0
        return Found(
            chosen=frozenset(taken),
            nodes=nodes,
            best=best,
            status=name,
            work=float(solver.response_proto.deterministic_time),
        )

    def _sum(self, which: Ints, weight: Ints) -> Any:
        used = weight != 0
        variables = [self._x[at] for at in self._at[which[used]].tolist()]
        return self._cp.LinearExpr.weighted_sum(variables, weight[used].tolist())

    def _fitting(self, weight: Ints, most: int) -> tuple[Ints, int]:
        shift = int(weight.astype(np.float64).sum() / SAFE).bit_length()
        if shift == 0:
            return weight, most
        self.exact = False
        return -(-weight >> shift), most >> shift

    def _name_nodes(self, group: int, pieces: Pieces) -> None:
        free = [self._left.nodes[group].room(node, (0, 1)) for node in range(self._nodes_of(group))]
        held: list[list[Any]] = [[] for _ in free]
        sizes: list[list[int]] = [[] for _ in free]
        for pair, size, workers in zip(
            *(each.tolist() for each in (pieces.pairs, pieces.size, pieces.workers)), strict=True
        ):
            stays = [node for at, node in self._pairs.keeps.get(pair, ()) if at == group]
            places = []
            for node, room in enumerate(free):
                most = stays.count(node) if stays else min(workers, room // size)
                if most:
                    y = self._model.new_int_var(0, most, "")
                    places.append((node, y))
                    held[node].append(y)
                    sizes[node].append(size)
            self._node_vars.setdefault(pair, {})[group] = places
            self._model.add(sum(y for _, y in places) == workers * self._x[int(self._at[pair])])
        for node, room in enumerate(free):
            if held[node]:
                self._model.add(self._cp.LinearExpr.weighted_sum(held[node], sizes[node]) <= room)

    def _nodes_of(self, group: int) -> int:
        first = self._pairs.market.first_node
        return int(first[group + 1] - first[group])

    def _seated(self, pair: int, solver: Any) -> Seats:
        """Where the solver put its workers; empty unless it named nodes in all of the pair's groups."""
        named = self._node_vars.get(pair, {})
        seats: list[tuple[int, int]] = []
        for piece in self._pairs.pieces(pair) if named else ():
            if piece.group not in named:
                return ()
            for node, y in named[piece.group]:
                seats += [(piece.group, node)] * int(solver.value(y))
        return tuple(seats)


def joined(lines: Sequence[Line], pairs: int) -> tuple[int, Ints, list[int]]:
    """How many of the first lines one objective can hold, that objective (to be maximised), and each line's factor."""
    most = JOIN_SMALL if pairs <= FEW else JOIN_LARGE
    used, spread = 1, lines[0].ceiling + 1
    while used < len(lines) and spread * (lines[used].ceiling + 1) <= most:
        spread *= lines[used].ceiling + 1
        used += 1
    factors = [1]
    for line in reversed(lines[1:used]):
        factors.insert(0, factors[0] * (line.ceiling + 1))
    total = np.zeros(len(lines[0].coefficient), dtype=np.int64)
    for line, factor in zip(lines[:used], factors, strict=True):
        total += (factor if line.maximise else -factor) * line.coefficient
    return used, total, factors


def taken_apart(lines: Sequence[Line], factors: Sequence[int], best: int, reached: Sequence[int]) -> list[int | None]:
    """Each line's own bound from the joint one; None where a line before it is not proved best.

    A line to be minimised counts as what it stays below its ceiling, so all terms are ≥ 0 and below the factor before.
    """
    rest = best + sum(factor * line.ceiling for line, factor in zip(lines, factors, strict=True) if not line.maximise)
    bounds: list[int | None] = []
    for line, factor, value in zip(lines, factors, reached, strict=True):
        if rest < 0 or (bounds and bounds[-1] is None):
            bounds.append(None)
            continue
        top = min(rest // factor, line.ceiling)
        bounds.append(top if line.maximise else line.ceiling - top)
        if bounds[-1] != value:
            bounds.extend([None] * (len(lines) - len(bounds)))
            break
        rest -= factor * top
    return bounds
