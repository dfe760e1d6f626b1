"""Which group could serve which request, considered alone, and if not, every reason why not.

A request in one form and at one start is a *variant*; variants × groups is the grid on which everything here works.
Wishes (place, tenant, selector …) are rows of the market, one for each distinct wish. Amounts (cost, units, budgets …)
are arithmetic on (variant, group) cells. Both are written once and used twice: ``eligible`` wants to know which cells
pass everything, fast; ``judge`` wants every reason of every cell, for an explanation.

Cells that cannot stand even alone (too few devices, a budget too small) fall here too; that costs nothing and tightens
every bound that is computed later more than any solver setting.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.groups import HOURS
from optimizer.market import NO_CAP, Bits, Bools, Floats, Ints, Market, column
from optimizer.problem import MAX_MONEY, Aim, Ask, Confidential
from optimizer.solution import Why

RECLAIMS = 3600 * HOURS
HOLDABLE = 900_000_000
"""Devices; no plan lends so many to one request, and at the highest price an hour of them still fits 64 bits."""

__all__ = ["Bits", "Bools", "Cells", "Floats", "Ints", "Market", "Variants", "Verdicts", "eligible", "judge"]


@dataclass(frozen=True)
class Variants:
    """Requests, each in every form and at every start that its window allows; arrays of one length."""

    asks: Sequence[Ask]
    ask: Ints
    """Index into ``asks``; rising."""
    form: Ints
    bucket: Ints
    """In which it starts; −1 where no start is in its window."""
    until: Ints
    """First bucket in which it does not run any more."""
    devices: Ints
    """Of one worker."""
    workers: Ints
    duration: Ints
    """Seconds, in this form."""

    def __len__(self) -> int:
        return len(self.ask)

    def each(self) -> Iterator[Ask]:
        """The request of every variant."""
        return (self.asks[at] for at in self.ask.tolist())


@dataclass(frozen=True)
class Cells:
    """Amounts of some (variant, group) cells."""

    units: Ints
    """For all workers."""
    devices: Ints
    """Lent and paid: whole units."""
    cost: Ints
    """µUSD, worst case; ``MAX_MONEY + 1`` stands for anything beyond a billion dollars."""
    loss: Ints
    """µUSD that count beside the cost: expected reclaims, waiting, being moved."""

    def only(self, which: Bools) -> Cells:
        """Those of some of the cells; devices that are units stay so."""
        units = self.units[which]
        devices = units if self.devices is self.units else self.devices[which]
        return Cells(units=units, devices=devices, cost=self.cost[which], loss=self.loss[which])


@dataclass(frozen=True)
class Verdicts:
    """What the predicates say of requests; every array is asks × groups, in the order of the asks given."""

    why: Bits
    """0 where some form and start of the request fits; else what removes its first form at its first start."""
    units: Ints
    devices: Ints
    cost: Ints
    price: Ints
    """µUSD per requested device-hour, rounded up."""
    tier: Ints
    """−1 where no tier admits the group."""
    tier_cap: Ints
    """``NO_CAP`` where the tier has none."""


def variants(market: Market, asks: Sequence[Ask]) -> Variants:
    """Every form and start of every request; one that has no start still has a row, to be told why."""
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    starts: list[int] = market.starts.tolist()
    single = len(starts) == 1
    for at, ask in enumerate(asks):
        for number in range(1 + len(ask.forms)):
            (devices, workers), seconds = shape(ask, number), lasting(ask, number)
            if single and ask.not_before_s == 0 and ask.end_by_s is None:
                rows.append((at, number, 0, 1, devices, workers, seconds))
                continue
            last = ask.latest_s if ask.end_by_s is None else min(ask.latest_s, ask.end_by_s - seconds)
            last = min(0, last) if ask.running is not None else last
            fitting = [bucket for bucket, start in enumerate(starts) if ask.not_before_s <= start <= last]
            for bucket in fitting or [-1]:
                until = market.span(starts[max(bucket, 0)], starts[max(bucket, 0)] + seconds)[1]
                rows.append((at, number, bucket, until, devices, workers, seconds))
    table = np.array(rows, dtype=np.int64).reshape(-1, 7).T
    return Variants(asks, *table)


def shape(ask: Ask, form: int) -> tuple[int, int]:
    """Devices of a worker, and workers, of one form of a request (0: its own)."""
    if form == 0:
        return ask.devices, ask.workers
    return ask.forms[form - 1].devices, ask.forms[form - 1].workers


def lasting(ask: Ask, form: int) -> int:
    """Seconds that one form of a request takes."""
    return ask.duration_s if form == 0 else max(1, -(-ask.duration_s * 1_000 // ask.forms[form - 1].speed_milli))


def eligible(market: Market, those: Variants) -> tuple[Ints, Ints, Cells]:
    """The cells that pass every predicate, by variant and then by group: (variant, group, amounts)."""
    if not len(those) or not len(market):
        none = np.zeros(0, dtype=np.int64)
        return none, none, Cells(none, none, none, none)
    mask = np.ones((len(those), len(market)), dtype=np.bool_)
    for _, passes in _wishes(market, those):
        mask &= passes
    row, group = np.nonzero(mask)
    cells = _cells(market, those, row, group)
    keep = np.ones(len(row), dtype=np.bool_)
    for _, passes in _amounts(market, those, row, group, cells):
        keep &= passes
    if not keep.all():
        row, group = row[keep], group[keep]
        cells = cells.only(keep)
    return row, group, cells


def judge(market: Market, asks: Sequence[Ask]) -> Verdicts:
    """Everything about every cell of these requests."""
    those = variants(market, asks)
    shape = (len(those), len(market))
    row, group = (each.ravel() for each in np.indices(shape))
    cells = _cells(market, those, row, group)
    why = np.zeros(shape, dtype=np.uint32)
    for bit, passes in _wishes(market, those):
        why |= np.where(passes, 0, bit).astype(np.uint32)
    for bit, passes in _amounts(market, those, row, group, cells, all_of_them=True):
        why |= np.where(passes, 0, bit).astype(np.uint32).reshape(shape)
    price = _rate(market, those, row, group).reshape(shape)
    ranked = market.gather("tiers", [ask.tiers for ask in those.each()], lambda tiers: np.stack(market.ranked(tiers)))
    table = [each.reshape(shape) for each in (cells.units, cells.devices, cells.cost)]
    table += [price, ranked[:, 0], ranked[:, 1]]
    if len(those) == len(asks):
        return Verdicts(why, *table)
    # Of several variants the first that fits speaks for the request, else the first in whose form the devices suit.
    first = np.flatnonzero(np.diff(those.ask, prepend=-1))
    unfit = (why != 0) * 2 + ((why & np.uint32(Why.SELECTOR)) != 0)
    chosen = np.stack(
        [low + unfit[low:high].argmin(axis=0) for low, high in zip(first, [*first[1:], len(those)], strict=True)]
    )
    table = [np.take_along_axis(each, chosen, axis=0) for each in table]
    return Verdicts(np.take_along_axis(why, chosen, axis=0), *table)


# --- wishes: one row of groups for each distinct one ------------------------------------------------------------------


def _wishes(market: Market, those: Variants) -> Iterator[tuple[Why, Bools]]:
    """Predicates that hold or not whatever the amounts; those that nobody asks for are left out."""
    each = list(those.each())

    def wish(bit: Why, keys: list[Any], row: Callable[[Any], Bools], neutral: Hashable) -> Iterator[tuple[Why, Bools]]:
        if any(key != neutral for key in keys):
            yield bit, market.gather(bit.name or "", keys, row)

    homes = set(market.clusters.distinct)
    yield from wish(
        Why.OWN_CLUSTER,
        [ask.cluster if ask.cluster in homes else None for ask in each],
        lambda name: ~market.clusters.among(frozenset({name})),
        None,
    )
    forms = those.form.tolist()
    yield from wish(
        Why.SELECTOR,
        [(ask.matched, *(form.matched for form in ask.forms[:at])) for ask, at in zip(each, forms, strict=True)],
        market.in_form,
        (None,),
    )
    yield from wish(Why.AVOIDED, [ask.avoid for ask in each], lambda ids: ~market.named(ids), frozenset())
    if any(group.allowed_tenants is not None for group in market.problem.groups):
        yield from wish(Why.TENANT, [ask.tenant for ask in each], market.admits, None)
    for bit, names, field in (
        (Why.CLUSTER, market.clusters, "clusters"),
        (Why.REGION, market.regions, "regions"),
        (Why.JURISDICTION, market.jurisdictions, "jurisdictions"),
        (Why.PROVIDER, market.providers, "providers"),
    ):
        yield from wish(bit, [getattr(ask, field) for ask in each], names.among, None)
    everyone = np.ones(len(market), dtype=np.bool_)
    nobody = ~everyone
    yield from wish(
        Why.CONFIDENTIAL,
        [ask.confidential is Confidential.REQUIRE for ask in each],
        lambda required: market.confidential if required else everyone,
        False,
    )
    yield from wish(
        Why.INTERRUPTIBLE,
        [seconds if ask.uninterrupted else 0 for ask, seconds in zip(each, those.duration.tolist(), strict=True)],
        lambda seconds: market.uninterrupted >= seconds,
        0,
    )
    yield from wish(Why.TIER, [ask.tiers for ask in each], lambda tiers: market.ranked(tiers)[0] >= 0, ())
    yield from wish(Why.PINNED, [_pinned_to(ask) for ask in each], market.named, None)
    yield from wish(Why.WINDOW, (those.bucket < 0).tolist(), lambda outside: nobody if outside else everyone, False)


def _pinned_to(ask: Ask) -> frozenset[str] | None:
    """The groups that a lease holds which must not be moved."""
    if ask.running is None or ask.running.move_micros is not None:
        return None
    return frozenset(held.group for held in ask.running.held)


# --- amounts: arithmetic on cells -------------------------------------------------------------------------------------


def _cells(market: Market, those: Variants, row: Ints, group: Ints) -> Cells:
    worker = _pieces(market, those, row, group)
    units = worker if (those.workers == 1).all() else worker * those.workers[row]
    devices = units if (market.unit == 1).all() else units * market.unit[group]
    hourly = np.minimum(devices, HOLDABLE) * _price(market, those, row, group)
    cost = _paid(hourly, those.duration[row])
    if (fees := _fees(market, those)) is not None:
        cost = np.minimum(cost + fees[row, group], MAX_MONEY + 1)
    return Cells(units=units, devices=devices, cost=cost, loss=_loss(market, those, row, group))


def _pieces(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
    """Units of one worker."""
    if (market.unit == 1).all():
        return those.devices[row]
    pieces: Ints = -(-those.devices[row] // market.unit[group])
    return pieces


def _price(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
    if market.buckets == 1:
        return market.price[:, 0][group]
    return market.price[group, np.maximum(those.bucket, 0)[row]]


def _fees(market: Market, those: Variants) -> Ints | None:
    if not any(ask.transfer_micros for ask in those.asks):
        return None
    # One mapping is often shared by many requests; its identity is as good a key as its content, and cheaper.
    tables: dict[int, tuple[tuple[str, int], ...]] = {}
    keys = [
        tables.setdefault(id(ask.transfer_micros), tuple(ask.transfer_micros.items())) if ask.transfer_micros else ()
        for ask in those.each()
    ]
    return market.gather("transfer", keys, market.fees)


def _loss(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
    asks = list(those.each())
    fixed = column(
        min(
            -(-ask.delay_micros * max(0, int(market.starts[bucket]) - ask.not_before_s) // 3600)
            + ((ask.running.move_micros or 0) if ask.running is not None else 0),
            MAX_MONEY,
        )
        for ask, bucket in zip(asks, np.maximum(those.bucket, 0).tolist(), strict=True)
    )
    restart = column(ask.restart_micros for ask in asks)
    if not market.reclaims.any() or not restart.any():
        return fixed[row] if fixed.any() else np.broadcast_to(np.int64(0), row.shape)
    # ⌈rate × seconds × money / 3.6e9⌉: the product can leave 64 bits, those of its quotient and its rest do not.
    lost = zip(asks, those.duration.tolist(), strict=True)
    parts = [divmod(ask.restart_micros * seconds, RECLAIMS) for ask, seconds in lost]
    whole, rest = (column(min(part[at], MAX_MONEY) for part in parts) for at in (0, 1))
    rate = market.reclaims[group]
    beyond = rate.astype(np.float64) * whole[row] > MAX_MONEY
    expected = rate * np.where(beyond, 0, whole[row]) - (-rate * rest[row] // RECLAIMS)
    loss: Ints = np.minimum(np.where(beyond, MAX_MONEY, expected) + fixed[row], MAX_MONEY)
    return loss


def _amounts(
    market: Market, those: Variants, row: Ints, group: Ints, cells: Cells, *, all_of_them: bool = False
) -> Iterator[tuple[Why, Bools]]:
    """Predicates on amounts; those that remove nothing from anybody are left out, unless all of them are wanted."""
    if not len(row):
        return
    asks = list(those.each())
    duration = those.duration[row]
    if all_of_them or those.duration.max() > market.longest.min():
        yield Why.TOO_LONG, duration <= market.longest[group]
    if all_of_them or those.duration.min() < market.shortest.max():
        yield Why.TOO_SHORT, duration >= market.shortest[group]
    if any(ask.price_cap_micros is not None for ask in asks) or any(ask.tiers for ask in asks):
        price = _rate(market, those, row, group)
        ranked = market.gather("tiers", [ask.tiers for ask in asks], lambda tiers: np.stack(market.ranked(tiers)))
        yield Why.TIER_PRICE, price <= ranked[:, 1][row, group]
        yield Why.PRICE_CAP, price <= _caps(ask.price_cap_micros for ask in asks)[row]
    total = _caps((ask.total_cap_micros for ask in asks), MAX_MONEY)
    yield Why.TOTAL_CAP, cells.cost <= total[row]
    yield from _capacities(market, those, row, group)
    if market.budgets:
        yield Why.BUDGET, cells.cost <= _purses(market, those)[row]
    if market.quotas:
        yield from _quotas(market, those, row, group, cells)
    if market.aim is Aim.WELFARE:
        worth = column(
            (ask.value_micros or 0) + ((ask.running.end_micros or 0) if ask.running is not None else 0) for ask in asks
        )
        yield Why.VALUE, cells.cost + cells.loss <= worth[row]


def _capacities(market: Market, those: Variants, row: Ints, group: Ints) -> Iterator[tuple[Why, Bools]]:
    asks = list(those.each())
    spans = list(zip(np.maximum(those.bucket, 0).tolist(), those.until.tolist(), strict=True))
    # Of a request that may be split, one worker must fit.
    least = np.where(column(ask.split for ask in asks) > 1, 1, those.workers)
    needed = _pieces(market, those, row, group) * least[row]
    yield Why.COUNT, needed <= market.gather("takeable", spans, market.takeable)[row, group]
    if market.problem.rows:
        yield Why.SHARED, needed <= market.gather("shared", spans, market.shared)[row, group]
    one_node = np.array([ask.same_node for ask in asks], dtype=np.bool_)
    if one_node.any():
        fits = np.ones(len(row), dtype=np.bool_)
        mine = np.flatnonzero(one_node[row])
        pieces = _pieces(market, those, row[mine], group[mine])
        for units in np.unique(pieces).tolist():
            some = mine[pieces == units]
            held = market.gather(f"places {units}", spans, lambda span, units=units: market.places(units, span))  # type: ignore[misc]  # bound at once
            fits[some] = held[row[some], group[some]] >= least[row[some]]
        yield Why.NODE, fits


def _purses(market: Market, those: Variants) -> Ints:
    """What the tightest budget of each variant could pay, that pays for starts at its moment."""
    windows = {budget.id: (budget.from_s, budget.until_s) for budget in market.problem.budgets}
    starts = market.starts[np.maximum(those.bucket, 0)].tolist()
    return _caps(
        min((market.budgets[name] for name in ask.budgets if _inside(start, windows[name])), default=None)
        for ask, start in zip(those.each(), starts, strict=True)
    )


def _inside(start: int, window: tuple[int, int | None]) -> bool:
    return window[0] <= start and (window[1] is None or start < window[1])


def _quotas(market: Market, those: Variants, row: Ints, group: Ints, cells: Cells) -> Iterator[tuple[Why, Bools]]:
    quotas = {quota.id: quota for quota in market.problem.quotas}
    starts = market.starts[np.maximum(those.bucket, 0)]
    ends = starts + those.duration

    def counts(name: str, at: int) -> bool:
        quota = quotas[name]
        return ends[at] > quota.from_s and (quota.until_s is None or starts[at] < quota.until_s)

    passes = np.ones(len(row), dtype=np.bool_)
    everywhere: list[int | None] = []
    scoped: dict[str, list[int]] = {}
    for at, ask in enumerate(those.each()):
        mine = [name for name in ask.quotas if counts(name, at)]
        everywhere.append(min((market.quotas[name] for name in mine if quotas[name].groups is None), default=None))
        for name in mine:
            if quotas[name].groups is not None:
                scoped.setdefault(name, []).append(at)
    passes &= cells.devices <= _caps(everywhere)[row]
    if scoped:
        # Of a request that may be split, one worker must fit a cap on some groups: spreading is what such a cap is for.
        splits = column(ask.split for ask in those.asks)[those.ask] > 1
        devices = np.where(splits[row], cells.devices // those.workers[row], cells.devices)
        first = np.searchsorted(row, np.arange(len(those) + 1))
        for name, holders in scoped.items():
            named = market.named(quotas[name].groups)
            for at in holders:
                low, high = int(first[at]), int(first[at + 1])
                passes[low:high] &= (devices[low:high] <= market.quotas[name]) | ~named[group[low:high]]
    yield Why.QUOTA, passes


def _paid(hourly: Ints, duration: Ints) -> Ints:
    """⌈hourly × duration / 3600⌉, saturated where the product would leave 64 bits (about a billion dollars)."""
    if not len(hourly):
        return hourly
    if float(hourly.max()) * float(duration.max()) < 3600.0 * MAX_MONEY:
        paid: Ints = -(hourly * -duration // 3600)
        return paid
    beyond = hourly.astype(np.float64) * duration > 3600.0 * MAX_MONEY * 1.01
    seconds = np.where(beyond, 0, hourly) * duration
    return np.where(beyond, MAX_MONEY + 1, -(-seconds // 3600))


def _rate(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
    """⌈hourly / wanted + 3600 × transfer / (wanted × duration)⌉, exact: two rounded halves could pass a cap by one."""
    wanted = (those.devices * those.workers)[row]
    units = _pieces(market, those, row, group) * those.workers[row]
    hourly = np.minimum(units * market.unit[group], HOLDABLE) * _price(market, those, row, group)
    whole, rest = np.divmod(hourly, wanted)
    fees = _fees(market, those)
    if fees is None:
        return whole + (rest > 0)
    duration = those.duration[row]
    device_seconds = wanted * duration
    fee, fee_rest = np.divmod(3600 * fees[row, group], device_seconds)
    return whole + fee - (-(rest * duration + fee_rest) // device_seconds)


def _caps(values: Any, otherwise: int = NO_CAP) -> Ints:
    return column(otherwise if value is None else min(value, otherwise) for value in values)
