"""What is left of everything while a plan is being made: units, nodes, shared capacity, money, quota.

The greedy, the repair and the explanations all ask the same two things: which of these pairs still fit, and take this
one. A same-node request takes a particular node when it is taken, always the tightest that holds it; other requests
only lower the group's count, because their devices fill whatever the nodes have left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from optimizer.filter import Bools, Floats, Ints
from optimizer.nodes import Nodes
from optimizer.pairs import Pairs
from optimizer.problem import MAX_DEVICES, MAX_MONEY


class Ledger:
    """Remaining capacity and money; mutable, one for each attempt at a plan."""

    def __init__(self, pairs: Pairs) -> None:
        problem = pairs.problem
        self._pairs = pairs
        self.room: Ints = np.minimum(pairs.market.count, pairs.market.shared_alone)
        """Units each group can still give, shared rows included."""
        self.count: Ints = pairs.market.count.copy()
        self.nodes = [Nodes(group.per_node) for group in problem.groups]
        self.largest: Ints = pairs.market.largest_node.copy()
        self.budgets = dict(pairs.market.budgets)
        self.quotas = dict(pairs.market.quotas)
        self.rows = [row.limit for row in problem.rows]
        self._members = [
            [(pairs.market.index[name], weight) for name, weight in row.members.items() if weight]
            for row in problem.rows
        ]
        self._rows_of: dict[int, list[tuple[int, int]]] = {}
        for at, members in enumerate(self._members):
            for group, weight in members:
                self._rows_of.setdefault(group, []).append((at, weight))

    def unlimited(self) -> None:
        """Leave only budgets and quotas: for a bound in which everything else has its price."""
        self.count[:] = self.room[:] = self.largest[:] = MAX_DEVICES
        self.rows = [MAX_MONEY * MAX_DEVICES] * len(self.rows)
        self.nodes = [Nodes([MAX_DEVICES * MAX_DEVICES] if nodes.free else []) for nodes in self.nodes]

    def fits(self, ask: int, which: slice) -> Bools:
        """Which of these pairs of one ask still fit."""
        pairs, want = self._pairs, self._pairs.asks[ask]
        group = pairs.group[which]
        fit: Bools = pairs.units[which] <= self.room[group]
        if want.same_node:
            fit &= pairs.units[which] <= self.largest[group]
        if want.budgets:
            fit &= pairs.cost[which] <= min(self.budgets[name] for name in want.budgets)
        if want.quotas:
            fit &= pairs.devices[which] <= min(self.quotas[name] for name in want.quotas)
        return fit

    def first_fit(self, ask: int) -> int | None:
        """The best pair of the ask that still fits."""
        low, high = int(self._pairs.start[ask]), int(self._pairs.start[ask + 1])
        if low == high:
            return None
        fit = self.fits(ask, slice(low, high))
        at = int(fit.argmax())
        return low + at if fit[at] else None

    def best_fit(self, ask: int, score: Floats) -> int | None:
        """The pair of the ask that still fits with the highest score."""
        low, high = int(self._pairs.start[ask]), int(self._pairs.start[ask + 1])
        if low == high:
            return None
        at = int(np.where(self.fits(ask, slice(low, high)), score[low:high], -np.inf).argmax())
        return low + at if self.fits(ask, slice(low + at, low + at + 1))[0] else None

    def take(self, pair: int) -> int | None:
        """Take it; the node it was given, for a same-node ask."""
        return self._move(pair, 1, None)

    def take_on(self, pair: int, node: int | None) -> None:
        """Take it on a node chosen elsewhere."""
        self._move(pair, 1, node)

    def give_back(self, pair: int, node: int | None) -> None:
        """Undo a take."""
        self._move(pair, -1, node)

    def _move(self, pair: int, sign: int, node: int | None) -> int | None:
        pairs = self._pairs
        ask, group = pairs.asks[int(pairs.ask[pair])], int(pairs.group[pair])
        units = sign * int(pairs.units[pair])
        self.count[group] -= units
        if ask.same_node:
            nodes = self.nodes[group]
            if node is None:
                node = nodes.tightest(units)
                assert node is not None, "it was asked before whether it fits"
            nodes.take(node, units)
            self.largest[group] = nodes.largest()
        for name in set(ask.budgets):
            self.budgets[name] -= sign * int(pairs.cost[pair])
        for name in set(ask.quotas):
            self.quotas[name] -= sign * int(pairs.devices[pair])
        touched = {group}
        for row, weight in self._rows_of.get(group, ()):
            self.rows[row] -= weight * units
            touched.update(member for member, _ in self._members[row])
        for each in touched:
            shared = (self.rows[row] // weight for row, weight in self._rows_of.get(each, ()))
            self.room[each] = min((int(self.count[each]), *shared))
        return node


def bind(pairs: Pairs, chosen: Iterable[int], named: Mapping[int, int]) -> Mapping[int, int] | None:
    """A node for each chosen same-node pair, those already named first; None where that finds no packing.

    Largest first, onto the tightest node that holds it. Exact where each size divides the next (1, 2, 4, 8 …): then
    every node that holds a larger piece leaves the smaller ones the same choice, because each such choice uses up the
    same number of places of each smaller size. Other groups come with names from the exact solver.
    """
    nodes: dict[int, int] = {}
    free: dict[int, Nodes] = {}
    pieces = [pair for pair in chosen if pairs.asks[int(pairs.ask[pair])].same_node]
    for pair in sorted(pieces, key=lambda pair: (pair not in named, -int(pairs.units[pair]), pair)):
        group, units = int(pairs.group[pair]), int(pairs.units[pair])
        if group not in free:
            free[group] = Nodes(pairs.groups[group].per_node)
        left = free[group]
        node = named[pair] if pair in named else left.tightest(units)
        if node is None or left.free[node] < units:
            return None
        left.take(node, units)
        nodes[pair] = node
    return nodes


def spread(free: list[int], units: int) -> tuple[tuple[int, int], ...]:
    """Nodes for a request that may use several, taken off ``free``: the tightest that holds it all, else the fewest."""
    fitting = [(room, at) for at, room in enumerate(free) if room >= units]
    if fitting:
        node = min(fitting)[1]
        free[node] -= units
        return ((node, units),)
    taken = []
    for room, at in sorted(((room, at) for at, room in enumerate(free) if room), key=lambda node: (-node[0], node[1])):
        part = min(room, units)
        free[at] -= part
        units -= part
        taken.append((at, part))
        if units == 0:
            break
    return tuple(sorted(taken))
