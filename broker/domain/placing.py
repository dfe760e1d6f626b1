"""From what is offered and asked to the optimizer's numbers, and from its answer back to named devices.

The optimizer sees groups and counts (one group per offer); which devices of a group a request gets, ``shelf`` decides.
Shelves and groups of offers that did not change are the same objects from round to round: only what is taken from is
copied. Everything here is a snapshot's arithmetic: whether a device really is free, only the store's constraint knows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from broker.domain.shelf import Lot, Shelf
from optimizer.problem import (
    MAX_DURATION,
    MAX_MONEY,
    MAX_PRICE,
    Ask,
    BadProblem,
    Budget,
    Confidential,
    Group,
    Problem,
    Quota,
    Tier,
)
from optimizer.solution import Placement, Solution

MOST_DEVICES = 1_024
"""One lease may hold so many, as ``broker.wire`` has it. What is asked for is within it; whole units of an offer may
not be, one worker for each of which takes a whole one."""


class Solve(Protocol):
    """The optimizer (``optimizer.solve.solve``), or whatever stands in for it."""

    def __call__(
        self, problem: Problem, /, *, time_limit_s: float, alternatives: int, unused: bool, previous: Solution | None
    ) -> Solution: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where devices may be and what they may cost at most; None is no limit."""

    name: str = ""
    price_cap_micros: int | None = None
    clusters: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    jurisdictions: frozenset[str] | None = None
    providers: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """One open request as the placing sees it."""

    id: str
    tenant: str
    cluster: str
    devices: int
    """For one worker."""
    workers: int = 1
    duration_s: int
    created_at: datetime
    limits: Limits
    tiers: tuple[Limits, ...] = ()
    total_cap_micros: int | None = None
    confidential: str = "none"
    uninterrupted: bool = False
    """Only where the lender surely leaves it alone to its end."""
    transfer_micros: Mapping[str, int] = field(default_factory=dict)
    """Region → µUSD of bringing the request's data there; where it is free, the region is left out."""
    same_node: bool = False
    priority: int = 0
    matched: frozenset[str] | None = None
    """Ids of the lots whose devices satisfy driver and selector; None: all."""
    budget: str | None = None
    excluded: frozenset[str] = frozenset()
    """Device references and lot ids that failed this request before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What one request gets."""

    want: Want
    lot: Lot
    refs: tuple[str, ...]
    placement: Placement


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One solve, as domain values."""

    problem: Problem
    solution: Solution
    choices: tuple[Choice, ...]
    left: frozenset[str] = field(default_factory=frozenset)
    """Placed by the optimizer, but what the request excludes left too few devices: to be tried again."""


@dataclass(frozen=True, slots=True)
class Stall:
    """What is free of one offer, and the same as the optimizer sees it; shared, so never taken from."""

    shelf: Shelf
    group: Group | None
    """None for an offer that the optimizer can't count with, such as one at an absurd price: nobody gets it."""
    plain: Group | None
    """The same without its nodes: who doesn't ask for one node need not have them looked at one by one."""

    @classmethod
    def of(cls, shelf: Shelf) -> Stall:
        try:
            group = _group(shelf)
        except BadProblem:
            return cls(shelf, None, None)
        return cls(shelf, group, replace(group, per_node=()))


class Stock(Mapping[str, Shelf]):
    """All that may be had in one round, by offer; a shelf is copied before the first is taken from it."""

    def __init__(self, stalls: Iterable[Stall]) -> None:
        self._stalls = {stall.shelf.lot.id: stall for stall in stalls if stall.group is not None}
        self._shelves = {name: stall.shelf for name, stall in self._stalls.items()}
        self._own: set[str] = set()
        self._by_price = sorted((stall.shelf.lot.price_micros, name) for name, stall in self._stalls.items())
        self._up_to: dict[int, frozenset[str]] = {}
        self._units = {stall.shelf.lot.unit for stall in self._stalls.values()}

    def __getitem__(self, offer: str) -> Shelf:
        return self._shelves[offer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shelves)

    def __len__(self) -> int:
        return len(self._shelves)

    def groups(self, wants: Iterable[Want]) -> tuple[Group, ...]:
        """As the optimizer sees them, with their nodes where one of these needs to know."""
        single = [want.matched for want in wants if want.same_node]
        every = None in single
        seated = frozenset[str]().union(*(matched for matched in single if matched is not None))
        both = ((stall, every or name in seated) for name, stall in self._stalls.items())
        chosen = (stall.group if nodes else stall.plain for stall, nodes in both)
        return tuple(group for group in chosen if group is not None)

    def regions(self) -> frozenset[str]:
        """Where something may be had; an offer that names no region is in ``""``."""
        return frozenset(shelf.lot.region for shelf in self._shelves.values())

    def outgrows(self, want: Want) -> bool:
        """Some offer's whole units would make more devices of it than one lease may hold."""
        return any(-(-want.devices // unit) * unit * want.workers > MOST_DEVICES for unit in self._units)

    def to_take_from(self, offer: str) -> Shelf:
        """This round's own."""
        if offer not in self._own:
            self._shelves[offer] = self._shelves[offer].copy()
            self._own.add(offer)
        return self._shelves[offer]

    def up_to(self, price_micros: int) -> frozenset[str]:
        """Offers that cost at most so much; one set for all who can pay for the same ones."""
        count = bisect_right(self._by_price, price_micros, key=lambda each: each[0])
        if count not in self._up_to:
            self._up_to[count] = frozenset(name for _, name in self._by_price[:count])
        return self._up_to[count]


def plan(wants: Sequence[Want], stock: Stock, budgets: Mapping[str, int], solve: Callable[[Problem], Solution]) -> Plan:
    """Solve everything that is open at once, and pick the devices. ``budgets``: µUSD that may still be spent."""
    asked = problem(wants, stock, budgets)
    solution = solve(asked)
    return picked(wants, stock, asked, solution)


def problem(wants: Sequence[Want], stock: Stock, budgets: Mapping[str, int]) -> Problem:
    """The optimizer's question."""
    used = {want.budget for want in wants if want.budget is not None}
    return Problem(
        groups=stock.groups(wants),
        asks=tuple(_ask(want, stock) for want in wants),
        quotas=tuple(
            Quota(id=whole(want.id), remaining_devices=MOST_DEVICES) for want in wants if stock.outgrows(want)
        ),
        budgets=tuple(Budget(id=name, remaining_micros=max(0, min(budgets[name], MAX_MONEY))) for name in sorted(used)),
    )


def whole(request: str) -> str:
    """The quota that keeps one request's lease from having too many devices."""
    return f"the lease of {request}"


def picked(wants: Sequence[Want], stock: Stock, asked: Problem, solution: Solution) -> Plan:
    """Named devices for every placement; ``stock`` is used up by it."""
    choices: list[Choice] = []
    left: set[str] = set()
    # One-node requests first and those that exclude devices before the others: they have fewer ways to be served.
    for want in sorted(wants, key=lambda want: (not want.same_node, not want.excluded)):
        placement = solution.placements.get(want.id)
        if placement is None:
            continue
        shelf = stock.to_take_from(placement.group)
        # A node index of the optimizer means the node as it was before anything was taken: names don't move.
        refs = shelf.take(
            placement.units,
            workers=want.workers,
            same_node=want.same_node,
            at=placement.nodes,
            without=want.excluded,
        )
        if refs is None:
            left.add(want.id)
        else:
            choices.append(Choice(want=want, lot=shelf.lot, refs=tuple(refs), placement=placement))
    return Plan(problem=asked, solution=solution, choices=tuple(choices), left=frozenset(left))


def _group(shelf: Shelf) -> Group:
    lot, units = shelf.lot, shelf.units
    return Group(
        id=lot.id,
        cluster=lot.cluster,
        kind=lot.kind,
        price_micros=lot.price_micros,
        count=sum(units),
        unit=lot.unit,
        region=lot.region,
        jurisdiction=lot.jurisdiction,
        provider=lot.provider,
        min_duration_s=min(lot.min_duration_s, MAX_DURATION),
        max_duration_s=min(lot.max_duration_s, MAX_DURATION),
        confidential=lot.confidential,
        uninterrupted_s=min(lot.uninterrupted_s, MAX_DURATION),
        lender_tenant=lot.tenant,
        allowed_tenants=lot.allowed_tenants,
        per_node=units,
    )


def _ask(want: Want, stock: Stock) -> Ask:
    return Ask(
        id=want.id,
        tenant=want.tenant,
        cluster=want.cluster,
        devices=want.devices,
        workers=want.workers,
        duration_s=want.duration_s,
        matched=want.matched,
        avoid=_avoided(want, stock) if want.excluded else frozenset(),
        price_cap_micros=_most(want.limits.price_cap_micros, MAX_PRICE),
        total_cap_micros=_most(want.total_cap_micros, MAX_MONEY),
        clusters=want.limits.clusters,
        regions=want.limits.regions,
        jurisdictions=want.limits.jurisdictions,
        providers=want.limits.providers,
        confidential=Confidential(want.confidential),
        uninterrupted=want.uninterrupted,
        transfer_micros=want.transfer_micros,
        tiers=tuple(
            Tier(
                name=tier.name,
                price_cap_micros=_most(tier.price_cap_micros, MAX_PRICE),
                clusters=tier.clusters,
                providers=tier.providers,
                regions=tier.regions,
                jurisdictions=tier.jurisdictions,
                groups=_affordable(tier, want, stock) if tier is not want.tiers[-1] else None,
            )
            for tier in want.tiers
        ),
        same_node=want.same_node,
        budgets=(want.budget,) if want.budget is not None else (),
        quotas=(whole(want.id),) if stock.outgrows(want) else (),
        priority=want.priority,
        created=int(want.created_at.timestamp() * 1_000_000),
    )


def _affordable(tier: Limits, want: Want, stock: Stock) -> frozenset[str] | None:
    """A tier is for what it can pay: a dearer offer belongs to a later one, the last of which says what is too dear."""
    cap = tier.price_cap_micros
    if cap is None or not want.transfer_micros:
        return None if cap is None else stock.up_to(cap)
    device_seconds = want.devices * want.workers * want.duration_s
    return frozenset(
        name
        for name, shelf in stock.items()
        if 3600 * want.transfer_micros.get(shelf.lot.region, 0) <= (cap - shelf.lot.price_micros) * device_seconds
    )


def _avoided(want: Want, stock: Stock) -> frozenset[str]:
    """Offers the request failed with, or with so many of whose devices that too few are left to try."""
    lenders = {ref.partition("/")[0] for ref in want.excluded if "/" in ref}
    return frozenset(
        name
        for name, shelf in stock.items()
        if name in want.excluded or (shelf.lot.cluster in lenders and _exhausted(want, shelf))
    )


def _exhausted(want: Want, shelf: Shelf) -> bool:
    if not any(ref in want.excluded for ref, _ in shelf.lot.devices):
        return False
    rest = shelf.without(want.excluded)
    if want.same_node:
        return rest.places(want.devices) < want.workers
    return rest.free() < want.devices * want.workers


def _most(value: int | None, most: int) -> int | None:
    return None if value is None else min(value, most)
