"""Which group could serve which ask, considered alone, and if not, every reason why not.

All predicates are evaluated, none stops the others, and each sets one bit (``solution.Why``): only so can a refusal say
both what removed a group and what removed nothing. Pairs that cannot stand even alone (too few devices, a budget too
small) fall here too; that costs nothing and tightens every bound that is computed later more than any solver setting.

Whole arrays at a time: asks × groups of numbers, no Python in the inner loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from optimizer.problem import MAX_DEVICES, MAX_MONEY, Aim, Ask, Confidential, Problem, Tier
from optimizer.solution import Why

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]

NO_CAP = int(np.iinfo(np.int64).max)
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
            np.array([getattr(group, name) for group in groups], dtype=object)
            for name in ("cluster", "region", "provider")
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
        return _column(by_region.get(region, 0) for region in self.regions)

    def named(self, ids: frozenset[str] | None) -> Bools:
        """Which groups have one of these ids; None is all of them."""
        if ids is None:
            return np.ones(len(self), dtype=np.bool_)
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[[self.index[name] for name in ids if name in self.index]] = True
        return mask

    def within(self, tier: Tier) -> Bools:
        """Which groups the tier admits by place and name; their price is another matter."""
        return (
            _among(self.clusters, tier.clusters)
            & _among(self.regions, tier.regions)
            & _among(self.providers, tier.providers)
            & self.named(tier.groups)
        )


def judge(market: Market, asks: Sequence[Ask]) -> Verdicts:
    """Every predicate for every (ask, group); memory is about 80 bytes for each, so large sets come in slices."""
    shape = (len(asks), len(market))
    why = np.zeros(shape, dtype=np.uint32)

    def mark(bit: Why, where: npt.NDArray[np.bool_]) -> None:
        np.bitwise_or(why, np.uint32(bit), out=why, where=np.broadcast_to(where, shape))

    wanted = _column(ask.devices for ask in asks)[:, None]
    duration = _column(ask.duration_s for ask in asks)[:, None]
    units = -(-wanted // market.unit)
    devices = units * market.unit
    transfer = _gather(asks, lambda ask: tuple(sorted(ask.transfer_micros.items())), market.fees)
    cost = _cost(market.price * devices, duration) + transfer
    price = _rate(market.price * devices, wanted, duration, transfer)
    tier, tier_cap = _ranked(market, asks, price)

    mark(Why.OWN_CLUSTER, _gather(asks, lambda ask: ask.cluster, lambda home: market.clusters == home))
    mark(Why.SELECTOR, ~_gather(asks, lambda ask: ask.matched, market.named))
    mark(Why.AVOIDED, _gather(asks, lambda ask: ask.avoid, market.named))
    mark(Why.TENANT, ~_gather(asks, lambda ask: ask.tenant, market.admits))
    mark(Why.CLUSTER, ~_gather(asks, lambda ask: ask.clusters, lambda allowed: _among(market.clusters, allowed)))
    mark(Why.REGION, ~_gather(asks, lambda ask: ask.regions, lambda allowed: _among(market.regions, allowed)))
    mark(Why.PROVIDER, ~_gather(asks, lambda ask: ask.providers, lambda allowed: _among(market.providers, allowed)))
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


def _ranked(market: Market, asks: Sequence[Ask], price: Ints) -> tuple[Ints, Ints]:
    """Rank and cap of the first tier that admits each group at its price.

    Where every tier that admits a group is too cheap for it, the most generous of them, so that the reason is the price
    and the change that would help is the smallest; −1 where no tier admits it at any price.
    """
    rank, cap = np.zeros(price.shape, dtype=np.int64), np.full(price.shape, NO_CAP, dtype=np.int64)
    policies: dict[tuple[Tier, ...], list[int]] = {}
    for row, ask in enumerate(asks):
        if ask.tiers:
            policies.setdefault(ask.tiers, []).append(row)
    for tiers, rows in policies.items():
        shape = (len(rows), len(market))
        found, most = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        settled = np.zeros(shape, dtype=np.bool_)
        for at, tier in enumerate(tiers):
            limit = NO_CAP if tier.price_cap_micros is None else tier.price_cap_micros
            affordable = price[rows] <= limit
            better = market.within(tier) & ~settled & (affordable | (limit > most))
            found[better], most[better] = at, limit
            settled |= better & affordable
        rank[rows], cap[rows] = found, np.where(found < 0, NO_CAP, most)
    return rank, cap


def _cost(hourly: Ints, duration: Ints) -> Ints:
    """⌈hourly × duration / 3600⌉, saturated where the product would leave 64 bits (about a billion dollars)."""
    beyond = hourly.astype(np.float64) * duration > 3600.0 * MAX_MONEY * 1.01
    seconds = np.where(beyond, 0, hourly) * duration
    return np.where(beyond, MAX_MONEY + 1, -(-seconds // 3600))


def _rate(hourly: Ints, wanted: Ints, duration: Ints, transfer: Ints) -> Ints:
    """⌈hourly / wanted + 3600 × transfer / (wanted × duration)⌉, exact: two rounded halves could pass a cap by one."""
    whole, rest = np.divmod(hourly, wanted)
    device_seconds = wanted * duration
    fee, fee_rest = np.divmod(3600 * transfer, device_seconds)
    return whole + fee - (-(rest * duration + fee_rest) // device_seconds)


def _among(column: npt.NDArray[np.object_], allowed: frozenset[str] | None) -> Bools:
    if allowed is None:
        return np.ones(len(column), dtype=np.bool_)
    return np.array([value in allowed for value in column], dtype=np.bool_)


def _gather(
    asks: Sequence[Ask], key: Callable[[Ask], _Key], row: Callable[[_Key], npt.NDArray[_Scalar]]
) -> npt.NDArray[_Scalar]:
    """One row of groups per ask, computed once for each distinct key: thousands of asks share a few policies."""
    seen: dict[_Key, int] = {}
    which = [seen.setdefault(key(ask), len(seen)) for ask in asks]
    table = np.stack([row(each) for each in seen])
    return table[which]


def _caps(asks: Sequence[Ask], cap: Callable[[Ask], int | None], otherwise: int = NO_CAP) -> Ints:
    values = (cap(ask) for ask in asks)
    return _column(otherwise if value is None else min(value, otherwise) for value in values)[:, None]


def _column(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)
