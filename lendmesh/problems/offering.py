"""What a lender writes: an offer, what becomes free later, and what it costs then."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from broker.kit.durations import format_duration
from lendmesh.problems.words import Devices, Flag, Milli, Moment, Name, Names, Part, Price, Span, written
from optimizer.ranges import MAX_DEVICES


class LaterPrice(Part):
    """A price for leases that start later."""

    from_: Moment = Field(alias="from")
    """When it begins to hold."""
    price: Price
    """For leases that start then or later; a lease keeps its price."""


class Later(Part):
    """A change of what is free, known beforehand: a lease that ends, or a reservation that begins."""

    in_: Moment = Field(alias="in")
    """When."""
    units: int = Field(strict=True, ge=-MAX_DEVICES, le=MAX_DEVICES)
    """More (`+8`) or fewer (`-8`)."""
    node: int | None = Field(default=None, strict=True, ge=0)
    """Which of `nodes`, from 0; needed where the offer has `nodes`."""


def _nodes(value: object) -> object:
    """``{8: 12}`` as twelve nodes of eight."""
    if not isinstance(value, dict):
        return value
    nodes: list[int] = []
    for free, many in value.items():
        if not str(free).isdecimal() or isinstance(many, bool) or not isinstance(many, int) or many < 1:
            raise ValueError("write [8, 8, 4], or {8: 12} for twelve nodes with 8 free units each")
        if len(nodes) + many > MAX_DEVICES:
            raise ValueError(f"there are more than {MAX_DEVICES} nodes")
        nodes += [int(free)] * many
    return nodes


Nodes = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0, le=MAX_DEVICES)], ...],
    BeforeValidator(_nodes),
    written("a list of numbers, or how many of each", "{8: 12}"),
]


class Offer(Part):
    """Free devices of one cluster, kind, price and set of terms."""

    id: Name
    """Its name; requests and limits refer to it."""
    cluster: Name
    """Whose devices they are."""
    device: Name = ""
    """What kind they are; any word, as requests name it."""
    price: Price
    """What the borrower pays, all-in."""
    prices: tuple[LaterPrice, ...] = ()
    """Other prices for leases that start later, in order."""
    count: int | None = Field(default=None, strict=True, ge=0, le=MAX_DEVICES)
    """Free units, those of the document's own running leases included. Left out: the sum of `nodes`."""
    unit: Devices = 1
    """Devices in a unit; a unit is lent, and paid, whole."""
    nodes: Nodes = ()
    """Free units of each node; `{8: 12}` is twelve nodes of 8. Requests for `same_node` need it."""
    later: tuple[Later, ...] = ()
    """What becomes free or is taken later."""
    region: Name = ""
    """Where they are."""
    jurisdiction: Name = ""
    """Whose law holds there."""
    provider: Name = ""
    """Who runs the place."""
    domain: Name = ""
    """Rack or NVLink domain; devices of two domains are two offers."""
    spot: Flag = False
    """The lender may reclaim."""
    uninterrupted: Span | None = None
    """With `spot`: for how long a lease is surely left alone first; left out: no time."""
    reclaims: Milli = 0
    """Expected reclaims of a lease per 1,000 hours; counts for requests that name a `restart_cost`."""
    confidential: Flag = False
    """Declares a trusted execution environment and confidential GPU mode."""
    min_duration: Span = 0
    """Of one lease."""
    max_duration: Span | None = None
    """Of one lease; left out: any."""
    lender: Name = ""
    """The lender's tenant, always admitted."""
    tenants: Names | None = None
    """Tenants the lender admits; left out: all."""

    @model_validator(mode="after")
    def _consistent(self) -> Offer:
        there = sum(self.nodes) if self.nodes else self.count
        if there is None:
            raise ValueError("says neither `count` nor `nodes`; how many units are free?")
        if self.nodes and self.count is not None and self.count > there:
            raise ValueError(f"its count is {self.count}, but its nodes have only {there} units")
        if not self.units and not any(change.units > 0 for change in self.later):
            raise ValueError("offers nothing; leave it out, or say with `later` when there will be something")
        if self.units * self.unit > MAX_DEVICES:
            raise ValueError(f"has {self.units} × {self.unit} devices; the most is {MAX_DEVICES}")
        if self.max_duration is not None and self.max_duration < self.min_duration:
            shortest, longest = format_duration(self.min_duration), format_duration(self.max_duration)
            raise ValueError(f"its longest duration, {longest}, is below its shortest, {shortest}")
        if self.uninterrupted is not None and not self.spot:
            raise ValueError(
                "says `uninterrupted`, but not `spot: true`; only what may be reclaimed is left alone first"
            )
        return self

    @property
    def units(self) -> int:
        """Free units."""
        return sum(self.nodes) if self.count is None else self.count
