"""What may stand in a problem's file, in people's words: the one place that says which keys there are.

Each field's docstring is also its line in docs/solve.md. Amounts are exact decimals of US dollars, with or without
quotes; durations are written as everywhere (``90s``, ``6h``, ``1d12h``) and counted from now. A key without a value is
as if it were left out; a key that is not known is an error. What needs more than one part of the document to be judged
(ids that must exist, values that an aim needs) is judged in ``crossing``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from broker.kit.durations import format_duration, parse_duration
from broker.kit.money import from_micros, to_micros
from broker.wire.base import Inbound
from optimizer.ranges import MAX_DEVICES, MAX_FORMS, MAX_PRICE, MAX_PRIORITY, MAX_SPLIT, MAX_STARTS

LONGEST_NAME = 100
ENDLESS = ("inf", "infinity", "infinite", "unlimited", "endless", "none", "∞")
"""What people write where they mean no limit."""


def _written(how: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "title": how, "examples": [example]})


def _name(value: object) -> object:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("must be a name")
    if not 0 < len(value) <= LONGEST_NAME:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters")
    if not value.isprintable():
        raise ValueError("a name has printable characters only")
    return value


def _dollars(value: object) -> int:
    if _is_endless(value):
        raise ValueError("an amount is finite; where there is to be no limit, leave the line out")
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be an amount in US dollars, such as 2.40")
    if isinstance(value, int | Decimal):
        return to_micros(Decimal(value))
    return to_micros(value)


def _is_endless(value: object) -> bool:
    if isinstance(value, Decimal):
        return not value.is_finite()
    return isinstance(value, str) and value.lower().lstrip("+-.") in ENDLESS


def _price(value: object) -> int:
    micros = _dollars(value)
    if micros > MAX_PRICE:
        raise ValueError(f"{from_micros(micros)} per device-hour is too much; the most is {from_micros(MAX_PRICE)}")
    return micros


def _seconds(value: object) -> int:
    if value == 0 and not isinstance(value, bool):
        return 0
    if _is_endless(value):
        raise ValueError("a duration is finite; where there is to be no limit, leave the line out")
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        raise ValueError(f"a bare number has no unit; write {value} seconds as {value}s, {value} hours as {value}h")
    if not isinstance(value, str):
        raise ValueError("a duration is written like 90s, 15m, 2h or 1h30m")
    return parse_duration(value)


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        raise ValueError("must be a number, such as 1.5")
    return Decimal(value)


def _thousandths(value: object) -> int:
    number = _number(value) * 1000
    if not 0 <= number <= 1_000_000_000 or number != number.to_integral_value():
        raise ValueError(f"{value} is not between 0 and 1000000 with three decimals at most")
    return int(number)


def _gigabytes(value: object) -> Decimal:
    number = _number(value)
    if not 0 <= number <= 10**9:
        raise ValueError(f"{value} is not between 0 and 1000000000")
    return number


def _several(value: object) -> object:
    return value if isinstance(value, list) else [value]


Name = Annotated[str, BeforeValidator(_name), _written("a name", "eu-1")]
Dollars = Annotated[int, BeforeValidator(_dollars), _written("an amount, US dollars", '"2.40"')]
"""µUSD in Python."""
Price = Annotated[int, BeforeValidator(_price), _written("US dollars per device-hour", '"2.40"')]
"""µUSD in Python."""
Span = Annotated[int, BeforeValidator(_seconds), _written("a duration", "6h")]
"""Seconds in Python."""
Moment = Annotated[int, BeforeValidator(_seconds), _written("a duration from now", "6h")]
Milli = Annotated[int, BeforeValidator(_thousandths), _written("a number", "1.5")]
"""Thousandths in Python."""
Gigabytes = Annotated[Decimal, BeforeValidator(_gigabytes), _written("a number", "1.5")]
Names = Annotated[
    tuple[Name, ...], BeforeValidator(_several), Field(min_length=1), _written("a name or a list", "[a, b]")
]
Devices = Annotated[int, Field(strict=True, ge=1, le=MAX_DEVICES)]
Flag = StrictBool


class Part(Inbound):
    """What every part of the document has in common."""

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, value: object) -> object:
        """A key without a value is as if it were left out."""
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


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
    _written("a list of numbers, or how many of each", "{8: 12}"),
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
    """The lender may reclaim at any time."""
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
        return self

    @property
    def units(self) -> int:
        """Free units."""
        return sum(self.nodes) if self.count is None else self.count


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
    """Where it is."""
    gb: Gigabytes
    """How much, in gigabytes; `egress` says what one costs."""


class Held(Part):
    """Where some workers of a running lease are."""

    offer: Name
    """On which offer."""
    workers: Devices = 1
    """How many of them."""
    nodes: Annotated[tuple[int, ...], _written("a list of numbers", "[0, 0, 3]")] = ()
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
    """Whether offers will do whose lender may reclaim at any time."""
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


class Budget(Part):
    """Money that may still be spent; each placement reserves its worst case."""

    id: Name
    """Its name."""
    remaining: Dollars
    """What is left."""
    tenants: Names = ()
    """Every request of these tenants is paid from it, besides requests that name it."""
    from_: Moment = Field(default=0, alias="from")
    """It pays for what starts from here on …"""
    until: Moment | None = None
    """… and before this."""

    @model_validator(mode="after")
    def _consistent(self) -> Budget:
        _forward(self.from_, self.until)
        return self


class Only(Part):
    """Which offers a quota is about: those that fit all that is said."""

    offers: Names | None = None
    """These."""
    spot: Flag | None = None
    """Those whose lender may reclaim at any time, or (`false`) the others."""
    device: Names | None = None
    """Of these kinds."""
    cluster: Names | None = None
    """In these clusters."""
    lender: Names | None = None
    """Of these lenders' tenants."""
    provider: Names | None = None
    """Of these providers."""
    region: Names | None = None
    """In these regions."""
    jurisdiction: Names | None = None
    """Under these laws."""


class Quota(Part):
    """Devices that may still be taken, whatever they cost."""

    id: Name
    """Its name."""
    devices: int = Field(strict=True, ge=0, le=MAX_DEVICES)
    """How many are left."""
    only: Only | None = None
    """Only devices of these offers count; left out: all."""
    tenants: Names = ()
    """Every request of these tenants counts in it, besides requests that name it."""
    from_: Moment = Field(default=0, alias="from")
    """What runs at some moment from here on counts …"""
    until: Moment | None = None
    """… and before this."""

    @model_validator(mode="after")
    def _consistent(self) -> Quota:
        _forward(self.from_, self.until)
        return self


def _forward(from_s: int, until_s: int | None) -> None:
    if until_s is not None and until_s <= from_s:
        raise ValueError("ends before it begins: `until` must be after `from`")


def _weights(value: object) -> object:
    return (
        dict.fromkeys(value, 1) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value
    )


class Shared(Part):
    """Capacity that several offers share: Σ weight × units taken is at most the limit, at every moment."""

    id: Name
    """Its name."""
    limit: int = Field(strict=True, ge=0, le=MAX_DEVICES**2)
    """How much there is."""
    offers: Annotated[
        dict[Name, Annotated[int, Field(strict=True, ge=0, le=MAX_DEVICES)]],
        BeforeValidator(_weights),
        _written("a list, or a weight for each", "{a: 1, b: 7}"),
    ]
    """Whose units take of it, and how much each takes."""


class Share(Part):
    """What a tenant is entitled to, and what it has had lately."""

    tenant: Name
    """Whose."""
    guaranteed: int = Field(default=0, strict=True, ge=0, le=MAX_DEVICES)
    """Devices that come before anything but running leases."""
    weight: Devices = 1
    """Among the other tenants."""
    history: Milli = 0
    """Decayed use of the past, its fair share being 1; above 1 what it gains counts for less (`aim: welfare`)."""


def _routes(value: object) -> object:
    """One amount for a region is for wherever the data goes from there."""
    if not isinstance(value, dict):
        return value
    return {key: each if isinstance(each, dict) else {"default": each} for key, each in value.items()}


class Document(Part):
    """The whole file."""

    aim: Literal["priority", "welfare"] = "priority"
    """`priority`: by strict priority, then tier, then cost. `welfare`: the most Σ (value − cost)."""
    starts: Annotated[tuple[Moment, ...], Field(min_length=1, max_length=MAX_STARTS)] = (0,)
    """Moments at which something may start, the first 0."""
    offers: tuple[Offer, ...] = Field(min_length=1)
    """What there is."""
    requests: tuple[Request, ...] = Field(min_length=1)
    """What is asked for."""
    egress: Annotated[
        dict[Name, dict[Name, Dollars]],
        BeforeValidator(_routes),
        _written("US dollars per GB: from → to", '{default: "0.09", eu: {us: "0.02"}}'),
    ] = Field(default_factory=dict)
    """What bringing data elsewhere costs. `default` stands for any region; within a region it is free unless said."""
    budgets: tuple[Budget, ...] = ()
    """Money."""
    quotas: tuple[Quota, ...] = ()
    """Devices."""
    shared: tuple[Shared, ...] = ()
    """What offers have in common."""
    shares: tuple[Share, ...] = ()
    """What tenants are guaranteed."""

    @model_validator(mode="after")
    def _rising(self) -> Document:
        if self.starts[0] != 0 or any(one >= two for one, two in zip(self.starts, self.starts[1:], strict=False)):
            raise ValueError("`starts` begins with 0 (now) and rises")
        return self


def loaded(value: Any) -> Document:
    """The document in plain values. :raises pydantic.ValidationError: it is not one."""
    return Document.model_validate(value)
