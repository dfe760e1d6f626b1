"""What each cell of variants × groups would take and cost: arithmetic on whole numbers, whole arrays at a time.

Sums are exact up to a billion dollars, and saturate beyond: 64 bits hold no product of a price, a size and a month that
nobody will ever pay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.groups import HOURS
from optimizer.market import NO_CAP, Bools, Ints, Market, column
from optimizer.problem import MAX_MONEY
from optimizer.variants import Variants

RECLAIMS = 3600 * HOURS
HOLDABLE = 900_000_000
"""Devices; no plan lends so many to one request, and at the highest price an hour of them still fits 64 bits."""


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


def cells_of(market: Market, those: Variants, row: Ints, group: Ints) -> Cells:
    """Of the cells (row, group): variants by their place among ``those``, groups by theirs in the market."""
    worker = pieces_of(market, those, row, group)
    units = worker if (those.workers == 1).all() else worker * those.workers[row]
    devices = units if (market.unit == 1).all() else units * market.unit[group]
    hourly = np.minimum(devices, HOLDABLE) * _price(market, those, row, group)
    cost = _paid(hourly, those.duration[row])
    if (fees := _fees(market, those)) is not None:
        cost = np.minimum(cost + fees[row, group], MAX_MONEY + 1)
    return Cells(units=units, devices=devices, cost=cost, loss=_loss(market, those, row, group))


def pieces_of(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
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


def purses(market: Market, those: Variants) -> Ints:
    """What the tightest budget of each variant could pay, that pays for starts at its moment."""
    windows = {budget.id: (budget.from_s, budget.until_s) for budget in market.problem.budgets}
    starts = market.starts[np.maximum(those.bucket, 0)].tolist()
    return caps(
        min((market.budgets[name] for name in ask.budgets if _inside(start, windows[name])), default=None)
        for ask, start in zip(those.each(), starts, strict=True)
    )


def _inside(start: int, window: tuple[int, int | None]) -> bool:
    return window[0] <= start and (window[1] is None or start < window[1])


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


def rate(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
    """⌈hourly / wanted + 3600 × transfer / (wanted × duration)⌉, exact: two rounded halves could pass a cap by one."""
    wanted = (those.devices * those.workers)[row]
    units = pieces_of(market, those, row, group) * those.workers[row]
    hourly = np.minimum(units * market.unit[group], HOLDABLE) * _price(market, those, row, group)
    whole, rest = np.divmod(hourly, wanted)
    fees = _fees(market, those)
    if fees is None:
        return whole + (rest > 0)
    duration = those.duration[row]
    device_seconds = wanted * duration
    fee, fee_rest = np.divmod(3600 * fees[row, group], device_seconds)
    return whole + fee - (-(rest * duration + fee_rest) // device_seconds)


def caps(values: Any, otherwise: int = NO_CAP) -> Ints:
    """A column of limits, ``otherwise`` where there is none."""
    return column(otherwise if value is None else min(value, otherwise) for value in values)
