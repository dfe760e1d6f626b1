"""Capacity requests: what a borrower wants, and what became of it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from broker.wire.base import (
    MOST_DEVICES,
    Amount,
    Cel,
    Count,
    Duration,
    Inbound,
    Label,
    Money,
    Name,
    Outbound,
    Price,
    ShortText,
    Time,
)
from broker.wire.devices import DriverName, Kind


class DeviceRequest(Inbound):
    """Which devices, and how many: all of them or none."""

    count: Count
    """For each worker."""
    workers: Count = 1
    """A gang: so many workers with ``count`` devices each, in one cluster, one offer and one lease."""
    selector: Cel | None = None
    """CEL over ``device``, as in a ResourceClaim: every device must satisfy it."""
    driver: DriverName | None = None
    same_node: bool = False
    """The devices of a worker in one node (NVLink, one pod); workers may share a node."""

    @model_validator(mode="after")
    def _fits_one_lease(self) -> "DeviceRequest":
        if self.total > MOST_DEVICES:
            raise ValueError(
                f"{self.workers:,} workers with {self.count:,} devices each are {self.total:,} devices; "
                f"one request may ask for {MOST_DEVICES:,} in all"
            )
        return self

    @property
    def total(self) -> int:
        """Devices of all workers."""
        return self.count * self.workers


class Where(Inbound):
    """Where the devices may be; an empty list allows everything."""

    regions: Annotated[tuple[Label, ...], Field(max_length=64)] = ()
    jurisdictions: Annotated[tuple[Label, ...], Field(max_length=64)] = ()
    """Under whose law; an offer that does not say so is in none."""
    providers: Annotated[tuple[Label, ...], Field(max_length=64)] = ()
    clusters: Annotated[tuple[Name, ...], Field(max_length=64)] = ()


class Data(Inbound):
    """Data that the work brings along."""

    region: Label
    """Where it is."""
    gb: Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]
    """How much of it moves, in whole gigabytes."""


class Tier(Inbound):
    """One step of a burst policy: these offers, at most at this price, before those of the next step."""

    name: Name
    price_cap: Price
    where: Where = Where()


class Workload(Inbound):
    """For whom the capacity is: where the agent of the borrower's cluster puts the remote claim."""

    namespace: Name = "default"
    kind: Annotated[str, Field(max_length=63)] | None = None
    name: Annotated[str, Field(max_length=253)] | None = None


class CapacityRequest(Inbound):
    """What a borrower wants."""

    cluster: Name
    """The borrower's cluster: the remote claim and the access to the devices go there."""
    devices: DeviceRequest
    duration: Duration
    """How long, from the moment the lease is active."""
    price_cap: Price | None = None
    """The most to pay per device-hour, what ``data`` costs on its way included; needed unless tiers name one each."""
    total_cap: Money | None = None
    """The most to pay for the whole, at worst."""
    where: Where = Where()
    confidential: Literal["none", "prefer", "require"] = "none"
    """Confidential computing as the lender's nodes declare it (declared, not proved)."""
    interruptible: bool = True
    """Whether offers will do that may be taken back before the duration is over (their ``minimum_runtime`` and
    ``reclaim_notice`` are both shorter)."""
    data: Data | None = None
    """What has to be brought to where the devices are, at the broker's egress prices; left out: nothing much."""
    priority: Annotated[int, Field(ge=-1_000, le=1_000, strict=True)] = 0
    tiers: Annotated[tuple[Tier, ...], Field(max_length=8)] = ()
    not_before: Time | None = None
    """Nothing is started before this; offers are looked at from then on."""
    start_by: Time | None = None
    """Started by then, or refused."""
    finish_by: Time | None = None
    """The deadline: started in time to end by then, or refused."""
    wait: Duration | None = None
    """How long to keep trying when nothing fits at once, from ``not_before`` on. Left out: until the latest start,
    where ``start_by`` or ``finish_by`` names one; else 0s, answer now."""
    policy: Name | None = None
    """The BurstPolicy of the borrower's cluster whose budget pays."""
    workload: Workload = Workload()
    labels: Annotated[
        dict[Annotated[str, Field(max_length=63)], Annotated[str, Field(max_length=63)]], Field(max_length=16)
    ] = {}


class RequestState(StrEnum):
    """Whose move it is."""

    OPEN = "Open"  # the broker looks for a place
    PLACED = "Placed"  # a lease is being made: the lender's agent has the next action
    ACTIVE = "Active"  # the lease is signed and running
    REFUSED = "Refused"  # nothing fits; the reasons say what would have to change
    CANCELLED = "Cancelled"  # whoever asked took it back
    CLOSED = "Closed"  # the lease has ended


class Step(StrEnum):
    """How far a request has come, for whoever watches."""

    QUEUED = "queued"
    SOLVING = "solving"
    RESERVED = "reserved"
    HELD = "held"
    ACTIVE = "active"
    MIRRORED = "mirrored"
    ENDED = "ended"


class Alternative(Outbound):
    """An offer that was looked at and lost, and why."""

    offer: str
    cluster: str
    price: Price
    reason: str
    """Machine-readable: ``price-cap``, ``region``, ``capacity``, …"""
    detail: str
    """The sentence for a person."""


class NodeShare(Outbound):
    """What one node of the lender gives."""

    node: str | None = None
    """None: of devices that a network reaches, in no node."""
    devices: int
    workers: int | None = None
    """How many workers have all their devices here, where the request wanted ``same_node``."""


class PlacementView(Outbound):
    """The solver's choice, and the reasons the others lost."""

    cluster: str
    offer: str
    kind: Kind
    devices: int
    """Devices lent, of all workers together: whole units, where the offer lends several at a time."""
    workers: int = 1
    nodes: list[NodeShare] = []
    price: Price
    cost: Money
    """At worst: every device for the whole duration, and the way of the ``data``."""
    transfer: Money | None = None
    """Of that, what bringing the ``data`` there costs; not the lender's to ask. None: nothing."""
    tier: str | None = None
    alternatives: list[Alternative] = []
    solver: dict[str, Any] = {}
    """Objective, bound, gap and time of the solve that decided."""


class Reason(Outbound):
    """One reason why a request was not placed."""

    reason: str
    detail: str
    offers: int = 0
    """How many offers it removed."""
    change: dict[str, Any] | None = None
    """What would have to change, as data: ``{"price_cap": "2.80"}``, ``{"count": 6}``."""


class RequestView(Outbound):
    """A capacity request and what became of it."""

    id: str
    tenant: str
    cluster: str
    state: RequestState
    step: Step
    request: CapacityRequest
    created_at: datetime
    updated_at: datetime
    revision: int
    lease: str | None = None
    placement: PlacementView | None = None
    reasons: list[Reason] = []
    attempts: int = 0
    """How often it was placed; more than one means that a lender's own work took a device first."""
    message: ShortText = ""


class SpendView(Outbound):
    """What a burst policy has spent this month."""

    month: str
    committed: Amount
    budget: Amount | None
