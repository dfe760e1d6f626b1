"""The shape of an answer for programs: what ``lendmesh solve --out json`` prints.

Amounts are texts in US dollars, durations as everywhere; every reason is there as data and as a sentence.
"""

from __future__ import annotations

from typing import Any

from broker.wire.base import Outbound


class NodeUse(Outbound):
    """Units on one node."""

    node: int
    """Which of the offer's `nodes`, from 0."""
    units: int
    """How many."""


class PartOut(Outbound):
    """What one offer gives."""

    offer: str
    """Which."""
    cluster: str
    """Its cluster."""
    device: str
    """Its kind."""
    region: str
    """Its region."""
    workers: int
    """How many work there."""
    units: int
    """How many are taken."""
    devices: int
    """Lent and paid: units × devices in a unit."""
    cost: str
    """At the worst, transfer included."""
    nodes: list[NodeUse]
    """Where the offer says what its nodes hold."""


class Instead(Outbound):
    """An offer that was looked at and not chosen."""

    offer: str
    """Which."""
    price: str
    """Per requested device-hour, all-in."""
    cost: str
    """At the worst."""
    lost: str
    """`taken`, `costlier`, `ineligible` and so on."""
    why: list[str]
    """The predicates that removed it."""
    detail: str
    """The same, in words."""


class PlacementOut(Outbound):
    """Where a request goes."""

    request: str
    """Which."""
    tenant: str
    """Whose."""
    parts: list[PartOut]
    """One, unless it is split."""
    devices: int
    """Lent and paid, in all."""
    start: str
    """From now."""
    duration: str
    """Shorter than asked on faster devices."""
    form: int
    """0 is the request's own, 1 the first under `or`."""
    price: str
    """Per requested device-hour, whole units and transfer included."""
    cost: str
    """At the worst, of all parts."""
    loss: str
    """What counts beside the cost and is not paid: expected reclaims, waiting, being moved."""
    tier: int
    """From 0."""
    running: bool
    """It is a lease that runs already."""
    moved: bool
    """It ran elsewhere."""
    instead: list[Instead]
    """Eligible ones first, then by price."""
    removed: dict[str, int]
    """Predicate → how many offers it removed."""


class BindingOut(Outbound):
    """A limit in the way."""

    limit: str
    """`group` (an offer), `node`, `shared`, `budget` or `quota`."""
    id: str
    """Which."""
    short_by: int
    """Units, devices or millionths of a dollar."""
    detail: str
    """The same, in words."""


class ChangeOut(Outbound):
    """The smallest change of one thing that would place the request."""

    field: str
    """What of the request, or which limit, it touches."""
    to: str | int | bool
    """What it would have to be; of a budget or quota, how much more."""
    id: str
    """Of the budget, quota or tier it is about."""
    offer: str
    """Where it would go."""
    cost: str
    """What it would cost then."""
    detail: str
    """The same, in words."""


class UnplacedOut(Outbound):
    """Why a request is not placed."""

    request: str
    """Which."""
    tenant: str
    """Whose."""
    devices: int
    """Asked for, in all."""
    ended: bool
    """It ran, and the plan ends it."""
    offers: int
    """How many were looked at."""
    eligible: int
    """How many would suit alone."""
    removed: dict[str, int]
    """Predicate → how many offers it removed, alone or with others."""
    only: dict[str, int]
    """Predicate → how many it alone removed."""
    binding: list[BindingOut]
    """What stands in the way of those that would suit."""
    changes: list[ChangeOut]
    """Each alone would do."""
    outbid: str | None
    """By how much its best choice misses the clearing prices."""
    detail: str
    """The whole in sentences."""


class OfferOut(Outbound):
    """How much of an offer is used, and what it is worth."""

    offer: str
    """Which."""
    cluster: str
    """Its cluster."""
    device: str
    """Its kind."""
    supply: int
    """Units, in the bucket of time in which it is fullest."""
    used: int
    """Units taken then."""
    price: str
    """Asked, per device-hour."""
    clearing_price: str | None
    """Price and scarcity per device-hour; null where the solver needed no prices."""
    over_time: list[dict[str, int | str]]
    """`from`, `supply` and `used` for each of the document's `starts`."""
    free: int | None
    """Units nobody takes now; null where none are left."""
    asked: int | None
    """How many requests that got nothing looked at it."""
    suits: int | None
    """How many of them it would suit."""
    removed: dict[str, int]
    """Predicate → how many requests it removed."""
    cut: str | None
    """How far its price is above what an unplaced request would pay."""


class GoalOut(Outbound):
    """One goal, in order of importance."""

    name: str
    """What is counted."""
    maximise: bool
    """More is better."""
    unit: str
    """`µUSD`, or nothing for counts."""
    reached: int
    """By this plan."""
    bound: int
    """No plan as good in all goals before passes this."""
    proof: str
    """What proved the bound: `each request alone`, `prices`, `packing`, `knapsacks`, `mixed-integer` or `exact`."""
    gap: float
    """0 is proved best."""


class Answer(Outbound):
    """The whole answer."""

    status: str
    """`optimal` or `feasible`."""
    stopped: bool
    """It was stopped before its time."""
    gap: float
    """Of the most important goal that is not proved best."""
    gap_of: str
    """Which goal that is."""
    seconds: float
    """How long it took."""
    cost: str
    """Of all placements."""
    placements: list[PlacementOut]
    """What goes where."""
    unplaced: list[UnplacedOut]
    """What does not, and why not."""
    offers: list[OfferOut]
    """What is used of what there is."""
    goals: list[GoalOut]
    """In order of importance."""
    clearing: dict[str, dict[str, float]]
    """Limit → id → µUSD per unit, per device, or per µUSD of a budget."""
    fairness: dict[str, Any] | None
    """What tenants get; null where the document names no `shares`."""
    stats: dict[str, float | int | str]
    """What the solver says of itself; may change."""
