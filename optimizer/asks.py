"""The borrowers' side: capacity requests, and running leases that may be moved or ended for a price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from optimizer.ranges import (
    MAX_DEVICES,
    MAX_DURATION,
    MAX_FORMS,
    MAX_MONEY,
    MAX_PRICE,
    MAX_PRIORITY,
    MAX_SPLIT,
    BadProblem,
    OutOfRange,
    named,
    within,
)


class Confidential(StrEnum):
    """What a borrower wants of a trusted execution environment and the GPU's confidential mode."""

    NONE = "none"
    PREFER = "prefer"
    REQUIRE = "require"


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
    jurisdictions: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    """Group ids, for a selection the caller made by other means."""

    def __post_init__(self) -> None:
        if self.price_cap_micros is not None:
            within(f"the price cap of tier {self.name!r}", self.price_cap_micros, 0, MAX_PRICE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """The same work on other devices: how many of them, and how fast they are."""

    matched: frozenset[str] | None = None
    """Ids of the groups whose devices do for this form; None is all."""
    devices: int
    """For one worker."""
    workers: int = 1
    speed_milli: int = 1_000
    """Thousandths of the speed that the ask's duration is for: at 2000 the work takes half as long."""

    def __post_init__(self) -> None:
        _sized("a form of a request", self.devices, self.workers)
        within("the speed of a form", self.speed_milli, 1, 1_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Where some workers of a running lease are."""

    group: str
    workers: int = 1
    nodes: tuple[int, ...] = ()
    """Index into ``Group.per_node`` for each worker, where its devices share a node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """That an ask is a lease which runs already. The groups' counts include what it holds.

    It may always go on where it is, whatever the predicates say: a policy that changed does not end a lease.
    """

    held: tuple[Held, ...]
    move_micros: int | None = None
    """What it costs its tenant to be moved (checkpoint, restart, lost work), µUSD; None: it must not be moved."""
    end_micros: int | None = None
    """What it costs to be ended early (preempted), as a whole; None: it must not be ended."""

    def __post_init__(self) -> None:
        if not self.held:
            raise BadProblem("A running lease holds something somewhere; this one names no group.")
        for each in self.held:
            within(f"the workers of a running lease on {each.group!r}", each.workers, 1, MAX_DEVICES)
            if each.nodes and len(each.nodes) != each.workers:
                raise BadProblem(
                    f"A running lease names {len(each.nodes)} nodes in {each.group!r}, not one each worker."
                )
        if len({each.group for each in self.held}) < len(self.held):
            raise BadProblem("A running lease names a group twice; say once what it holds there.")
        for what, micros in (("moving", self.move_micros), ("ending", self.end_micros)):
            if micros is not None:
                within(f"the cost of {what} a running lease", micros, 0, MAX_MONEY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A capacity request: workers × devices, all or nothing (a gang)."""

    id: str
    tenant: str
    cluster: str = ""
    """Home: groups of this cluster are not an answer."""
    devices: int
    """Of one worker."""
    workers: int = 1
    duration_s: int
    matched: frozenset[str] | None = None
    """Ids of the groups whose devices satisfy the request's selectors, as the caller evaluated them; None is all."""
    forms: tuple[Form, ...] = ()
    """What would do instead, in order: a group that the ask's own ``matched`` leaves out is taken in the first form
    that names it."""
    split: int = 1
    """Over how many groups the workers may be spread at most."""
    avoid: frozenset[str] = frozenset()
    """Ids of groups that already failed this request (a hold met a conflict) and are not to be tried again."""
    price_cap_micros: int | None = None
    """µUSD per requested device-hour, all-in."""
    total_cap_micros: int | None = None
    """µUSD for the whole duration, transfer included."""
    transfer_micros: Mapping[str, int] = field(default_factory=dict)
    """One-off µUSD of bringing the request's data to a region; a region not named costs nothing. A request that is
    split pays it for each part."""
    clusters: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    jurisdictions: frozenset[str] | None = None
    providers: frozenset[str] | None = None
    confidential: Confidential = Confidential.NONE
    uninterrupted: bool = False
    """Groups whose lender may reclaim it before it ends are no answer."""
    restart_micros: int = 0
    """What one reclaim costs its tenant; by a group's expected reclaims it counts beside the price, and is not paid."""
    tiers: tuple[Tier, ...] = ()
    """In the order in which they are to be tried; none means one tier of everything."""
    same_node: bool = False
    """The devices of a worker share a node; groups that do not say what their nodes hold are no answer."""
    not_before_s: int = 0
    """Earliest start, in seconds from now."""
    start_by_s: int | None = None
    """Latest start; None: at the earliest moment that ``not_before_s`` allows, or not at all."""
    end_by_s: int | None = None
    """Deadline: the last moment at which it may still run."""
    delay_micros: int = 0
    """What an hour of waiting costs its tenant; it counts beside the price, and is not paid."""
    running: Running | None = None
    """Set for a lease that runs already; its duration is then what remains."""
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
        named(name, self.id)
        _sized(name, self.devices, self.workers)
        within(f"the duration of {name}", self.duration_s, 1, MAX_DURATION)
        within(f"the priority of {name}", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        within(f"the turn of {name}", self.created, 0, 2**62)
        within(f"the split of {name}", self.split, 1, MAX_SPLIT)
        within(f"the number of other forms of {name}", len(self.forms), 0, MAX_FORMS)
        within(f"the cost of a restart of {name}", self.restart_micros, 0, MAX_MONEY)
        within(f"the cost of an hour of waiting of {name}", self.delay_micros, 0, MAX_MONEY)
        for what, value, most in (
            ("price cap", self.price_cap_micros, MAX_PRICE),
            ("total cap", self.total_cap_micros, MAX_MONEY),
            ("value", self.value_micros, MAX_MONEY),
        ):
            if value is not None:
                within(f"the {what} of {name}", value, 0, most)
        if self.weight is not None:
            within(f"the weight of {name}", self.weight, 1, MAX_DEVICES)
        for region, micros in self.transfer_micros.items():
            within(f"the transfer of {name} to {region!r}", micros, 0, MAX_MONEY)
        self._check_window(name)
        if self.running is not None and sum(each.workers for each in self.running.held) != self.workers:
            raise BadProblem(f"The running lease {self.id!r} has {self.workers} workers, and holds another number.")

    def _check_window(self, name: str) -> None:
        within(f"the earliest start of {name}", self.not_before_s, 0, MAX_DURATION)
        if self.start_by_s is not None:
            within(f"the latest start of {name}", self.start_by_s, 0, MAX_DURATION)
            if self.start_by_s < self.not_before_s:
                raise OutOfRange(f"The latest start of {name} is before its earliest.")
        if self.end_by_s is not None:
            within(f"the deadline of {name}", self.end_by_s, self.not_before_s + 1, MAX_DURATION)

    @property
    def total(self) -> int:
        """Devices of all workers."""
        return self.devices * self.workers

    @property
    def latest_s(self) -> int:
        """The latest start."""
        return self.not_before_s if self.start_by_s is None else self.start_by_s

    @property
    def counts_for(self) -> int:
        """What placing it adds to its priority's goal."""
        return self.total if self.weight is None else self.weight

    def form_for(self, group: str) -> Form | None:
        """In which form it would take a group; None where its devices do not suit in any."""
        own = Form(matched=self.matched, devices=self.devices, workers=self.workers)
        return next((each for each in (own, *self.forms) if each.matched is None or group in each.matched), None)


def _sized(what: str, devices: int, workers: int) -> None:
    within(f"the devices of {what}", devices, 1, MAX_DEVICES)
    within(f"the workers of {what}", workers, 1, MAX_DEVICES)
    within(f"the devices of all workers of {what}", devices * workers, 1, MAX_DEVICES)
