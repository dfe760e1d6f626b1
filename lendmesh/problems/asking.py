"""What a borrower writes: a request, the forms it may take, and where a running lease is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from lendmesh.problems.words import (
    Devices,
    Dollars,
    Flag,
    Gigabytes,
    Milli,
    Moment,
    Name,
    Names,
    Part,
    Price,
    Span,
    written,
)
from optimizer.ranges import MAX_DEVICES, MAX_FORMS, MAX_PRIORITY, MAX_SPLIT


class Tier(Part):
    """One step of a burst policy; what is left out allows any."""

    name: Name = ""
    """For people."""
    price_cap: Price | None = None
    """The most for offers of this tier."""
    clusters: Names | None = None
    """Of these lenders."""
    providers: Names | None = None
    """Of these providers."""
    regions: Names | None = None
    """In these regions."""
    jurisdictions: Names | None = None
    """Under these laws."""
    offers: Names | None = None
    """These offers."""


class Form(Part):
    """The same work on other devices."""

    device: Names | None = None
    """Kinds that do; left out: any."""
    devices: Devices | None = None
    """Of one worker; left out: as the request."""
    workers: Devices | None = None
    """Left out: as the request."""
    speed: Milli = 1000
    """How fast the work goes there: at 2 it takes half the request's duration."""

    @model_validator(mode="after")
    def _moving(self) -> Form:
        if not 1 <= self.speed <= 1_000_000:
            raise ValueError("its speed must lie between 0.001 and 1000")
        return self


class Data(Part):
    """The data that a request brings along."""

    region: Name
    """Where it is. Offers without a region count as near."""
    gb: Gigabytes
    """How much, in gigabytes; `egress` says what one costs."""


class Held(Part):
    """Where some workers of a running lease are."""

    offer: Name
    """On which offer."""
    workers: Devices = 1
    """How many of them."""
    nodes: Annotated[tuple[int, ...], written("a list of numbers", "[0, 0, 3]")] = ()
    """On which node each is, from 0; needed where the request wants `same_node`."""


def _held(value: object) -> object:
    return [
        {"offer": each} if isinstance(each, str) else each for each in (value if isinstance(value, list) else [value])
    ]


class Running(Part):
    """That a request is a lease which runs already; it may always go on where it is."""

    on: Annotated[tuple[Held, ...], BeforeValidator(_held), Field(min_length=1)]
    """Where it is: an offer, or a list of offers with `workers` and `nodes`."""
    move_cost: Dollars | None = None
    """What it costs its tenant to be moved; left out: it must not be moved."""
    end_cost: Dollars | None = None
    """What it costs to be ended early; left out: it must not be ended."""

    @model_validator(mode="after")
    def _once_each(self) -> Running:
        offers = [each.offer for each in self.on]
        if twice := next((name for name in offers if offers.count(name) > 1), None):
            raise ValueError(f"names offer {twice!r} twice; say once how many `workers` are there")
        return self


def _confidential(value: object) -> object:
    return {True: "require", False: "none"}[value] if isinstance(value, bool) else value


class Request(Part):
    """Workers × devices, all or nothing."""

    id: Name
    """Its name."""
    tenant: Name
    """Who asks."""
    cluster: Name = ""
    """Home; offers of this cluster are no answer."""
    devices: Devices
    """Of one worker."""
    workers: Devices = 1
    """How many, each with so many devices."""
    duration: Span
    """For how long; of a running lease, what remains."""
    device: Names | None = None
    """Which kinds do; left out: any."""
    or_: tuple[Form, ...] = Field(default=(), alias="or", max_length=MAX_FORMS)
    """What would do instead, in order of liking."""
    split: int = Field(default=1, strict=True, ge=1, le=MAX_SPLIT)
    """Over how many offers its workers may be spread."""
    same_node: Flag = False
    """The devices of a worker share a node."""
    avoid: Names = ()
    """Offers not to be tried."""
    clusters: Names | None = None
    """Allowed lenders; left out: any."""
    regions: Names | None = None
    """Allowed regions; left out: any."""
    jurisdictions: Names | None = None
    """Allowed jurisdictions; left out: any."""
    providers: Names | None = None
    """Allowed providers; left out: any."""
    confidential: Annotated[
        Literal["none", "prefer", "require"], BeforeValidator(_confidential), Field(json_schema_extra={"examples": []})
    ] = "none"
    """Whether it needs a confidential offer; `true` is `require`."""
    spot: Flag = True
    """Whether offers will do whose lender may reclaim before it ends."""
    restart_cost: Dollars = 0
    """What one reclaim costs its tenant; counts beside the price, and is not paid."""
    price_cap: Price | None = None
    """The most per requested device-hour, transfer included."""
    total_cap: Dollars | None = None
    """The most for the whole."""
    value: Dollars | None = None
    """What the whole is worth to its tenant; needed with `aim: welfare`."""
    data: Data | None = None
    """What has to be brought to where it runs."""
    tiers: tuple[Tier, ...] = ()
    """A burst policy: offers of an earlier tier come first, whatever they cost."""
    not_before: Moment = 0
    """Earliest start."""
    start_by: Moment | None = None
    """Latest start; left out: at `not_before`, or not at all."""
    deadline: Moment | None = None
    """When it must have ended."""
    delay_cost_per_hour: Dollars = 0
    """What an hour of waiting costs its tenant; counts beside the price, and is not paid."""
    running: Running | None = None
    """Set for a lease that runs already."""
    priority: int = Field(default=0, strict=True, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    """Higher goes first, strictly."""
    turn: int = Field(default=0, strict=True, ge=0, le=2**62)
    """Among equals in priority, the lower came first."""
    weight: Devices | None = None
    """How much placing it counts among equals in priority; left out: its devices."""
    budgets: Names = ()
    """Budgets that pay for it, all of them."""
    quotas: Names = ()
    """Quotas that it counts in, all of them."""

    @model_validator(mode="after")
    def _consistent(self) -> Request:
        if self.duration < 1:
            raise ValueError("lasts no time; its duration must be 1s at least")
        for what, devices, workers in (
            ("it asks", self.devices, self.workers),
            *(("a form of it asks", each.devices or self.devices, each.workers or self.workers) for each in self.or_),
        ):
            if devices * workers > MAX_DEVICES:
                raise ValueError(f"{what} for {workers} × {devices} devices; the most is {MAX_DEVICES}")
        if self.start_by is not None and self.start_by < self.not_before:
            raise ValueError("its latest start, `start_by`, is before its earliest, `not_before`")
        if self.deadline is not None and self.deadline <= self.not_before:
            raise ValueError("its `deadline` is not after its earliest start")
        if self.running is not None and sum(each.workers for each in self.running.on) != self.workers:
            holds = sum(each.workers for each in self.running.on)
            raise ValueError(f"has {self.workers} workers, but runs with {holds}")
        return self
