"""What would have to change for refused requests to be placed beside the plan: the smallest change of each kind.

Each proposal touches one field. Which group would be the one is found for many requests at a time, kind by kind, in
tables of requests × groups (``grid``); the change is then made and put to the test (``trial``), and dropped where it
fails, never reworded. Proposals are about the request in its own form at its first start; only *start later* and
*split* look further.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optimizer.grid import Bytes, Seen
from optimizer.ledger import Ledger
from optimizer.market import Ints, column
from optimizer.pairs import Pairs
from optimizer.problem import MAX_DURATION, MAX_MONEY, MAX_PRICE, Ask, Confidential
from optimizer.purses import Purses
from optimizer.ranges import MAX_SPLIT
from optimizer.solution import Change, Field, Why
from optimizer.trial import Trial

AMOUNT = (Why.COUNT, Why.NODE, Why.SHARED, Why.BUDGET, Why.QUOTA, Why.TOTAL_CAP)
MOST_PARTS = 8
"""Over more groups than this and its own allowance a split is not proposed."""
NEVER = int(np.iinfo(np.int64).max)
Found = tuple[int, Change | None]
"""Of which request, by its place among those that are looked at."""


def changes(pairs: Pairs, ledger: Ledger, purses: Purses, seen: Seen, rows: Sequence[int]) -> list[tuple[Change, ...]]:
    """Every kind of change that helps, each in its smallest form, for some of the requests seen.

    Running leases that are ended have none.
    """
    mine = [at for at, row in enumerate(rows) if seen.asks[row].running is None]
    found: list[list[Change]] = [[] for _ in rows]
    if mine and len(pairs.groups):
        for at, change in _Refused(pairs, ledger, purses, seen, column(rows[at] for at in mine)).all():
            if change is not None:
                found[mine[at]].append(change)
    return [tuple(each) for each in found]


class _Refused:
    """Some refused requests with everything that the proposals read; tables are requests × groups."""

    def __init__(self, pairs: Pairs, ledger: Ledger, purses: Purses, seen: Seen, rows: Ints) -> None:
        market = pairs.market
        self.pairs, self.ledger, self.seen, self.rows = pairs, ledger, seen, rows
        self.purses, self.trial = purses, Trial(pairs, ledger, purses)
        self.asks = [seen.asks[row] for row in rows.tolist()]
        self.bucket = [self._first_start(ask) for ask in self.asks]
        self.units, self.devices, self.cost = (each[rows] for each in (seen.units, seen.devices, seen.cost))
        self.price = market.price.T[self.bucket] if market.buckets > 1 else market.price.T
        self.duration = column(ask.duration_s for ask in self.asks)[:, None]
        self.workers = column(ask.workers for ask in self.asks)[:, None]
        starts = market.starts[self.bucket].tolist()
        self.begun = list(zip(self.asks, starts, strict=True))
        """Each request and when it would start."""
        left = ((left for _, left in purses.budgets(*each)) for each in self.begun)
        self.money = column(min(each, default=MAX_MONEY) for each in left)[:, None]
        self.quota = self._quotas()
        self.free = self._free()
        self.room = self.free
        """Units each group can still give to each of them."""
        if (one_node := np.array([ask.same_node for ask in self.asks], dtype=np.bool_)).any():
            on_nodes = np.minimum(self.free, ledger.largest * self.workers)
            self.room = np.where(one_node[:, None], on_nodes, self.free)
        self.roomy = self._bits(self.units <= self.room)
        self.paid = self._bits(self.cost <= self.money)
        self.granted = self._bits(self.devices <= self.quota)
        self.fits = self.roomy & self.paid & self.granted

    def all(self) -> Iterator[Found]:
        """Kind by kind, so that those of each request come in this order."""
        yield from self._caps()
        yield from self._places()
        yield from self._fewer()
        yield from self._fewer_workers()
        yield from self._other_durations()
        yield from self._wishes()
        yield from self._allowances()
        yield from self._later()
        yield from self._split()

    # --- what the tables are made of ---------------------------------------------------------------------------------

    def _first_start(self, ask: Ask) -> int:
        starts = self.pairs.market.starts
        at = int(np.searchsorted(starts, ask.not_before_s)) if len(starts) > 1 else 0
        return at if at < len(starts) and ask.not_before_s <= starts[at] <= ask.latest_s else 0

    def _span(self, at: int) -> tuple[int, int]:
        market, bucket = self.pairs.market, self.bucket[at]
        start = int(market.starts[bucket])
        return bucket, market.span(start, start + self.asks[at].duration_s)[1]

    def _free(self) -> Ints:
        if self.pairs.market.buckets == 1:
            return self.ledger.room()[None, :]
        return np.stack([self.ledger.room(self._span(at)) for at in range(len(self.asks))])

    def _quotas(self) -> Ints:
        """Devices that its tightest quota still allows each request, in each group where some count a few groups."""
        mine = [self.purses.quotas(*each) for each in self.begun]
        left = column(min((left for each, left in some if each.groups is None), default=MAX_MONEY) for some in mine)
        if all(each.groups is None for some in mine for each, _ in some):
            return left[:, None]
        table = np.repeat(left[:, None], len(self.pairs.groups), axis=1)
        for at, some in enumerate(mine):
            for each, amount in some:
                if each.groups is not None:
                    inside = self.pairs.market.named(each.groups)
                    table[at, inside] = np.minimum(table[at, inside], amount)
        return table

    def _bits(self, mask: Any) -> Bytes:
        return np.packbits(np.broadcast_to(mask, (len(self.asks), len(self.pairs.groups))), axis=1)

    def _least(self, bits: Bytes, values: Ints) -> Iterator[tuple[int, Ask, int]]:
        """Of each request for which there is one of these groups, the group with the least value; the first of equals.

        Bits beyond the last group may be set.
        """
        some = np.flatnonzero(bits.any(axis=1))
        mask = self.seen.among(bits[some])
        values = np.broadcast_to(values, (len(self.asks), len(self.pairs.groups)))[some]
        where = np.where(mask, values, NEVER).argmin(axis=1)
        marked = mask[np.arange(len(some)), where]
        for at, group in zip(some[marked].tolist(), where[marked].tolist(), strict=True):
            yield at, self.asks[at], group

    def _most(self, some: Ints, values: Ints) -> Iterator[tuple[int, Ask, int, int]]:
        """Of each of some requests, the group with the most above 0, then the cheapest, and that value."""
        top = values.max(axis=1, initial=0)
        where = np.where(values == top[:, None], self.cost[some], NEVER).argmin(axis=1)
        for at, group, value in zip(some.tolist(), where.tolist(), top.tolist(), strict=True):
            if value > 0:
                yield at, self.asks[at], group, value

    def _freed(self, bit: Why) -> Bytes:
        """Groups that only this predicate removes and that have the units and fit the purse."""
        return self.seen.alone(bit)[self.rows] & self.fits

    def _spared(self, *bits: Why) -> Bytes:
        return self.seen.spared(*bits)[self.rows]

    def _try(self, at: int, group: int, field: Field, to: int | str | bool, changed: Ask, name: str = "") -> Found:
        return at, self.trial.passed(changed, group, self.bucket[at], field, to, name=name)

    # --- kinds of change ---------------------------------------------------------------------------------------------

    def _caps(self) -> Iterator[Found]:
        bits = self.seen.bits
        if Why.PRICE_CAP in bits:
            prices = self.seen.price[self.rows]
            for at, ask, group in self._least(self._freed(Why.PRICE_CAP), prices):
                if (cap := int(prices[at, group])) <= MAX_PRICE:
                    yield self._try(at, group, Field.PRICE_CAP, cap, replace(ask, price_cap_micros=cap))
        if Why.TIER_PRICE in bits:
            prices = self.seen.price[self.rows]
            for at, ask, group in self._least(self._freed(Why.TIER_PRICE), prices):
                if (cap := int(prices[at, group])) <= MAX_PRICE:
                    rank = int(self.seen.tier[self.rows[at], group])
                    raised = replace(ask.tiers[rank], price_cap_micros=cap)
                    changed = replace(ask, tiers=(*ask.tiers[:rank], raised, *ask.tiers[rank + 1 :]))
                    yield self._try(at, group, Field.TIER_CAP, cap, changed, raised.name or str(rank))
        for at, ask, group in self._least(self._freed(Why.TOTAL_CAP), self.cost):
            if (cap := int(self.cost[at, group])) <= MAX_MONEY:
                yield self._try(at, group, Field.TOTAL_CAP, cap, replace(ask, total_cap_micros=cap))

    def _places(self) -> Iterator[Found]:
        for bit, field, one, many in (
            (Why.REGION, Field.REGION, "region", "regions"),
            (Why.JURISDICTION, Field.JURISDICTION, "jurisdiction", "jurisdictions"),
            (Why.PROVIDER, Field.PROVIDER, "provider", "providers"),
            (Why.CLUSTER, Field.CLUSTER, "cluster", "clusters"),
        ):
            for at, ask, group in self._least(self._freed(bit), self.cost):
                name = getattr(self.pairs.groups[group], one)
                changed: dict[str, Any] = {many: (getattr(ask, many) or frozenset()) | {name}}
                yield self._try(at, group, field, name, replace(ask, **changed))

    def _left(self, some: Ints) -> Ints:
        """What each request could pay for devices in each group."""
        total = column(MAX_MONEY if (cap := self.asks[at].total_cap_micros) is None else cap for at in some.tolist())
        left: Ints = np.minimum(self.money[some, 0], total)[:, None] - self._fees(some)
        return left

    def _fees(self, some: Ints) -> Ints:
        """What bringing their data costs, whatever they take there."""
        keys = [tuple(self.asks[at].transfer_micros.items()) for at in some.tolist()]
        if not any(keys):
            return np.zeros((1, 1), dtype=np.int64)
        fees: Ints = self.pairs.market.gather("transfer", keys, self.pairs.market.fees)
        return fees

    def _fewer(self) -> Iterator[Found]:
        """Fewer devices; the group that keeps most of what was asked."""
        unit = self.pairs.market.unit
        units = np.minimum(np.minimum(self.room, self.quota // unit), self.units - 1)
        bits = self._spared(*AMOUNT) & self._bits(units >= self.workers)
        some = np.flatnonzero(bits.any(axis=1))
        hourly = (self.price if len(self.price) == 1 else self.price[some]) * unit
        units = np.minimum(units[some], _affordable(self._left(some), hourly, self.duration[some]))
        devices = np.where(self.seen.among(bits[some]), units // self.workers[some] * unit, 0)
        for at, ask, group, count in self._most(some, devices):
            yield self._try(at, group, Field.DEVICES, count, replace(ask, devices=count))

    def _fewer_workers(self) -> Iterator[Found]:
        """Workers as they are, but not as many; what nodes hold is looked at in the most promising groups only."""
        wide = np.flatnonzero(self.workers[:, 0] > 1)
        if not len(wide):
            return
        unit, workers = self.pairs.market.unit, self.workers[wide]
        worker = np.maximum(1, self.units[wide] // workers)
        room = self.room if len(self.room) == 1 else self.room[wide]
        hourly = (self.price if len(self.price) == 1 else self.price[wide]) * unit * worker
        holds = np.minimum(np.minimum(room, self.quota[wide] // unit) // worker, workers - 1)
        holds = np.minimum(holds, _affordable(self._left(wide), hourly, self.duration[wide]))
        holds = np.where(self.seen.among(self._spared(*AMOUNT)[wide]), holds, 0)
        worker = np.broadcast_to(worker, holds.shape)
        for row in np.flatnonzero((holds > 0).any(axis=1)).tolist():
            at = int(wide[row])
            ask, best, most = self.asks[at], 0, 0
            for group in np.lexsort((self.cost[at], -holds[row]))[:MOST_PARTS].tolist():
                count = int(holds[row, group])
                if ask.same_node:
                    places = self.ledger.nodes[group].places(int(worker[row, group]), self._span(at))
                    count = min(count, places)
                if count > most:
                    best, most = group, count
            if most:
                yield self._try(at, best, Field.WORKERS, most, replace(ask, workers=most))

    def _other_durations(self) -> Iterator[Found]:
        """Shorter, as little as possible; then as long as some lender wants at the least."""
        market = self.pairs.market
        bits = self.roomy & self.granted & self._spared(Why.TOO_LONG, Why.INTERRUPTIBLE, Why.BUDGET, Why.TOTAL_CAP)
        some = np.flatnonzero(bits.any(axis=1))
        hourly = (self.price if len(self.price) == 1 else self.price[some]) * self.devices[some]
        longest = np.minimum(market.longest, _affordable(self._left(some), hourly, np.ones_like(self.duration[some])))
        if Why.INTERRUPTIBLE in self.seen.bits:
            alone = np.array([self.asks[at].uninterrupted for at in some.tolist()], dtype=np.bool_)[:, None]
            longest = np.where(alone, np.minimum(longest, market.uninterrupted), longest)
        good = self.seen.among(bits[some]) & (longest < self.duration[some]) & (longest >= market.shortest)
        for at, ask, group, seconds in self._most(some, np.where(good, longest, 0)):
            yield self._try(at, group, Field.DURATION, seconds, replace(ask, duration_s=seconds))
        if Why.TOO_SHORT in self.seen.bits:
            bits = self.roomy & self.granted & self.seen.alone(Why.TOO_SHORT)[self.rows]
            for at, ask, group in self._least(bits, market.shortest):
                seconds = int(market.shortest[group])
                yield self._try(at, group, Field.DURATION, seconds, replace(ask, duration_s=seconds))

    def _wishes(self) -> Iterator[Found]:
        for at, ask, group in self._least(self._freed(Why.CONFIDENTIAL), self.cost):
            changed = replace(ask, confidential=Confidential.NONE)
            yield self._try(at, group, Field.CONFIDENTIAL, False, changed)
        for at, ask, group in self._least(self._freed(Why.INTERRUPTIBLE), self.cost):
            yield self._try(at, group, Field.UNINTERRUPTED, False, replace(ask, uninterrupted=False))
        if any(ask.same_node for ask in self.asks):
            anywhere = self._bits(self.units <= self.free) & self.paid & self.granted & self._spared(Why.NODE)
            for at, ask, group in self._least(anywhere, self.cost):
                if ask.same_node:
                    yield self._try(at, group, Field.SAME_NODE, False, replace(ask, same_node=False))

    def _allowances(self) -> Iterator[Found]:
        """A single budget or quota that is short; where two are, no single change helps."""
        for at, ask, group in self._least(self._spared(Why.BUDGET) & self.roomy & self.granted, self.cost):
            cost = int(self.cost[at, group])
            mine = self.purses.budgets(*self.begun[at])
            short = [(name, cost - left + self.purses.overdrawn(name)) for name, left in mine if cost > left]
            if cost <= MAX_MONEY and len(short) == 1:
                yield self._try(at, group, Field.BUDGET, short[0][1], ask, short[0][0])
        devices = np.broadcast_to(self.devices, self.cost.shape)
        for at, ask, group in self._least(self._spared(Why.QUOTA) & self.roomy & self.paid, devices):
            many, name = int(devices[at, group]), self.pairs.groups[group].id
            counts = self.purses.quotas(*self.begun[at])
            here = [(each, left) for each, left in counts if each.groups is None or name in each.groups]
            short = [(each.id, many - left + self.purses.exceeded(each)) for each, left in here if many > left]
            if len(short) == 1:
                yield self._try(at, group, Field.QUOTA, short[0][1], ask, short[0][0])

    def _later(self) -> Iterator[Found]:
        """The first start after its window at which some group has room; then a deadline that would do."""
        if self.pairs.market.buckets > 1:
            bits = self._spared(Why.WINDOW, Why.COUNT, Why.SHARED, Why.NODE)
            for at in np.flatnonzero(bits.any(axis=1)).tolist():
                yield at, self._waited(at, np.flatnonzero(self.seen.among(bits[at : at + 1])[0]))

    def _waited(self, at: int, groups: Ints) -> Change | None:
        ask, market = self.asks[at], self.pairs.market
        units = np.broadcast_to(self.units, self.cost.shape)[at]
        for bucket, start in enumerate(market.starts.tolist()):
            end = start + ask.duration_s
            overdue = ask.end_by_s is not None and end > ask.end_by_s
            if start < ask.not_before_s or (start > ask.latest_s) == overdue or end > MAX_DURATION:
                continue  # within its window, or two fields at once
            late, field, to = replace(ask, start_by_s=max(start, ask.latest_s)), Field.START_BY, start
            if overdue:
                late, field, to = replace(ask, end_by_s=end), Field.END_BY, end
            room = self.ledger.room((bucket, market.span(start, end)[1]))
            for group in groups[units[groups] <= room[groups]].tolist():
                if (found := self.trial.passed(late, group, bucket, field, to)) is not None:
                    return found
        return None

    def _split(self) -> Iterator[Found]:
        """Over so many groups it would fit, the cheapest that hold most of it."""
        if self.pairs.problem.rows:
            return
        wide = [at for at, ask in enumerate(self.asks) if ask.workers > 1 and ask.split < ask.workers]
        bits = self._spared(Why.COUNT, Why.SHARED, Why.NODE)
        for at in wide:
            ask = self.asks[at]
            mask = self.seen.among(bits[at : at + 1])[0]
            worker = self.units[at] // ask.workers
            holds = np.where(mask, self.room[at if len(self.room) > 1 else 0] // np.maximum(1, worker), 0)
            workers = np.broadcast_to(worker, holds.shape)
            order = np.lexsort((self.cost[at], -np.minimum(holds, ask.workers)))[: MOST_PARTS + ask.split]
            left, shares = ask.workers, []
            for group in order.tolist():
                count = min(left, int(holds[group]))
                if count and ask.same_node:
                    count = min(count, self.ledger.nodes[group].places(int(workers[group]), self._span(at)))
                if count:
                    shares.append((group, count))
                    left -= count
            if not left and ask.split < len(shares) <= MAX_SPLIT:
                yield at, self.trial.spread(replace(ask, split=len(shares)), self.bucket[at], shares)


def _affordable(purse: Ints, hourly: Ints, seconds: Ints) -> Ints:
    """How many times a rate of µUSD per hour can be paid for so long; 0 where that leaves 64 bits."""
    beyond = hourly.astype(np.float64) * seconds > 2.0**62
    paid = np.where(beyond, 1, hourly) * seconds
    times: Ints = purse * 3600 // np.maximum(1, paid)
    return np.where(hourly == 0, MAX_MONEY, np.where(beyond, 0, times))
