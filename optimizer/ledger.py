"""What is left of everything while a plan is being made: units, nodes, shared capacity, money, quota.

The greedy, the repair and the explanations all ask the same two things: which of these pairs still fit, and take this
one. A request whose workers want nodes takes particular ones when it is taken, always the tightest that hold them;
other requests only lower the group's count, because their devices fill whatever the nodes have left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np

from optimizer.market import Bools, Floats, Ints
from optimizer.nodes import Nodes, NodesInTime
from optimizer.pairs import Pairs
from optimizer.solution import Limit
from optimizer.variants import shape

FEW = 32
"""Pairs of a request looked at first."""
Seats = tuple[tuple[int, int], ...]
"""(group, node) of each worker, for requests whose workers want nodes; else empty."""


class _NodesOf(dict[int, "Nodes | NodesInTime"]):
    """Group → its nodes; what was not looked at is as the market has it."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self._market = pairs.market

    def __missing__(self, group: int) -> Nodes | NodesInTime:
        market = self._market
        part = market.nodes[market.first_node[group] : market.first_node[group + 1]]
        made = Nodes(part[:, 0].tolist()) if market.buckets == 1 else NodesInTime(part)
        self[group] = made
        return made


class Ledger:
    """Remaining capacity and money; mutable, one for each attempt at a plan."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self.left: Floats = pairs.usage.most.copy()
        """Of every limit, in the order of the usage's columns."""
        self._nodeless = False
        self._rooms: dict[tuple[int, int], Ints] = {}

    @cached_property
    def nodes(self) -> _NodesOf:
        """Of every group, made when they are first looked at: most groups' never are."""
        return _NodesOf(self._pairs)

    @cached_property
    def largest(self) -> Ints:
        """The most units free on one node of each group, at some time."""
        market = self._pairs.market
        most: Ints = np.zeros(len(market.first_node) - 1, dtype=np.int64)
        having = np.flatnonzero(np.diff(market.first_node))
        if len(having):
            most[having] = np.maximum.reduceat(market.nodes.max(axis=1), market.first_node[having])
        for group, nodes in self.nodes.items():
            most[group] = nodes.largest()
        return most

    def unlimited(self) -> None:
        """Leave only budgets and quotas: for a bound in which everything else has its price."""
        self.left[: self._pairs.usage.hard] = np.inf
        self._nodeless = True

    @property
    def nodeless(self) -> bool:
        """Nodes are not looked at."""
        return self._nodeless

    def units_left(self, span: tuple[int, int] = (0, 1)) -> Ints:
        """Units that each group can still give all through some buckets, shared capacity not looked at."""
        usage, buckets = self._pairs.usage, self._pairs.market.buckets
        left: Ints = self.left[: usage.cells].reshape(-1, buckets)[:, span[0] : span[1]].min(axis=1).astype(np.int64)
        return left

    def shared_left(self, span: tuple[int, int] = (0, 1)) -> list[int]:
        """What each capacity row can still give all through some buckets."""
        usage, buckets = self._pairs.usage, self._pairs.market.buckets
        rows = self.left[usage.cells : usage.hard].reshape(-1, buckets)[:, span[0] : span[1]].min(axis=1)
        left: list[int] = rows.astype(np.int64).tolist()
        return left

    def room(self, span: tuple[int, int] = (0, 1)) -> Ints:
        """Units that each group can still give all through some buckets, shared capacity included."""
        if span not in self._rooms:
            room, index = self.units_left(span), self._pairs.market.index
            for row, left in zip(self._pairs.problem.rows, self.shared_left(span), strict=True):
                for name, weight in row.members.items():
                    if weight:
                        room[index[name]] = min(room[index[name]], left // weight)
            self._rooms[span] = room
        return self._rooms[span]

    def budget(self, name: str) -> int:
        """µUSD that are left of it."""
        return int(self.left[self._pairs.usage.at[Limit.BUDGET, name]])

    def quota(self, name: str) -> int:
        """Devices that are left of it."""
        return int(self.left[self._pairs.usage.at[Limit.QUOTA, name]])

    def fits(self, ask: int, which: slice) -> Bools:
        """Which of these pairs of one request still fit; whether all its workers find nodes is only seen by seating."""
        fit = self._pairs.usage.fits(which, self.left)
        if self._pairs.same_node[ask] and not self._nodeless:
            pairs = self._pairs
            want = pairs.asks[ask]
            worker = (
                pairs.units[which] // want.workers
                if not want.forms
                else np.array(
                    [
                        pairs.units[pair] // shape(want, int(pairs.form[pair]))[1]
                        for pair in range(which.start, which.stop)
                    ]
                )
            )
            roomy = worker <= self.largest[pairs.group[which]]
            if pairs.several:
                # Workers take different units in different groups; there only seating tells.
                roomy |= np.array([pair in pairs.several for pair in range(which.start, which.stop)])
            fit &= roomy
        return fit

    def fitting(self, ask: int, which: range, score: Floats | None = None) -> Iterator[int]:
        """The pairs that fit, best first: as they lie, or by score."""
        fit = np.flatnonzero(self.fits(ask, slice(which.start, which.stop)))
        if score is not None:
            fit = fit[np.argsort(-score[which.start + fit], kind="stable")]
        for at in fit.tolist():
            if self.seats(which.start + at) is not None:
                yield which.start + at

    def first_fit(self, ask: int) -> int | None:
        """The best pair of the request that still fits."""
        own = self._pairs.of(ask)
        if not own:
            return None
        if self._pairs.same_node[ask]:
            return next(self.fitting(ask, own), None)
        # Mostly one of the first few fits, and a look at hundreds takes longer than two looks.
        for which in (own[:FEW], own[FEW:]):
            if which:
                fit = self.fits(ask, slice(which.start, which.stop))
                at = int(fit.argmax())
                if fit[at]:
                    return which.start + at
        return None

    def best_fit(self, ask: int, score: Floats) -> int | None:
        """The pair of the request that still fits with the highest score."""
        own = self._pairs.of(ask)
        if not own:
            return None
        if self._pairs.same_node[ask]:
            return next(self.fitting(ask, own, score), None)
        fit = self.fits(ask, slice(own.start, own.stop))
        at = int(np.where(fit, score[own.start : own.stop], -np.inf).argmax())
        return own.start + at if fit[at] else None

    def seats(self, pair: int) -> Seats | None:
        """Nodes for all workers of a pair, the tightest; empty where it wants none, None where there are too few."""
        pairs = self._pairs
        wanted = pairs.keeps.get(pair)
        if not (wanted or pairs.same_node[pairs.ask[pair]]) or self._nodeless:
            return ()
        span = self._span(pair)
        seats: list[tuple[int, int]] = []
        for piece in pairs.pieces(pair):
            units = piece.units // piece.workers
            nodes = self.nodes[piece.group]
            stays = iter([node for group, node in wanted or () if group == piece.group])
            left = piece.workers
            while left:
                node = next(stays, None) if wanted else nodes.tightest(units, span)
                if node is None and wanted and left == piece.workers:
                    break  # nobody said on which nodes of this group it is
                if node is None or nodes.room(node, span) < units:
                    self._unseat(seats, pair, span)
                    return None
                # The tightest stays the tightest while it holds another.
                count = 1 if wanted else min(left, nodes.room(node, span) // units)
                nodes.take(node, units * count, span)
                seats += [(piece.group, node)] * count
                left -= count
        self._unseat(seats, pair, span)
        return tuple(seats)

    def take(self, pair: int) -> Seats:
        """Take it; where its workers sit."""
        seats = self.seats(pair)
        assert seats is not None, "it was asked before whether it fits"
        self._move(pair, 1, seats)
        return seats

    def take_if_fits(self, pair: int) -> Seats | None:
        """As ``take`` where there is enough of everything; None, and nothing taken, where there is not."""
        limits, amounts = self._pairs.usage.of(pair)
        if (amounts > self.left[limits]).any() or (seats := self.seats(pair)) is None:
            return None
        self._move(pair, 1, seats)
        return seats

    def take_all(self, plan: Mapping[int, Seats]) -> None:
        """Take a whole plan at once."""
        seated = {pair: seats for pair, seats in plan.items() if seats}
        rest = np.array(sorted(pair for pair in plan if pair not in seated), dtype=np.int64)
        self._rooms.clear()
        # Whole numbers below 2^53: sums of them in whatever order are exact.
        if len(rest):
            self.left -= self._pairs.usage.rows(rest).sum(axis=0)
        for pair, seats in seated.items():
            self._move(pair, 1, seats)

    def take_on(self, pair: int, seats: Seats) -> None:
        """Take it on nodes chosen elsewhere."""
        self._move(pair, 1, seats)

    def give_back(self, pair: int, seats: Seats) -> None:
        """Undo a take."""
        self._move(pair, -1, seats)

    def _move(self, pair: int, sign: int, seats: Seats) -> None:
        self._rooms.clear()
        limits, amounts = self._pairs.usage.of(pair)
        # A pair uses each limit once, so that plain indexing loses nothing.
        self.left[limits] -= sign * amounts
        if not seats:
            return
        span = self._span(pair)
        sizes = {piece.group: piece.units // piece.workers for piece in self._pairs.pieces(pair)}
        for (group, node), workers in Counter(seats).items():
            self.nodes[group].take(node, sign * sizes[group] * workers, span)
        for group in sizes:
            self.largest[group] = self.nodes[group].largest()

    def _unseat(self, seats: list[tuple[int, int]], pair: int, span: tuple[int, int]) -> None:
        sizes = {piece.group: piece.units // piece.workers for piece in self._pairs.pieces(pair)}
        for (group, node), workers in Counter(seats).items():
            self.nodes[group].take(node, -sizes[group] * workers, span)

    def _span(self, pair: int) -> tuple[int, int]:
        return int(self._pairs.bucket[pair]), int(self._pairs.until[pair])


def bind(pairs: Pairs, chosen: Iterable[int], named: Mapping[int, Seats]) -> Mapping[int, Seats] | None:
    """Seats for each chosen pair whose workers want nodes, those already named first; None where that finds no packing.

    Largest first, onto the tightest node that holds it. Exact at one time where each size divides the next (1, 2, 4,
    8 …): then every node that holds a larger piece leaves the smaller ones the same choice, because each such choice
    uses up the same number of places of each smaller size. Other groups come with names from the exact solver.
    """
    ledger = Ledger(pairs)
    ledger.left[:] = np.inf
    bound: dict[int, Seats] = {}
    pieces = [pair for pair in chosen if pairs.same_node[pairs.ask[pair]] or pairs.keeps.get(pair)]
    if not pieces:
        return bound
    fixed = {**{pair: seats for pair, seats in pairs.keeps.items() if seats}, **named}

    def worker(pair: int) -> int:
        return max(piece.units // piece.workers for piece in pairs.pieces(pair))

    for pair in sorted(pieces, key=lambda pair: (pair not in fixed, -worker(pair), pair)):
        seats = fixed.get(pair) or ledger.seats(pair)
        if seats is None:
            return None
        ledger.take_on(pair, seats)
        bound[pair] = seats
    return None if any(nodes.overfull() for nodes in ledger.nodes.values()) else bound


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
