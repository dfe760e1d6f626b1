"""The lenders' side: groups of interchangeable devices, and how many there will be when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from optimizer.ranges import MAX_DEVICES, MAX_DURATION, MAX_PRICE, OutOfRange, named, within

HOURS = 1_000_000
"""Reclaims are counted for a million device-group-hours, so that a rate is a whole number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Later:
    """A change of what is free, known beforehand: a lease that ends, or a reservation that begins."""

    at_s: int
    """Seconds from now."""
    units: int
    """More, or (negative) fewer."""
    node: int | None = None
    """Index into ``Group.per_node``, where the group says what its nodes hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Free devices of one cluster, kind, price, topology domain and set of terms."""

    id: str
    cluster: str
    kind: str
    """Opaque: what the device is; the caller decides which asks it suits (``Ask.matched``)."""
    price_micros: int
    """µUSD per device-hour, all-in: what the borrower pays, fees included."""
    count: int
    """Lendable units free after the lender's keep-back, those of the problem's own running leases included."""
    unit: int = 1
    """Devices in one lendable unit (8 for a TPU node of 8 chips); a unit is lent, and paid, whole."""
    region: str = ""
    jurisdiction: str = ""
    """Whose law holds there, where that is known: a country or a union of them."""
    provider: str = ""
    domain: str = ""
    """The part of the cluster whose devices reach each other fast (NVLink domain, rack). Devices of two domains are two
    groups, so that a request which is not split stays inside one."""
    min_duration_s: int = 0
    max_duration_s: int = MAX_DURATION
    confidential: bool = False
    """The nodes declare a trusted execution environment and confidential GPU mode. Declared, not proved."""
    uninterrupted_s: int | None = None
    """Seconds from its start for which a lease is surely left alone; after them the lender may reclaim it (0: at any
    time, spot). None: never."""
    reclaims: int = 0
    """Expected reclaims of a lease in a million hours; read where an ask names what one costs it."""
    lender_tenant: str = ""
    allowed_tenants: frozenset[str] | None = None
    """Tenants the lender admits; None admits everyone. The lender's own tenant is always admitted."""
    per_node: tuple[int, ...] = ()
    """Free units of each node, where known; a request for one node needs it. May add up to more than ``count``."""
    later: tuple[Later, ...] = ()
    """What becomes free or is taken later."""
    prices: tuple[tuple[int, int], ...] = ()
    """(second from now, µUSD per device-hour) for leases that start then or later, rising; before them the price."""

    def __post_init__(self) -> None:
        name = f"group {self.id!r}"
        named(name, self.id)
        within(f"the price of {name}", self.price_micros, 0, MAX_PRICE)
        within(f"the unit of {name}", self.unit, 1, MAX_DEVICES)
        within(f"the count of {name}", self.count, 0, MAX_DEVICES)
        within(f"the devices of {name}", self.count * self.unit, 0, MAX_DEVICES)
        within(f"the shortest duration of {name}", self.min_duration_s, 0, MAX_DURATION)
        within(f"the longest duration of {name}", self.max_duration_s, 0, MAX_DURATION)
        if self.uninterrupted_s is not None:
            within(f"the time without reclaims of {name}", self.uninterrupted_s, 0, MAX_DURATION)
        within(f"the reclaims of {name}", self.reclaims, 0, HOURS * 1_000)
        for free in self.per_node:
            within(f"the free units of a node of {name}", free, 0, MAX_DEVICES)
        if self.per_node and sum(self.per_node) < self.count:
            raise OutOfRange(f"The nodes of {name} hold {sum(self.per_node)} units, fewer than its count {self.count}.")
        self._check_later(name)

    def _check_later(self, name: str) -> None:
        free, node_free = self.count, Counter(dict(enumerate(self.per_node)))
        for change in sorted(self.later, key=lambda each: each.at_s):
            within(f"the time of a later change of {name}", change.at_s, 1, MAX_DURATION)
            within(f"a later change of {name}", change.units, -MAX_DEVICES, MAX_DEVICES)
            free += change.units
            if self.per_node:
                if change.node is None:
                    raise OutOfRange(f"Later changes of {name} must name their nodes, because the group names its own.")
                within(f"the node of a later change of {name}", change.node, 0, len(self.per_node) - 1)
                node_free[change.node] += change.units
                within(f"what node {change.node} of {name} has later", node_free[change.node], 0, MAX_DEVICES)
            within(f"what {name} has later", free * self.unit, 0, MAX_DEVICES)
        last = 0
        for from_s, price in self.prices:
            within(f"the beginning of a later price of {name}", from_s, last + 1, MAX_DURATION)
            within(f"a later price of {name}", price, 0, MAX_PRICE)
            last = from_s

    def price_at(self, start_s: int) -> int:
        """µUSD per device-hour of a lease that starts then; it keeps that price to its end."""
        if not self.prices:
            return self.price_micros
        return next((price for from_s, price in reversed(self.prices) if from_s <= start_s), self.price_micros)

    def free_within(self, start_s: int, until_s: int) -> int:
        """Units free during all of a span, before anything of the problem is placed."""
        if not self.later:
            return self.count
        return least(self.count, ((each.at_s, each.units) for each in self.later), start_s, until_s)

    def node_within(self, node: int, start_s: int, until_s: int) -> int:
        """As ``free_within``, of one node."""
        if not self.later:
            return self.per_node[node]
        steps = ((each.at_s, each.units) for each in self.later if each.node == node)
        return least(self.per_node[node], steps, start_s, until_s)


def least(free: int, steps: Iterable[tuple[int, int]], start_s: int, until_s: int) -> int:
    """The lowest level between two moments of what starts at ``free`` and changes by (second, difference).

    Changes of one moment count together: a lease that ends as another begins leaves no dip.
    """
    together: Counter[int] = Counter()
    for at_s, units in steps:
        together[at_s] += units
    level = free + sum(units for at_s, units in together.items() if at_s <= start_s)
    lowest = level
    for at_s in sorted(at_s for at_s in together if start_s < at_s < until_s):
        level += together[at_s]
        lowest = min(lowest, level)
    return lowest
