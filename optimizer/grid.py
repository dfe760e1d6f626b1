"""What every predicate says of a whole table of requests × groups: what removes a group, and what alone does.

``filter.eligible`` wants the few cells that pass; an explanation wants every reason of every cell, of thousands of
requests. So each predicate is one comparison of a column (requests) with a row (groups), and its answers are kept as
bits, eight groups to a byte: what *alone* removed a group, and what nothing but some predicates remove, are then a few
operations on an eighth of a table of bytes. What holds whatever the amounts, and what a cell costs, is computed by the
code that the plan was made with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from optimizer.amounts import caps, cells_of, pieces_of, purses, rate
from optimizer.filter import wishes
from optimizer.market import Bools, Ints, Market, column
from optimizer.problem import MAX_MONEY, Aim, Ask
from optimizer.purses import counting
from optimizer.solution import Why
from optimizer.variants import variants

Bytes = npt.NDArray[np.uint8]
_Scalar = TypeVar("_Scalar", bound=np.generic)
MOST = 255
"""Requests looked at in one go: so many ones still add up in a byte."""
CELLS = 500_000
"""Cells looked at in one go: a table of them stays in the processor's cache."""


class Seen:
    """What the predicates say of some requests; tables are requests × groups, in the order of the requests given.

    For a group that some form and start of a request suits, that one speaks; else the first form that takes the group,
    at its first start. Tables of amounts have one column where they are the same for all groups.
    """

    def __init__(self, market: Market, asks: Sequence[Ask]) -> None:
        self.asks = asks
        self._market = market
        self._those = those = variants(market, asks)
        self._row, self._group = np.arange(len(those))[:, None], np.arange(len(market))[None, :]
        barred: dict[Why, Bools] = {}
        units = cost = np.zeros((len(those), 0), dtype=np.int64)
        if len(market):
            cells = cells_of(market, those, self._row, self._group)
            units, cost = cells.units, cells.cost
            for bit, passes in chain(wishes(market, those), self._amounts(units, cost, cells.loss)):
                if not passes.all():
                    barred[bit] = np.broadcast_to(~passes, (len(those), len(market)))
        self._speaker = self._speaking(barred) if len(those) > len(asks) else None
        self.bits: Mapping[Why, Bytes] = {bit: np.packbits(self._of(mask), axis=1) for bit, mask in barred.items()}
        """Predicate → the groups that it removes, as bits; predicates that remove none are left out."""
        self.units = self._of(units)
        """Of all workers."""
        self.cost = self._of(cost)
        self._once = np.zeros((len(asks), -(-len(market) // 8)), dtype=np.uint8)
        self._twice = np.zeros_like(self._once)
        for mask in self.bits.values():
            self._twice |= self._once & mask
            self._once |= mask

    # --- which groups ------------------------------------------------------------------------------------------------

    def alone(self, bit: Why) -> Bytes:
        """The groups that this predicate removes and no other, as bits."""
        return self.bits[bit] & ~self._twice if bit in self.bits else np.zeros_like(self._once)

    def spared(self, *bits: Why) -> Bytes:
        """The groups that nothing but these predicates removes, or nothing at all, as bits."""
        found = np.zeros_like(self._once)
        for bit, mask in self.bits.items():
            if bit not in bits:
                found |= mask
        return ~found

    def among(self, bits: Bytes) -> Bools:
        """Bits as a table of yes and no."""
        return np.unpackbits(bits, axis=1, count=len(self._market)).view(np.bool_)

    def why(self, row: Ints, group: Ints) -> Ints:
        """Everything that removes these cells."""
        found = np.zeros(np.broadcast_shapes(row.shape, group.shape), dtype=np.int64)
        for bit, mask in self.bits.items():
            found |= np.where(mask[row, group >> 3] >> (7 - (group & 7)) & 1, int(bit), 0)
        return found

    def eligible(self) -> Ints:
        """How many groups pass everything, for each request."""
        return len(self._market) - counted(self._once)

    def removed(self) -> Mapping[Why, Ints]:
        """How many groups each predicate removes, for each request."""
        return {bit: counted(mask) for bit, mask in self.bits.items()}

    def only(self) -> Mapping[Why, Ints]:
        """How many groups each predicate alone removes, for each request."""
        return {bit: counted(mask & ~self._twice) for bit, mask in self.bits.items()}

    # --- amounts -----------------------------------------------------------------------------------------------------

    def at(self, table: Ints, row: Ints, group: Ints) -> Ints:
        """Some cells of a table of amounts."""
        return np.broadcast_to(table, (len(self.asks), len(self._market)))[row, group]

    @cached_property
    def devices(self) -> Ints:
        """Lent and paid: whole units."""
        if (self._market.unit == 1).all():
            return self.units
        return self.units * self._market.unit

    @cached_property
    def price(self) -> Ints:
        """µUSD per requested device-hour, rounded up."""
        return self._of(rate(self._market, self._those, self._row, self._group))

    @cached_property
    def tier(self) -> Ints:
        """Rank of the tier that admits the group; −1 where none does."""
        return self._of(self._ranked[:, 0])

    @cached_property
    def tier_cap(self) -> Ints:
        """Of that tier; ``NO_CAP`` where it has none."""
        return self._of(self._ranked[:, 1])

    @cached_property
    def _ranked(self) -> Ints:
        tiers = [ask.tiers for ask in self._those.each()]
        return self._market.gather("tiers", tiers, lambda key: np.stack(self._market.ranked(key)))

    def _of(self, table: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """A table of variants × groups as one of requests × groups."""
        if self._speaker is None:
            return table
        whole = np.broadcast_to(table, (len(self._those), len(self._market)))
        return np.take_along_axis(whole, self._speaker, axis=0)

    def _speaking(self, barred: Mapping[Why, Bools]) -> Ints:
        """Which variant speaks in each cell: the first that suits, else the first in whose form the devices do."""
        unfit = np.zeros((len(self._those), len(self._market)), dtype=np.int8)
        for mask in barred.values():
            unfit |= mask.astype(np.int8) << 1
        unfit += barred.get(Why.SELECTOR, np.False_)
        first = np.searchsorted(self._those.ask, np.arange(len(self.asks) + 1)).tolist()
        return np.stack([low + unfit[low:high].argmin(axis=0) for low, high in pairwise(first)])

    # --- predicates on amounts ---------------------------------------------------------------------------------------

    def _amounts(self, units: Ints, cost: Ints, loss: Ints) -> Iterator[tuple[Why, Bools]]:
        market, those = self._market, self._those
        asks = list(those.each())
        duration = those.duration[:, None]
        yield Why.TOO_LONG, duration <= market.longest
        yield Why.TOO_SHORT, duration >= market.shortest
        if any(ask.price_cap_micros is not None or ask.tiers for ask in asks):
            price = rate(market, those, self._row, self._group)
            yield Why.TIER_PRICE, price <= self._ranked[:, 1]
            yield Why.PRICE_CAP, price <= caps(ask.price_cap_micros for ask in asks)[:, None]
        yield Why.TOTAL_CAP, cost <= caps((ask.total_cap_micros for ask in asks), MAX_MONEY)[:, None]
        yield from self._capacities(asks)
        if market.budgets:
            yield Why.BUDGET, cost <= purses(market, those)[:, None]
        if market.quotas:
            yield Why.QUOTA, self._within_quotas(asks, units)
        if market.aim is Aim.WELFARE:
            saved = ((ask.running.end_micros or 0) if ask.running is not None else 0 for ask in asks)
            worth = column(ask.value_micros or 0 for ask in asks) + column(saved)
            yield Why.VALUE, cost + loss <= worth[:, None]

    def _capacities(self, asks: Sequence[Ask]) -> Iterator[tuple[Why, Bools]]:
        """What the groups, what they share and their nodes could give if all of it were free."""
        market, those = self._market, self._those
        spans = list(zip(np.maximum(those.bucket, 0).tolist(), those.until.tolist(), strict=True))
        # Of a request that may be split, one worker must fit.
        least = np.where(column(ask.split for ask in asks) > 1, 1, those.workers)[:, None]
        pieces = pieces_of(market, those, self._row, self._group)
        yield Why.COUNT, pieces * least <= market.gather("takeable", spans, market.takeable)
        if market.problem.rows:
            yield Why.SHARED, pieces * least <= market.gather("shared", spans, market.shared)
        one_node = np.flatnonzero([ask.same_node for ask in asks])
        if not len(one_node):
            return
        fits = np.ones((len(those), len(market)), dtype=np.bool_)
        for units in np.unique(pieces[one_node]).tolist():
            mine = one_node[(pieces[one_node] == units).any(axis=1)]
            keys = [(units, spans[at]) for at in mine.tolist()]
            held = market.gather("places", keys, lambda key: market.places(*key))
            fits[mine] &= (held >= least[mine]) | (pieces[mine] != units)
        yield Why.NODE, fits

    def _within_quotas(self, asks: Sequence[Ask], units: Ints) -> Bools:
        market, those = self._market, self._those
        starts = market.starts[np.maximum(those.bucket, 0)].tolist()
        everywhere: list[int | None] = []
        devices = units if (market.unit == 1).all() else units * market.unit
        # Of a request that may be split, one worker must fit a cap on some groups: spreading is what such a cap is for.
        split = (column(ask.split for ask in asks) > 1)[:, None]
        least = np.where(split, devices // those.workers[:, None], devices)
        scoped: dict[str, list[int]] = {}
        for at, (ask, start, seconds) in enumerate(zip(asks, starts, those.duration.tolist(), strict=True)):
            mine = counting(market, ask, start, start + seconds)
            everywhere.append(min((market.quotas[each.id] for each in mine if each.groups is None), default=None))
            for each in mine:
                if each.groups is not None:
                    scoped.setdefault(each.id, []).append(at)
        passes = devices <= caps(everywhere)[:, None]
        if scoped:
            passes = np.broadcast_to(passes, (len(those), len(market))).copy()
        quotas = {quota.id: quota for quota in market.problem.quotas}
        for name, holders in scoped.items():
            passes[holders] &= (least[holders] <= market.quotas[name]) | ~market.named(quotas[name].groups)
        return passes


def slices(market: Market, asks: Sequence[Ask], which: Sequence[int]) -> Iterator[tuple[list[int], Seen]]:
    """What is seen of these requests (indices), some at a time: a table of all would not fit into memory."""
    forms = 1 + max((len(asks[at].forms) for at in which), default=0)
    step = min(MOST, max(1, CELLS // max(1, len(market) * market.buckets * forms)))
    for low in range(0, len(which), step):
        part = list(which[low : low + step])
        yield part, Seen(market, [asks[at] for at in part])


def counted(bits: Bytes) -> Ints:
    """How many bits are set in each row."""
    sums: Ints = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
    return sums
