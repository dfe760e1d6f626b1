"""The question: who asks for devices, who lends them, and what limits both.

Groups and counts, never single devices: devices of one cluster, kind, price and set of terms are interchangeable to a
borrower, and a model over groups stays small where one over devices would not. Money is whole micro-dollars (µUSD),
time is whole seconds from now. Everything is frozen; nothing here knows a clock, a database or a solver.

``groups.py`` has the lenders' side, ``asks.py`` the borrowers', this file what limits them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from optimizer.asks import Ask, Confidential, Form, Held, Running, Tier
from optimizer.groups import Group, Later
from optimizer.ranges import (
    MAX_ASKS,
    MAX_DEVICES,
    MAX_DURATION,
    MAX_MONEY,
    MAX_PAIRS,
    MAX_PRICE,
    MAX_PRIORITY,
    MAX_ROWS,
    MAX_SHARED,
    MAX_STARTS,
    BadProblem,
    DuplicateId,
    OutOfRange,
    UnknownId,
    known,
    named,
    unique,
    window,
    within,
)

__all__ = [
    "MAX_DEVICES",
    "MAX_DURATION",
    "MAX_MONEY",
    "MAX_PRICE",
    "MAX_PRIORITY",
    "Aim",
    "Ask",
    "BadProblem",
    "Budget",
    "CapacityRow",
    "Confidential",
    "DuplicateId",
    "Form",
    "Group",
    "Held",
    "Later",
    "OutOfRange",
    "Problem",
    "Quota",
    "Running",
    "Share",
    "Tier",
    "UnknownId",
]


class Aim(StrEnum):
    """What the whole plan is for."""

    PRIORITY = "priority"
    """Place by strict priority, then turn, then tier, then cost (``goals`` has the list)."""
    WELFARE = "welfare"
    """Maximise Σ (value − cost); a request that costs more than its value stays unplaced. Every ask needs a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Money that may still be spent; every placement reserves its worst case."""

    id: str
    remaining_micros: int
    from_s: int = 0
    """It pays for placements that start from here on …"""
    until_s: int | None = None
    """… and before this; None is for ever. A month's budget ends with the month."""

    def __post_init__(self) -> None:
        named("a budget", self.id)
        within(f"what remains of budget {self.id!r}", self.remaining_micros, 0, MAX_MONEY)
        window(f"budget {self.id!r}", self.from_s, self.until_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """Devices that may still be taken, whatever they cost.

    Over some groups only, it is a cap on exposure: to interruptible offers, to one lender, to one region. A request
    that may be split can spread itself over several such caps; one over all groups must hold the whole on each.
    """

    id: str
    remaining_devices: int
    groups: frozenset[str] | None = None
    """Only devices of these count; None is all."""
    from_s: int = 0
    """Placements count that run at some moment from here on …"""
    until_s: int | None = None
    """… and before this."""

    def __post_init__(self) -> None:
        named("a quota", self.id)
        within(f"what remains of quota {self.id!r}", self.remaining_devices, 0, MAX_DEVICES)
        window(f"quota {self.id!r}", self.from_s, self.until_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class CapacityRow:
    """A limit that several groups share: Σ weight × units taken ≤ limit, at every moment.

    A lender that keeps back two devices of whatever kind, or partitions carved from the same GPUs, are such rows.
    """

    id: str
    limit: int
    members: Mapping[str, int]
    """Group id → weight of one of its units."""

    def __post_init__(self) -> None:
        named("a capacity row", self.id)
        within(f"the limit of capacity row {self.id!r}", self.limit, 0, MAX_MONEY)
        for group, weight in self.members.items():
            within(f"the weight of {group!r} in capacity row {self.id!r}", weight, 0, MAX_DEVICES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What a tenant is entitled to, and what it has had lately."""

    tenant: str
    guaranteed: int = 0
    """Devices that come before anything else but running leases; see ``fairness.entitled``."""
    weight: int = 1
    """Of the tenant among the others, where entitlements compete and where shares are reported."""
    history_milli: int = 0
    """Its decayed use of the past, in thousandths of its fair share (``fairness.history`` computes it). Above 1000 what
    it gains counts for less, in inverse proportion; read where the aim is welfare."""

    def __post_init__(self) -> None:
        named("the tenant of a share", self.tenant)
        within(f"the guarantee of tenant {self.tenant!r}", self.guaranteed, 0, MAX_DEVICES)
        within(f"the weight of tenant {self.tenant!r}", self.weight, 1, MAX_DEVICES)
        within(f"the history of tenant {self.tenant!r}", self.history_milli, 0, 1_000_000)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Everything open at one moment: all asks against all groups, under all limits."""

    groups: tuple[Group, ...]
    asks: tuple[Ask, ...]
    budgets: tuple[Budget, ...] = ()
    quotas: tuple[Quota, ...] = ()
    rows: tuple[CapacityRow, ...] = ()
    shares: tuple[Share, ...] = ()
    starts: tuple[int, ...] = (0,)
    """Moments at which something may start, in seconds from now, rising from 0. Between two of them (a *bucket*; the
    last has no end) what is placed counts as there all the time."""
    aim: Aim = Aim.PRIORITY

    def __post_init__(self) -> None:
        groups = unique("group", (group.id for group in self.groups), MAX_ROWS)
        budgets = unique("budget", (budget.id for budget in self.budgets), MAX_ROWS)
        quotas = unique("quota", (quota.id for quota in self.quotas), MAX_ROWS)
        unique("capacity row", (row.id for row in self.rows), MAX_ROWS)
        unique("share", (share.tenant for share in self.shares), MAX_ROWS)
        unique("request", (ask.id for ask in self.asks), MAX_ASKS)
        self._check_starts()
        if len(self.asks) * len(self.groups) * len(self.starts) > MAX_PAIRS:
            raise OutOfRange(
                f"{len(self.asks)} requests against {len(self.groups)} groups at {len(self.starts)} starts are too "
                f"many at once; their product may be {MAX_PAIRS}. Split them by tenant or by region."
            )
        in_rows = Counter[str]()
        for row in self.rows:
            known(f"capacity row {row.id!r}", "group", row.members, groups)
            in_rows.update(row.members.keys())
        for name, times in in_rows.most_common(1):
            within(f"the number of capacity rows that share group {name!r}", times, 0, MAX_SHARED)
        for quota in self.quotas:
            known(f"quota {quota.id!r}", "group", quota.groups or (), groups)
        by_id = {group.id: group for group in self.groups}
        for ask in self.asks:
            known(f"request {ask.id!r}", "budget", ask.budgets, budgets)
            known(f"request {ask.id!r}", "quota", ask.quotas, quotas)
            if self.aim is Aim.WELFARE and ask.value_micros is None:
                raise BadProblem(f"A plan for welfare needs a value for every request; {ask.id!r} has none.")
            if ask.running is not None:
                self._check_running(ask, ask.running, groups, by_id)

    def _check_starts(self) -> None:
        within("the number of starts", len(self.starts), 1, MAX_STARTS)
        if self.starts[0] != 0:
            raise OutOfRange("The first start is now: 0.")
        for one, next_one in pairwise(self.starts):
            within("a start", next_one, one + 1, MAX_DURATION)

    def _check_running(self, ask: Ask, running: Running, groups: Set[str], by_id: Mapping[str, Group]) -> None:
        known(f"the running lease {ask.id!r}", "group", (each.group for each in running.held), groups)
        seconds, worst = ask.duration_s, 0
        for held in running.held:
            group = by_id[held.group]
            hourly = group.price_at(0) * group.unit * -(-ask.devices // group.unit) * held.workers
            worst += -(-hourly * seconds // 3600)
            where = f"the node of the running lease {ask.id!r} in group {held.group!r}"
            if ask.same_node and len(held.nodes) != held.workers:
                raise BadProblem(f"The running lease {ask.id!r} wants its workers on one node each; say on which.")
            for node in held.nodes:
                within(where, node, 0, len(group.per_node) - 1)
        within(f"what the running lease {ask.id!r} still costs", worst, 0, MAX_MONEY)
