"""Which group could serve which ask, considered alone, and if not, every reason why not.

All predicates are evaluated, none stops the others, and each sets one bit (``solution.Why``): only so can a refusal say
both what removed a group and what removed nothing. Pairs that cannot stand even alone (too few devices, a budget too
small) fall here too; that costs nothing and tightens every bound that is computed later more than any solver setting.

Whole arrays at a time: asks × groups of numbers, no Python in the inner loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from optimizer.problem import MAX_DEVICES, MAX_MONEY, Aim, Ask, Confidential, Problem, Tier
from optimizer.solution import Why

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]

NO_CAP = int(np.iinfo(np.int64).max)
REMEMBERED = 500
"""Rows of one sort that are kept from slice to slice."""
_Key = TypeVar("_Key", bound=Hashable)
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Verdicts:
    """What the predicates say; every array is asks × groups, in the order of the asks given and of the market."""

    why: Bits
    units: Ints
    devices: Ints
    """Devices lent and paid: whole units."""
    cost: Ints
    """µUSD, worst case; ``MAX_MONEY + 1`` stands for anything beyond a billion dollars."""
    price: Ints
    """µUSD per requested device-hour, rounded up."""
    tier: Ints
    """−1 where no tier admits the group."""
    tier_cap: Ints
    """``NO_CAP`` where the tier has none."""


class Names:
    """A column of names, each distinct one looked at once however many groups share it."""

    def __init__(self, names: Sequence[str]) -> None:
        index: dict[str, int] = {}
        self.code: Ints = _column(index.setdefault(name, len(index)) for name in names)
        self.distinct = list(index)

    def among(self, allowed: frozenset[str] | None) -> Bools:
        """Which rows have one of these names; None is all of them."""
        if allowed is None:
            return np.ones(len(self.code), dtype=np.bool_)
        mask: Bools = np.array([name in allowed for name in self.distinct], dtype=np.bool_)[self.code]
        return mask


class Market:
    """The lenders' side of a problem as columns, made once and asked about any asks."""

    def __init__(self, problem: Problem) -> None:
        groups = problem.groups
        self.aim = problem.aim
        self.ids = [group.id for group in groups]
        self.index = {name: at for at, name in enumerate(self.ids)}
        self.price = _column(group.price_micros for group in groups)
        self.count = _column(group.count for group in groups)
        self.unit = _column(group.unit for group in groups)
        self.shortest = _column(group.min_duration_s for group in groups)
        self.longest = _column(group.max_duration_s for group in groups)
        self.confidential = np.array([group.confidential for group in groups], dtype=np.bool_)
        self.largest_node = _column(max(group.per_node, default=0) for group in groups)
        self.clusters, self.regions, self.providers = (
            Names([getattr(group, name) for group in groups]) for name in ("cluster", "region", "provider")
        )
        self.lenders = [group.lender_tenant for group in groups]
        self.admitted = [group.allowed_tenants for group in groups]
        self.shared_alone = np.full(len(groups), MAX_DEVICES, dtype=np.int64)
        for row in problem.rows:
            for name, weight in row.members.items():
                if weight:
                    at = self.index[name]
                    self.shared_alone[at] = min(self.shared_alone[at], row.limit // weight)
        self.budgets = {budget.id: budget.remaining_micros for budget in problem.budgets}
        self.quotas = {quota.id: quota.remaining_devices for quota in problem.quotas}
        self.known: dict[str, dict[Any, npt.NDArray[Any]]] = {}
        """Rows of groups that were computed before, by what they are and for which key."""

    def __len__(self) -> int:
        return len(self.ids)

    def admits(self, tenant: str) -> Bools:
        """Which groups' lenders lend to this tenant."""
        return np.array(
            [
                allowed is None or tenant in allowed or (lender != "" and lender == tenant)
                for allowed, lender in zip(self.admitted, self.lenders, strict=True)
            ],
            dtype=np.bool_,
        )

    def fees(self, transfer: tuple[tuple[str, int], ...]) -> Ints:
        """What bringing the data costs, by group, from what it costs by region."""
        by_region = dict(transfer)
        fees: Ints = _column(by_region.get(region, 0) for region in self.regions.distinct)[self.regions.code]
        return fees

    def named(self, ids: frozenset[str] | None) -> Bools:
        """Which groups have one of these ids; None is all of them."""
        if ids is None:
            return np.ones(len(self), dtype=np.bool_)
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[[self.index[name] for name in ids if name in self.index]] = True
        return mask

    def ranked(self, tiers: tuple[Tier, ...]) -> tuple[Ints, Ints]:
        """Rank and price cap of the first tier that admits each group; −1 where none does."""
        rank = np.full(len(self), -1 if tiers else 0, dtype=np.int64)
        cap = np.full(len(self), NO_CAP, dtype=np.int64)
        for at, tier in enumerate(tiers):
            admitted = rank < 0
            for column, allowed in (
                (self.clusters, tier.clusters),
                (self.regions, tier.regions),
                (self.providers, tier.providers),
            ):
                if allowed is not None:
                    admitted &= column.among(allowed)
            if tier.groups is not None:
                admitted &= self.named(tier.groups)
            rank[admitted] = at
            if tier.price_cap_micros is not None:
                cap[admitted] = tier.price_cap_micros
        return rank, cap


def judge(market: Market, asks: Sequence[Ask], *, prices: bool = True) -> Verdicts:
    """Every predicate for every (ask, group); memory is about 80 bytes for each, so large sets come in slices.

    Without ``prices``, for asks that cap none, the prices stay zero: exact division is a third of the work.
    """
    shape = (len(asks), len(market))
    why = np.zeros(shape, dtype=np.uint32)

    def mark(bit: Why, where: npt.NDArray[np.bool_]) -> None:
        np.bitwise_or(why, np.uint32(bit), out=why, where=np.broadcast_to(where, shape))

    wanted = _column(ask.devices for ask in asks)[:, None]
    duration = _column(ask.duration_s for ask in asks)[:, None]
    units = -(-wanted // market.unit)
    devices = units * market.unit
    transfer = _gather(market, "fees", asks, lambda ask: tuple(sorted(ask.transfer_micros.items())), market.fees)
    cost = _cost(market.price * devices, duration) + transfer
    price = _rate(market.price * devices, wanted, duration, transfer) if prices else np.zeros(shape, dtype=np.int64)
    ranked = _gather(market, "tiers", asks, lambda ask: ask.tiers, lambda tiers: np.stack(market.ranked(tiers)))
    tier, tier_cap = ranked[:, 0], ranked[:, 1]

    at_home = _gather(market, "home", asks, lambda ask: frozenset({ask.cluster}), market.clusters.among)
    mark(Why.OWN_CLUSTER, at_home)
    mark(Why.SELECTOR, ~_gather(market, "matched", asks, lambda ask: ask.matched, market.named))
    mark(Why.AVOIDED, _gather(market, "avoid", asks, lambda ask: ask.avoid, market.named))
    mark(Why.TENANT, ~_gather(market, "tenant", asks, lambda ask: ask.tenant, market.admits))
    mark(Why.CLUSTER, ~_gather(market, "clusters", asks, lambda ask: ask.clusters, market.clusters.among))
    mark(Why.REGION, ~_gather(market, "regions", asks, lambda ask: ask.regions, market.regions.among))
    mark(Why.PROVIDER, ~_gather(market, "providers", asks, lambda ask: ask.providers, market.providers.among))
    required = np.array([ask.confidential is Confidential.REQUIRE for ask in asks], dtype=np.bool_)[:, None]
    mark(Why.CONFIDENTIAL, required & ~market.confidential)
    mark(Why.TOO_LONG, duration > market.longest)
    mark(Why.TOO_SHORT, duration < market.shortest)
    mark(Why.TIER, tier < 0)
    mark(Why.TIER_PRICE, price > tier_cap)
    mark(Why.PRICE_CAP, price > _caps(asks, lambda ask: ask.price_cap_micros))
    mark(Why.TOTAL_CAP, cost > _caps(asks, lambda ask: ask.total_cap_micros, MAX_MONEY))
    mark(Why.COUNT, units > market.count)
    one_node = np.array([ask.same_node for ask in asks], dtype=np.bool_)[:, None]
    mark(Why.NODE, one_node & (units > market.largest_node))
    mark(Why.SHARED, units > market.shared_alone)
    mark(Why.BUDGET, cost > _caps(asks, lambda ask: min((market.budgets[name] for name in ask.budgets), default=None)))
    mark(Why.QUOTA, devices > _caps(asks, lambda ask: min((market.quotas[name] for name in ask.quotas), default=None)))
    if market.aim is Aim.WELFARE:
        mark(Why.VALUE, cost > _caps(asks, lambda ask: ask.value_micros))
    return Verdicts(why=why, units=units, devices=devices, cost=cost, price=price, tier=tier, tier_cap=tier_cap)


def _cost(hourly: Ints, duration: Ints) -> Ints:
    """⌈hourly × duration / 3600⌉, saturated where the product would leave 64 bits (about a billion dollars)."""
    beyond = hourly.astype(np.float64) * duration > 3600.0 * MAX_MONEY * 1.01
    seconds = np.where(beyond, 0, hourly) * duration
    return np.where(beyond, MAX_MONEY + 1, -(-seconds // 3600))


def _rate(hourly: Ints, wanted: Ints, duration: Ints, transfer: Ints) -> Ints:
    """⌈hourly / wanted + 3600 × transfer / (wanted × duration)⌉, exact: two rounded halves could pass a cap by one."""
    whole, rest = np.divmod(hourly, wanted)
    device_seconds = wanted * duration
    if not transfer.any():
        return whole + (rest > 0)
    fee, fee_rest = np.divmod(3600 * transfer, device_seconds)
    return whole + fee - (-(rest * duration + fee_rest) // device_seconds)


def _gather(
    market: Market,
    what: str,
    asks: Sequence[Ask],
    key: Callable[[Ask], _Key],
    row: Callable[[_Key], npt.NDArray[_Scalar]],
) -> npt.NDArray[_Scalar]:
    """One row of groups per ask, computed once for each distinct key: thousands of asks share a few policies."""
    known = market.known.setdefault(what, {})
    seen: dict[_Key, int] = {}
    which = [seen.setdefault(key(ask), len(seen)) for ask in asks]
    table = np.stack([known[each] if each in known else row(each) for each in seen])
    if len(known) < REMEMBERED:
        known.update(zip(seen, table, strict=True))
    return table[which]


def _caps(asks: Sequence[Ask], cap: Callable[[Ask], int | None], otherwise: int = NO_CAP) -> Ints:
    values = (cap(ask) for ask in asks)
    return _column(otherwise if value is None else min(value, otherwise) for value in values)[:, None]


def _column(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)
