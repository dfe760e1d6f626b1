"""From what is offered and asked to the optimizer's numbers, and from its answer back to named devices.

The optimizer sees groups and counts (one group per offer); which devices of a group a request gets is decided here, by
one rule: whole where possible, and on the node that fits tightest, so that large gaps stay large. Everything here is a
snapshot's arithmetic: whether a device really is free, only the store's constraint knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from optimizer.problem import (
    MAX_DURATION,
    MAX_MONEY,
    MAX_PRICE,
    Ask,
    Budget,
    Confidential,
    Group,
    Problem,
    Tier,
)
from optimizer.solution import Placement, Solution

Solve = Callable[[Problem], Solution]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lot:
    """One offer as the placing sees it, with every advertised device."""

    id: str
    cluster: str
    tenant: str
    """The lender's."""
    kind: str
    driver: str
    price_micros: int
    """µUSD per device-hour."""
    min_duration_s: int
    max_duration_s: int
    allowed_tenants: frozenset[str] | None
    region: str
    provider: str
    confidential: bool
    """Declared, not proved."""
    unit: int
    """Devices that are only lent together, all in one node."""
    devices: tuple[tuple[str, str | None], ...]
    """(reference, node), as advertised, sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where devices may be and what they may cost at most; None is no limit."""

    name: str = ""
    price_cap_micros: int | None = None
    clusters: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    providers: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """One open request as the placing sees it."""

    id: str
    tenant: str
    cluster: str
    devices: int
    duration_s: int
    created_at: datetime
    limits: Limits
    tiers: tuple[Limits, ...] = ()
    total_cap_micros: int | None = None
    confidential: str = "none"
    same_node: bool = False
    priority: int = 0
    matched: frozenset[str] | None = None
    """Ids of the lots whose devices satisfy driver and selector; None: all."""
    budget: str | None = None
    excluded: frozenset[str] = frozenset()
    """Device references and lot ids that failed this request before."""


@dataclass(slots=True)
class Shelf:
    """What is free of one lot, node by node; placements take from it."""

    lot: Lot
    nodes: dict[str, list[str]]
    """Node → free device references, sorted; nodes in order of name. Devices of no node stand for themselves."""

    @classmethod
    def of(cls, lot: Lot, taken: AbstractSet[str]) -> Shelf:
        nodes: dict[str, list[str]] = {}
        alone: dict[str, list[str]] = {}
        for ref, node in lot.devices:
            if ref in taken:
                continue
            if node is None:
                # Where nobody said which node, nothing may be assumed to share one.
                alone[f"device {ref}"] = [ref]
            elif node in nodes:
                nodes[node].append(ref)
            else:
                nodes[node] = [ref]
        return cls(lot, dict(sorted(alone.items())) | {f"node {node}": nodes[node] for node in sorted(nodes)})

    @property
    def units(self) -> tuple[int, ...]:
        """Lendable units of every node."""
        if self.lot.unit == 1:
            return tuple(len(refs) for refs in self.nodes.values())
        return tuple(len(refs) // self.lot.unit for refs in self.nodes.values())

    def free(self) -> int:
        """Devices that may be lent, in whole units."""
        return sum(self.units) * self.lot.unit

    def largest(self) -> int:
        """The most devices that may be lent in one node."""
        return max(self.units, default=0) * self.lot.unit

    def without(self, refs: AbstractSet[str]) -> Shelf:
        kept = {node: [ref for ref in mine if ref not in refs] for node, mine in self.nodes.items()}
        return Shelf(self.lot, kept)

    def take(
        self,
        units: int,
        *,
        same_node: bool,
        at: Sequence[tuple[int, int]] = (),
        without: AbstractSet[str] = frozenset(),
    ) -> list[str] | None:
        """References of ``units`` units, removed from the shelf; None (and nothing removed) when there aren't enough.

        ``at``: (index of node, units), as the optimizer chose; followed where these nodes still have them.
        """
        view = self.without(without) if without else self
        plan = self._at(view, at) or _tightest(view, units, same_node=same_node)
        if plan is None:
            return None
        taken = [ref for node, count in plan for ref in view.nodes[node][: count * self.lot.unit]]
        gone = set(taken)
        for node, _ in plan:
            self.nodes[node] = [ref for ref in self.nodes[node] if ref not in gone]
        return sorted(taken)

    @staticmethod
    def _at(view: Shelf, at: Sequence[tuple[int, int]]) -> list[tuple[str, int]] | None:
        names, units = list(view.nodes), view.units
        if at and all(index < len(names) and units[index] >= count for index, count in at):
            return [(names[index], count) for index, count in at]
        return None


def _tightest(shelf: Shelf, units: int, *, same_node: bool) -> list[tuple[str, int]] | None:
    """One node that fits tightest; else few nodes: the largest first, and the tightest for what remains."""
    free = dict(zip(shelf.nodes, shelf.units, strict=True))
    plan: list[tuple[str, int]] = []
    while units:
        fitting = [node for node, count in free.items() if count >= units]
        if fitting:
            return [*plan, (min(fitting, key=lambda node: free[node]), units)]
        if same_node or not free:
            return None
        node = max(free, key=lambda name: free[name])
        count = free.pop(node)
        if count == 0:
            return None
        plan.append((node, count))
        units -= count
    return plan


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


def shelves(lots: Iterable[Lot], taken: AbstractSet[str]) -> dict[str, Shelf]:
    """What is free of every lot. A price beyond what the optimizer can count is no offer."""
    return {lot.id: Shelf.of(lot, taken) for lot in lots if lot.price_micros <= MAX_PRICE}


def plan(wants: Sequence[Want], stock: Mapping[str, Shelf], budgets: Mapping[str, int], solve: Solve) -> Plan:
    """Solve everything that is open at once, and pick the devices. ``budgets``: µUSD that may still be spent."""
    asked = problem(wants, stock, budgets)
    solution = solve(asked)
    return picked(wants, stock, asked, solution)


def problem(wants: Sequence[Want], stock: Mapping[str, Shelf], budgets: Mapping[str, int]) -> Problem:
    """The optimizer's question."""
    used = {want.budget for want in wants if want.budget is not None}
    return Problem(
        groups=tuple(_group(shelf) for shelf in stock.values()),
        asks=tuple(_ask(want, stock) for want in wants),
        budgets=tuple(Budget(id=name, remaining_micros=max(0, min(budgets[name], MAX_MONEY))) for name in sorted(used)),
    )


def picked(wants: Sequence[Want], stock: Mapping[str, Shelf], asked: Problem, solution: Solution) -> Plan:
    """Named devices for every placement; ``stock`` is used up by it."""
    choices: list[Choice] = []
    left: set[str] = set()
    # One-node requests first and those that exclude devices before the others: they have fewer ways to be served.
    for want in sorted(wants, key=lambda want: (not want.same_node, not want.excluded)):
        placement = solution.placements.get(want.id)
        if placement is None:
            continue
        shelf = stock[placement.group]
        # A node index of the optimizer means the node as it was before anything was taken: names don't move.
        refs = shelf.take(placement.units, same_node=want.same_node, at=placement.nodes, without=want.excluded)
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
        provider=lot.provider,
        min_duration_s=min(lot.min_duration_s, MAX_DURATION),
        max_duration_s=min(lot.max_duration_s, MAX_DURATION),
        confidential=lot.confidential,
        lender_tenant=lot.tenant,
        allowed_tenants=lot.allowed_tenants,
        per_node=units,
    )


def _ask(want: Want, stock: Mapping[str, Shelf]) -> Ask:
    avoid: frozenset[str] = frozenset()
    if want.excluded:
        avoid = frozenset(name for name, shelf in stock.items() if _exhausted(want, shelf))
    return Ask(
        id=want.id,
        tenant=want.tenant,
        cluster=want.cluster,
        devices=want.devices,
        duration_s=want.duration_s,
        matched=want.matched,
        avoid=avoid,
        price_cap_micros=_most(want.limits.price_cap_micros, MAX_PRICE),
        total_cap_micros=_most(want.total_cap_micros, MAX_MONEY),
        clusters=want.limits.clusters,
        regions=want.limits.regions,
        providers=want.limits.providers,
        confidential=Confidential(want.confidential),
        tiers=tuple(
            Tier(
                name=tier.name,
                price_cap_micros=_most(tier.price_cap_micros, MAX_PRICE),
                clusters=tier.clusters,
                providers=tier.providers,
                regions=tier.regions,
                groups=_affordable(tier, stock) if tier is not want.tiers[-1] else None,
            )
            for tier in want.tiers
        ),
        same_node=want.same_node,
        budgets=(want.budget,) if want.budget is not None else (),
        priority=want.priority,
        created=int(want.created_at.timestamp() * 1_000_000),
    )


def _affordable(tier: Limits, stock: Mapping[str, Shelf]) -> frozenset[str] | None:
    """A tier is for what it can pay: a dearer offer belongs to a later one, the last of which says what is too dear."""
    if tier.price_cap_micros is None:
        return None
    return frozenset(name for name, shelf in stock.items() if shelf.lot.price_micros <= tier.price_cap_micros)


def _exhausted(want: Want, shelf: Shelf) -> bool:
    """The request failed with this lot, or with so many of its devices that too few are left to try."""
    if shelf.lot.id in want.excluded:
        return True
    if not any(ref in want.excluded for ref, _ in shelf.lot.devices):
        return False
    rest = shelf.without(want.excluded)
    return (rest.largest() if want.same_node else rest.free()) < want.devices


def _most(value: int | None, most: int) -> int | None:
    return None if value is None else min(value, most)
