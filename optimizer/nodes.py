"""The nodes of one group, found by what is free on them instead of by looking at each.

Thousands of nodes have only a few different numbers of free devices. So nodes are kept by that number: the tightest
that holds a piece is the first of the smallest number that is large enough. Where the plan looks ahead, a node has a
number for each bucket of time, and then each is looked at (``NodesInTime``).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

import numpy as np

from optimizer.market import Ints

Span = tuple[int, int]


class Nodes:
    """Free units, node by node, at one time; mutable."""

    def __init__(self, free: Iterable[int]) -> None:
        self.free = list(free)
        self._with: dict[int, list[int]] = {}
        """Free units → heap of nodes that had so many when they were put there; those that have changed are skipped."""
        for node, room in enumerate(self.free):
            self._with.setdefault(room, []).append(node)

    def tightest(self, units: int, _: Span = (0, 1)) -> int | None:
        """The node with the least room that still holds ``units``; of several the first. None: there is none."""
        for room in sorted(self._with):
            if room >= units and (node := self._first(room)) is not None:
                return node
        return None

    def largest(self) -> int:
        """The most units free on one node; 0 where there is no node."""
        return next((room for room in sorted(self._with, reverse=True) if self._first(room) is not None), 0)

    def room(self, node: int, _: Span = (0, 1)) -> int:
        """Free units of one node."""
        return self.free[node]

    def places(self, units: int, _: Span = (0, 1)) -> int:
        """How many pieces of so many units they hold."""
        return sum(room // units for room in self.free)

    def take(self, node: int, units: int, _: Span = (0, 1)) -> None:
        """``units`` less on this node; negative: given back."""
        self.free[node] = room = self.free[node] - units
        heappush(self._with.setdefault(room, []), node)

    def overfull(self) -> bool:
        """Whether more was taken of some node than it has."""
        return any(room < 0 for room in self.free)

    def _first(self, room: int) -> int | None:
        heap = self._with[room]
        while heap and self.free[heap[0]] != room:
            heappop(heap)
        if heap:
            return heap[0]
        del self._with[room]
        return None


class NodesInTime:
    """Free units, node by node, in every bucket; mutable."""

    def __init__(self, free: Ints) -> None:
        self._free = free.copy()

    def tightest(self, units: int, span: Span) -> int | None:
        """As ``Nodes.tightest``, free all through the span."""
        room = self._free[:, span[0] : span[1]].min(axis=1)
        fitting = np.flatnonzero(room >= units)
        return int(fitting[room[fitting].argmin()]) if len(fitting) else None

    def largest(self) -> int:
        """The most units free on one node at some time."""
        return int(self._free.max(initial=0))

    def room(self, node: int, span: Span) -> int:
        """Units of one node that are free all through the span."""
        return int(self._free[node, span[0] : span[1]].min())

    def places(self, units: int, span: Span) -> int:
        """How many pieces of so many units they hold all through the span."""
        return int((self._free[:, span[0] : span[1]].min(axis=1) // units).sum()) if len(self._free) else 0

    def take(self, node: int, units: int, span: Span) -> None:
        """``units`` less on this node during the span; negative: given back."""
        self._free[node, span[0] : span[1]] -= units

    def overfull(self) -> bool:
        """As ``Nodes.overfull``, at some time."""
        return bool((self._free < 0).any())
