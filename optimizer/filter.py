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

from optimizer.amounts import Cells, caps, cells_of, pieces_of, purses, rate
from optimizer.market import Bits, Bools, Ints, Market, column
from optimizer.problem import MAX_MONEY, Aim, Ask, Confidential
from optimizer.solution import Why
from optimizer.variants import Variants, variants


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


def eligible(market: Market, those: Variants) -> tuple[Ints, Ints, Cells]:
    """The cells that pass every predicate, by variant and then by group: (variant, group, amounts)."""
    if not len(those) or not len(market):
        none = np.zeros(0, dtype=np.int64)
        return none, none, Cells(none, none, none, none)
    mask = np.ones((len(those), len(market)), dtype=np.bool_)
    for _, passes in wishes(market, those):
        mask &= passes
    row, group = np.nonzero(mask)
    cells = cells_of(market, those, row, group)
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
    cells = cells_of(market, those, row, group)
    why = np.zeros(shape, dtype=np.uint32)
    for bit, passes in wishes(market, those):
        why |= np.where(passes, 0, bit).astype(np.uint32)
    for bit, passes in _amounts(market, those, row, group, cells, all_of_them=True):
        why |= np.where(passes, 0, bit).astype(np.uint32).reshape(shape)
    price = rate(market, those, row, group).reshape(shape)
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


def wishes(market: Market, those: Variants) -> Iterator[tuple[Why, Bools]]:
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


# --- amounts: what each cell takes, against what it may --------------------------------------------------------------


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
        price = rate(market, those, row, group)
        ranked = market.gather("tiers", [ask.tiers for ask in asks], lambda tiers: np.stack(market.ranked(tiers)))
        yield Why.TIER_PRICE, price <= ranked[:, 1][row, group]
        yield Why.PRICE_CAP, price <= caps(ask.price_cap_micros for ask in asks)[row]
    total = caps((ask.total_cap_micros for ask in asks), MAX_MONEY)
    yield Why.TOTAL_CAP, cells.cost <= total[row]
    yield from _capacities(market, those, row, group)
    if market.budgets:
        yield Why.BUDGET, cells.cost <= purses(market, those)[row]
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
    needed = pieces_of(market, those, row, group) * least[row]
    yield Why.COUNT, needed <= market.gather("takeable", spans, market.takeable)[row, group]
    if market.problem.rows:
        yield Why.SHARED, needed <= market.gather("shared", spans, market.shared)[row, group]
    one_node = np.array([ask.same_node for ask in asks], dtype=np.bool_)
    if one_node.any():
        fits = np.ones(len(row), dtype=np.bool_)
        mine = np.flatnonzero(one_node[row])
        pieces = pieces_of(market, those, row[mine], group[mine])
        for units in np.unique(pieces).tolist():
            some = mine[pieces == units]
            held = market.gather(f"places {units}", spans, lambda span, units=units: market.places(units, span))  # type: ignore[misc]  # bound at once
            fits[some] = held[row[some], group[some]] >= least[row[some]]
        yield Why.NODE, fits


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
    passes &= cells.devices <= caps(everywhere)[row]
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
