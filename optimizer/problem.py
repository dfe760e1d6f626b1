"""The question: who asks for devices, who lends them, and what limits both.

Groups and counts, never single devices: devices of one cluster, kind, price and set of terms are interchangeable to a
borrower, and a model over groups stays small where one over devices would not. Money is whole micro-dollars (µUSD),
time is whole seconds, and every number is checked here, so that a ``Problem`` that exists can be solved without
overflow. Everything is frozen; nothing here knows a clock, a database or a solver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_DEVICES = 1_000_000
"""No request and no group is larger than this many devices."""
MAX_PRICE = 10_000_000_000
"""µUSD per device-hour: ten thousand dollars, far above any device on the market."""
MAX_DURATION = 10 * 366 * 86_400
"""Seconds: ten years."""
MAX_MONEY = 10**15
"""µUSD: a billion dollars, the largest budget, cap or cost; sums of thousands of them still fit 64 bits."""
MAX_PRIORITY = 1_000_000_000
"""Priorities lie within ± this, as Kubernetes has it for PriorityClass values that users may set."""
MAX_ROWS = 100_000
"""Most groups, capacity rows, budgets or quotas in one problem."""
MAX_ASKS = 100_000
MAX_PAIRS = 50_000_000
"""Requests × groups: 20,000 against 2,000 fit, in a few GiB; more is to be split by its caller, by tenant or region."""


class BadProblem(ValueError):
    """The problem contradicts itself or is out of range; the message is a sentence for a person."""


class OutOfRange(BadProblem):
    """A number is negative, zero or too large."""


class DuplicateId(BadProblem):
    """Two things of one sort share an id."""


class UnknownId(BadProblem):
    """Something refers to an id that is not in the problem."""


class Confidential(StrEnum):
    """What a borrower wants of a trusted execution environment and the GPU's confidential mode."""

    NONE = "none"
    PREFER = "prefer"
    REQUIRE = "require"


class Aim(StrEnum):
    """What the whole plan is for."""

    PRIORITY = "priority"
    """Place by strict priority, then turn, then tier, then cost (``solve`` has the list)."""
    WELFARE = "welfare"
    """Maximise Σ (value − cost); a request that costs more than its value stays unplaced. Every ask needs a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Free devices of one cluster, kind, price and set of terms."""

    id: str
    cluster: str
    kind: str
    """Opaque: what the device is; the caller decides which asks it suits (``Ask.matched``)."""
    price_micros: int
    """µUSD per device-hour, all-in: what the borrower pays, fees included."""
    count: int
    """Lendable units free after the lender's keep-back."""
    unit: int = 1
    """Devices in one lendable unit (8 for a TPU node of 8 chips); a unit is lent, and paid, whole."""
    region: str = ""
    provider: str = ""
    min_duration_s: int = 0
    max_duration_s: int = MAX_DURATION
    confidential: bool = False
    """The nodes declare a trusted execution environment and confidential GPU mode. Declared, not proved."""
    lender_tenant: str = ""
    allowed_tenants: frozenset[str] | None = None
    """Tenants the lender admits; None admits everyone. The lender's own tenant is always admitted."""
    per_node: tuple[int, ...] = ()
    """Free units of each node, where known; a request for one node needs it. May add up to more than ``count``."""

    def __post_init__(self) -> None:
        name = f"group {self.id!r}"
        _named(name, self.id)
        _within(f"the price of {name}", self.price_micros, 0, MAX_PRICE)
        _within(f"the unit of {name}", self.unit, 1, MAX_DEVICES)
        _within(f"the count of {name}", self.count, 0, MAX_DEVICES)
        _within(f"the devices of {name}", self.count * self.unit, 0, MAX_DEVICES)
        _within(f"the shortest duration of {name}", self.min_duration_s, 0, MAX_DURATION)
        _within(f"the longest duration of {name}", self.max_duration_s, 0, MAX_DURATION)
        for free in self.per_node:
            _within(f"the free units of a node of {name}", free, 0, MAX_DEVICES)
        if self.per_node and sum(self.per_node) < self.count:
            raise OutOfRange(f"The nodes of {name} hold {sum(self.per_node)} units, fewer than its count {self.count}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """One step of a burst policy: which offers, up to which price. None means any.

    An offer belongs to the first tier that admits it by place, whatever its price; the tier's own cap then applies.
    """

    name: str = ""
    price_cap_micros: int | None = None
    clusters: frozenset[str] | None = None
    providers: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    """Group ids, for a selection the caller made by other means."""

    def __post_init__(self) -> None:
        if self.price_cap_micros is not None:
            _within(f"the price cap of tier {self.name!r}", self.price_cap_micros, 0, MAX_PRICE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A capacity request: so many devices, all or nothing, from one group."""

    id: str
    tenant: str
    cluster: str = ""
    """Home: groups of this cluster are not an answer."""
    devices: int
    duration_s: int
    matched: frozenset[str] | None = None
    """Ids of the groups whose devices satisfy the request's selectors, as the caller evaluated them; None is all."""
    avoid: frozenset[str] = frozenset()
    """Ids of groups that already failed this request (a hold met a conflict) and are not to be tried again."""
    price_cap_micros: int | None = None
    """µUSD per requested device-hour, all-in."""
    total_cap_micros: int | None = None
    """µUSD for the whole duration, transfer included."""
    transfer_micros: Mapping[str, int] = field(default_factory=dict)
    """One-off µUSD of bringing the request's data to a region; a region not named costs nothing."""
    clusters: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    providers: frozenset[str] | None = None
    confidential: Confidential = Confidential.NONE
    tiers: tuple[Tier, ...] = ()
    """In the order in which they are to be tried; none means one tier of everything."""
    same_node: bool = False
    """All devices on one node; groups that do not say what their nodes hold are no answer."""
    budgets: tuple[str, ...] = ()
    """Ids of budgets that must hold the worst case: price × devices × duration, and transfer."""
    quotas: tuple[str, ...] = ()
    priority: int = 0
    """Higher goes first, strictly: no number of lower requests displaces a higher one."""
    created: int = 0
    """Turn among equals: the lower came first."""
    weight: int | None = None
    """How much placing it counts among its equals in priority; None counts its devices."""
    value_micros: int | None = None
    """What it is worth to its tenant, µUSD for the whole duration; read where the aim is welfare."""

    def __post_init__(self) -> None:
        name = f"request {self.id!r}"
        _named(name, self.id)
        _within(f"the devices of {name}", self.devices, 1, MAX_DEVICES)
        _within(f"the duration of {name}", self.duration_s, 1, MAX_DURATION)
        _within(f"the priority of {name}", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        _within(f"the turn of {name}", self.created, 0, 2**62)
        if self.price_cap_micros is not None:
            _within(f"the price cap of {name}", self.price_cap_micros, 0, MAX_PRICE)
        if self.total_cap_micros is not None:
            _within(f"the total cap of {name}", self.total_cap_micros, 0, MAX_MONEY)
        if self.weight is not None:
            _within(f"the weight of {name}", self.weight, 1, MAX_DEVICES)
        if self.value_micros is not None:
            _within(f"the value of {name}", self.value_micros, 0, MAX_MONEY)
        for region, micros in self.transfer_micros.items():
            _within(f"the transfer of {name} to {region!r}", micros, 0, MAX_MONEY)

    @property
    def counts_for(self) -> int:
        """What placing it adds to its priority's goal."""
        return self.devices if self.weight is None else self.weight


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Money that may still be spent; every placement reserves its worst case."""

    id: str
    remaining_micros: int

    def __post_init__(self) -> None:
        _named("a budget", self.id)
        _within(f"what remains of budget {self.id!r}", self.remaining_micros, 0, MAX_MONEY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """Devices that may still be taken, whatever they cost."""

    id: str
    remaining_devices: int

    def __post_init__(self) -> None:
        _named("a quota", self.id)
        _within(f"what remains of quota {self.id!r}", self.remaining_devices, 0, MAX_DEVICES)


@dataclass(frozen=True, kw_only=True, slots=True)
class CapacityRow:
    """A limit that several groups share: Σ weight × units taken ≤ limit.

    A lender that keeps back two devices of whatever kind, or partitions carved from the same GPUs, are such rows.
    """

    id: str
    limit: int
    members: Mapping[str, int]
    """Group id → weight of one of its units."""

    def __post_init__(self) -> None:
        _named("a capacity row", self.id)
        _within(f"the limit of capacity row {self.id!r}", self.limit, 0, MAX_MONEY)
        for group, weight in self.members.items():
            _within(f"the weight of {group!r} in capacity row {self.id!r}", weight, 0, MAX_DEVICES)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Everything open at one moment: all asks against all groups, under all limits."""

    groups: tuple[Group, ...]
    asks: tuple[Ask, ...]
    budgets: tuple[Budget, ...] = ()
    quotas: tuple[Quota, ...] = ()
    rows: tuple[CapacityRow, ...] = ()
    aim: Aim = Aim.PRIORITY

    def __post_init__(self) -> None:
        groups = _unique("group", (group.id for group in self.groups), MAX_ROWS)
        budgets = _unique("budget", (budget.id for budget in self.budgets), MAX_ROWS)
        quotas = _unique("quota", (quota.id for quota in self.quotas), MAX_ROWS)
        _unique("capacity row", (row.id for row in self.rows), MAX_ROWS)
        _unique("request", (ask.id for ask in self.asks), MAX_ASKS)
        if len(self.asks) * len(self.groups) > MAX_PAIRS:
            raise OutOfRange(
                f"{len(self.asks)} requests against {len(self.groups)} groups are too many at once; "
                f"their product may be {MAX_PAIRS}."
            )
        for row in self.rows:
            _known(f"capacity row {row.id!r}", "group", row.members, groups)
        for ask in self.asks:
            _known(f"request {ask.id!r}", "budget", ask.budgets, budgets)
            _known(f"request {ask.id!r}", "quota", ask.quotas, quotas)
            if self.aim is Aim.WELFARE and ask.value_micros is None:
                raise BadProblem(f"A plan for welfare needs a value for every request; {ask.id!r} has none.")


def _named(what: str, name: str) -> None:
    if not name:
        raise BadProblem(f"The id of {what} is empty.")


def _within(what: str, value: int, low: int, high: int) -> None:
    # A bool or a float that slipped in would pass the comparison and poison integer arithmetic later.
    if type(value) is not int:
        raise OutOfRange(f"{what[0].upper()}{what[1:]} is {value!r}, not a whole number.")
    if not low <= value <= high:
        raise OutOfRange(f"{what[0].upper()}{what[1:]} is {value}; it must lie between {low} and {high}.")


def _unique(sort: str, ids: Iterable[str], most: int) -> frozenset[str]:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DuplicateId(f"Two of the same sort share an id: {sort} {name!r}.")
        seen.add(name)
    if len(seen) > most:
        raise OutOfRange(f"The problem has {len(seen)} of the sort {sort}; the most is {most}.")
    return frozenset(seen)


def _known(where: str, sort: str, ids: Iterable[str], known: frozenset[str]) -> None:
    for name in ids:
        if name not in known:
            raise UnknownId(f"In {where}, {sort} {name!r} is not part of the problem.")
