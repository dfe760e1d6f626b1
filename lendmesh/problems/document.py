"""What may stand in a problem's file, in people's words: with ``offering`` and ``asking``, the one place that
says which keys there are.

Each field's docstring is also its line in docs/solve.md. Amounts are exact decimals of US dollars, with or without
quotes; durations are written as everywhere (``90s``, ``6h``, ``1d12h``) and counted from now. A key without a value is
as if it were left out; a key that is not known is an error. What needs more than one part of the document to be judged
(ids that must exist, values that an aim needs) is judged in ``crossing``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lendmesh.problems.asking import Request
from lendmesh.problems.offering import Offer
from lendmesh.problems.words import Devices, Dollars, Flag, Milli, Moment, Name, Names, Part, written
from optimizer.ranges import MAX_DEVICES, MAX_STARTS


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
    """Those whose lender may reclaim, or (`false`) the others."""
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
        written("a list, or a weight for each", "{a: 1, b: 7}"),
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

    @model_validator(mode="after")
    def _decayed(self) -> Share:
        if self.history > 1_000_000:
            raise ValueError("its `history` is more than a thousand times its fair share")
        return self


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
        written("US dollars per GB: from → to", '{default: "0.09", eu: {us: "0.02"}}'),
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
