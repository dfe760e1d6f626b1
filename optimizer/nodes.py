"""The nodes of one group, found by what is free on them instead of by looking at each.

Thousands of nodes have only a few different numbers of free devices. So nodes are kept by that number: the tightest
that holds a piece is the first of the smallest number that is large enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush


class Nodes:
    """Free units, node by node; mutable."""

    def __init__(self, free: Iterable[int]) -> None:
        self.free = list(free)
        self._with: dict[int, list[int]] = {}
        """Free units → heap of nodes that had so many when they were put there; those that have changed are skipped."""
        for node, room in enumerate(self.free):
            self._with.setdefault(room, []).append(node)

    def tightest(self, units: int) -> int | None:
        """The node with the least room that still holds ``units``; of several the first. None: there is none."""
        for room in sorted(self._with):
            if room >= units and (node := self._first(room)) is not None:
                return node
        return None

    def largest(self) -> int:
        """The most units free on one node; 0 where there is no node."""
        return next((room for room in sorted(self._with, reverse=True) if self._first(room) is not None), 0)

    def take(self, node: int, units: int) -> None:
        """``units`` less on this node; negative: given back."""
        self.free[node] = room = self.free[node] - units
        heappush(self._with.setdefault(room, []), node)

    def _first(self, room: int) -> int | None:
        heap = self._with[room]
        while heap and self.free[heap[0]] != room:
            heappop(heap)
        if heap:
            return heap[0]
        del self._with[room]
        return None
