"""One offer's devices, node by node, and which of them a request gets.

One rule decides: whole where possible, and on the node that fits tightest, so that large gaps stay large. A shelf that
others may look at is never taken from; ``copy`` it first (``placing.Stock`` does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Lot:
    """One offer as the placing sees it, with every advertised device."""

    id: str
    cluster: str
    tenant: str
    """The lender's."""
    kind: str
    driver: str
    price_micros: int
    """µUSD per device-hour."""
    min_duration_s: int
    max_duration_s: int
    uninterrupted_s: int
    """For so long from its start a lease is surely left alone, by the lender's terms."""
    allowed_tenants: frozenset[str] | None
    region: str
    jurisdiction: str
    """Under whose law it is; empty where its owner says nothing."""
    provider: str
    confidential: bool
    """Declared, not proved."""
    unit: int
    """Devices that are only lent together, all in one node."""
    devices: tuple[tuple[str, str | None], ...]
    """(reference, node), as advertised, sorted."""


@dataclass(slots=True)
class Shelf:
    """What is free of one lot, node by node; placements take from it."""

    lot: Lot
    nodes: dict[str, list[str]]
    """Node → free device references, sorted; nodes in order of name. Devices of no node stand for themselves."""

    @classmethod
    def of(cls, lot: Lot, taken: AbstractSet[str]) -> Shelf:
        nodes: dict[str, list[str]] = {}
        alone: dict[str, list[str]] = {}
        for ref, node in lot.devices:
            if ref in taken:
                continue
            if node is None:
                # Where nobody said which node, nothing may be assumed to share one.
                alone[f"device {ref}"] = [ref]
            elif node in nodes:
                nodes[node].append(ref)
            else:
                nodes[node] = [ref]
        return cls(lot, dict(sorted(alone.items())) | {f"node {node}": nodes[node] for node in sorted(nodes)})

    @property
    def units(self) -> tuple[int, ...]:
        """Lendable units of every node."""
        if self.lot.unit == 1:
            return tuple(len(refs) for refs in self.nodes.values())
        return tuple(len(refs) // self.lot.unit for refs in self.nodes.values())

    def free(self) -> int:
        """Devices that may be lent, in whole units."""
        return sum(self.units) * self.lot.unit

    def largest(self) -> int:
        """The most devices that may be lent in one node."""
        return max(self.units, default=0) * self.lot.unit

    def places(self, devices: int) -> int:
        """How many workers with so many devices in one node find a place."""
        each = -(-devices // self.lot.unit)
        return sum(units // each for units in self.units)

    def copy(self) -> Shelf:
        """One to take from; the lists of a node are replaced, never changed."""
        return Shelf(self.lot, dict(self.nodes))

    def without(self, refs: AbstractSet[str]) -> Shelf:
        kept = {node: [ref for ref in mine if ref not in refs] for node, mine in self.nodes.items()}
        return Shelf(self.lot, kept)

    def take(
        self,
        units: int,
        *,
        same_node: bool,
        workers: int = 1,
        at: Sequence[tuple[int, int]] = (),
        without: AbstractSet[str] = frozenset(),
    ) -> list[str] | None:
        """References of ``units`` units, removed from the shelf; None (and nothing removed) when there aren't enough.

        ``units`` are those of all workers, the same for each; with ``same_node`` each worker's are in one node.
        ``at``: (index of node, units), as the optimizer chose; followed where these nodes still have them.
        """
        view = self.without(without) if without else self
        plan = self._at(view, at) or (_seated(view, units // workers, workers) if same_node else _tightest(view, units))
        if plan is None:
            return None
        taken = [ref for node, count in plan.items() for ref in view.nodes[node][: count * self.lot.unit]]
        gone = set(taken)
        for node in plan:
            self.nodes[node] = [ref for ref in self.nodes[node] if ref not in gone]
        return sorted(taken)

    @staticmethod
    def _at(view: Shelf, at: Sequence[tuple[int, int]]) -> dict[str, int] | None:
        names, units = list(view.nodes), view.units
        wanted: Counter[int] = Counter()
        for index, count in at:
            wanted[index] += count
        if at and all(index < len(names) and units[index] >= count for index, count in wanted.items()):
            return {names[index]: count for index, count in wanted.items()}
        return None


def _tightest(shelf: Shelf, units: int) -> dict[str, int] | None:
    """One node that fits tightest; else few nodes: the largest first, and the tightest for what remains."""
    free = [(node, count) for node, count in zip(shelf.nodes, shelf.units, strict=True) if count]
    free.sort(key=lambda each: -each[1])
    plan: dict[str, int] = {}
    for at, (node, count) in enumerate(free):
        if count >= units:
            # Largest first, and in order of name among equals: the tightest is the first of the last size that fits.
            tightest = min((each for each in free[at:] if each[1] >= units), key=lambda each: each[1])
            return {**plan, tightest[0]: units}
        plan[node] = count
        units -= count
    return None


def _seated(shelf: Shelf, units: int, workers: int) -> dict[str, int] | None:
    """So many units in one node for each worker: one node for all where one has them, else the largest gaps first.

    Equal workers: a node with room for k of them takes k, whatever the others do, so no order misses a way.
    """
    room = {node: count // units for node, count in zip(shelf.nodes, shelf.units, strict=True) if count >= units}
    left = dict(zip(shelf.nodes, shelf.units, strict=True))
    plan: dict[str, int] = {}
    while workers:
        whole = [node for node in room if room[node] >= workers]
        if whole:
            node = min(whole, key=lambda each: left[each])
            plan[node] = workers * units
            return plan
        if not room:
            return None
        node = max(room, key=lambda each: room[each])
        count = room.pop(node)
        plan[node] = count * units
        workers -= count
    return plan
