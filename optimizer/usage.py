"""Every limit of a problem as one shape: Σ over chosen pairs of what each uses ≤ how much there is.

Groups (in each bucket of time), shared capacity, budgets and quotas differ only in what they count. So they are the
columns of one sparse matrix, pairs × limits, and whoever needs to know whether a plan fits (the ledger), what a limit
is worth (the prices) or what the exact solver must keep (``limits``) asks it. A new linear limit is one more layer here
and nothing anywhere else.

Of ten million pairs the matrix is half a gigabyte that says little: at one time, every pair of one group uses the same
limits there, and every pair of one request the same budgets and quotas. ``Plain`` works from these; of some pairs
either kind makes the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from optimizer.columns import BLOCK
from optimizer.market import NO_CAP, Bools, Floats, Ints, Market
from optimizer.problem import Ask, Budget, Quota
from optimizer.solution import Limit
from optimizer.variants import lasting

Layer = tuple[Bools | None, Ints, Ints]
"""Which pairs use a limit (None: all), which one, and how much of it."""


@dataclass(frozen=True)
class Piece:
    """What one group gives to a pair that takes several, or that a running lease holds."""

    group: int
    workers: int
    units: int
    devices: int
    cost: int


class Usage(ABC):
    """The limits, and what each pair uses of them. Amounts are whole numbers below 2^53, held as floats."""

    def __init__(self, limits: Limits) -> None:
        self.names: Sequence[tuple[Limit, str]] = limits.names
        self.most: Floats = limits.most
        self.cells = limits.cells
        """The first so many limits are group × bucket …"""
        self.shared = limits.shared
        """… the next so many capacity row × bucket; budgets and quotas follow."""

    @cached_property
    def at(self) -> dict[tuple[Limit, str], int]:
        """Where each limit stands; of one in several buckets of time, the last."""
        return {name: at for at, name in enumerate(self.names)}

    @property
    def hard(self) -> int:
        """Where budgets and quotas begin."""
        return self.cells + self.shared

    @abstractmethod
    def rows(self, which: Ints) -> Any:
        """Some pairs (indices, rising) × limits, compressed by rows (a SciPy sparse array)."""

    @abstractmethod
    def times(self, prices: Floats, into: Floats | None = None) -> Floats:
        """What all that each pair uses is worth at these prices of the limits; ``into`` an array that has served."""

    @abstractmethod
    def fits(self, which: slice, left: Floats) -> Bools:
        """Which of these pairs of one request use no more than is left."""

    @abstractmethod
    def of(self, pair: int) -> tuple[Sequence[int] | Ints, Floats]:
        """The limits that one pair uses, each once, and how much of each."""


class Sparse(Usage):
    """Pairs that are not alike: several times, groups taken together, limits that count some groups or moments."""

    def __init__(self, limits: Limits, matrix: Any) -> None:
        super().__init__(limits)
        self._matrix = matrix
        self._indptr, self._limit, self._amount = matrix.indptr, matrix.indices, matrix.data

    def rows(self, which: Ints) -> Any:
        return self._matrix[which]

    def times(self, prices: Floats, into: Floats | None = None) -> Floats:
        worth: Floats = self._matrix @ prices
        return worth

    def fits(self, which: slice, left: Floats) -> Bools:
        low, high = int(self._indptr[which.start]), int(self._indptr[which.stop])
        enough = self._amount[low:high] <= left[self._limit[low:high]]
        fit: Bools = np.logical_and.reduceat(enough, self._indptr[which.start : which.stop] - low)
        return fit

    def of(self, pair: int) -> tuple[Ints, Floats]:
        low, high = int(self._indptr[pair]), int(self._indptr[pair + 1])
        return self._limit[low:high], self._amount[low:high]


class Plain(Usage):
    """One time, one group for each pair, and limits that count whatever is taken: a few numbers for each group and for
    each request say it all."""

    def __init__(self, limits: Limits, columns: Mapping[str, Ints]) -> None:
        super().__init__(limits)
        self._limits = limits
        self._ask, self._group = columns["ask"], columns["group"]
        self._units, self._cost, self._devices = columns["units"], columns["cost"], columns["devices"]

    def rows(self, which: Ints) -> Any:
        limits, (room, weight) = self._limits, self._limits.by_group
        ask, group, units = self._ask[which], self._group[which], self._units[which]
        devices = units if self._devices is self._units else self._devices[which]
        layers = [(group, units)]
        layers += [(room[group, number], units * weight[group, number]) for number in range(room.shape[1])]
        layers += [(limit[ask], self._cost[which]) for limit in limits.budgets_of.T]
        layers += [(limit[ask], devices) for limit in limits.quotas_of.T]
        indices = np.empty((len(which), len(layers)), dtype=np.int32)
        data = np.empty((len(which), len(layers)), dtype=np.float64)
        for at, (limit, amount) in enumerate(layers):
            indices[:, at], data[:, at] = limit, amount
        shape, there = (len(which), len(self.most)), indices >= 0
        counts = there.sum(axis=1)
        ends = np.zeros(len(which) + 1, dtype=np.int32 if indices.size < 2**31 else np.int64)
        np.cumsum(counts, out=ends[1:])
        if counts.sum() == indices.size:
            return csr_array((data.ravel(), indices.ravel(), ends), shape=shape)
        return csr_array((data[there], indices[there], ends), shape=shape)

    def times(self, prices: Floats, into: Floats | None = None) -> Floats:
        limits, (room, weight) = self._limits, self._limits.by_group
        padded = np.append(prices, 0.0)  # −1 is no limit, and no price
        group = prices[: self.cells] + (padded[room] * weight).sum(axis=1)
        money = padded[limits.budgets_of].sum(axis=1)
        device = padded[limits.quotas_of].sum(axis=1)
        by_ask = [(amount, price) for amount, price in ((self._cost, money), (self._devices, device)) if price.any()]
        worth = np.empty(len(self._ask)) if into is None else into
        for low in range(0, len(worth), BLOCK):
            now = slice(low, low + BLOCK)
            part = worth[now]
            np.multiply(self._units[now], group[self._group[now]], out=part)
            for amount, price in by_ask:
                part += amount[now] * price[self._ask[now]]
        return worth

    def fits(self, which: slice, left: Floats) -> Bools:
        limits, (room, weight) = self._limits, self._limits.by_group
        group, units, ask = self._group[which], self._units[which], int(self._ask[which.start])
        fit: Bools = units <= left[group]
        for number in range(room.shape[1]):
            row = room[group, number]
            fit &= (row < 0) | (units * weight[group, number] <= left[row])
        if budgets := limits.budgets[ask]:
            fit &= self._cost[which] <= min([left[at] for at in budgets])
        if quotas := limits.quotas[ask]:
            fit &= self._devices[which] <= min([left[at] for at in quotas])
        return fit

    def of(self, pair: int) -> tuple[list[int], Floats]:
        limits, group, ask = self._limits, int(self._group[pair]), int(self._ask[pair])
        units, cost, devices = float(self._units[pair]), float(self._cost[pair]), float(self._devices[pair])
        used, amounts = [group], [units]
        for row, weight in limits.members.get(group, ()):
            used.append(limits.cells + row)
            amounts.append(units * weight)
        for budget in limits.budgets[ask]:
            used.append(budget)
            amounts.append(cost)
        for quota in limits.quotas[ask]:
            used.append(quota)
            amounts.append(devices)
        return used, np.array(amounts)


class Limits:
    """Where each limit of a problem stands among the columns."""

    def __init__(self, market: Market) -> None:
        problem, buckets = market.problem, market.buckets
        self.market = market
        self.cells = len(market) * buckets
        self.shared = len(problem.rows) * buckets
        self.names: list[tuple[Limit, str]] = [
            *((Limit.GROUP, name) for name in market.ids for _ in range(buckets)),
            *((Limit.SHARED, row.id) for row in problem.rows for _ in range(buckets)),
            *((Limit.BUDGET, each.id) for each in problem.budgets),
            *((Limit.QUOTA, each.id) for each in problem.quotas),
        ]
        self.most: Floats = np.concatenate(
            [
                market.count.ravel(),
                market.rows.ravel(),
                [market.budgets[each.id] for each in problem.budgets],
                [market.quotas[each.id] for each in problem.quotas],
            ]
        ).astype(np.float64)
        first = self.cells + self.shared
        self.budget = {each.id: first + at for at, each in enumerate(problem.budgets)}
        first += len(problem.budgets)
        self.quota = {each.id: first + at for at, each in enumerate(problem.quotas)}
        self.members: dict[int, list[tuple[int, int]]] = {}
        """Group → (capacity row, weight)."""
        for at, row in enumerate(problem.rows):
            for name, weight in row.members.items():
                if weight:
                    self.members.setdefault(market.index[name], []).append((at, weight))
        self.budgets = _places([ask.budgets for ask in problem.asks], self.budget)
        """By request, where its budgets stand."""
        self.quotas = _places([ask.quotas for ask in problem.asks], self.quota)
        """By request, where its quotas stand."""

    @property
    def plain(self) -> bool:
        """Every limit counts whatever its groups, or the requests that draw on it, take at the only time there is."""
        problem = self.market.problem
        windows = {(each.from_s, each.until_s) for each in problem.budgets}
        windows |= {(each.from_s, each.until_s) for each in problem.quotas}
        scoped = any(quota.groups is not None for quota in problem.quotas)
        return self.market.buckets == 1 and windows <= {(0, None)} and not scoped

    @cached_property
    def by_group(self) -> tuple[Ints, Ints]:
        """At one time, by group: where the capacity rows stand that it shares (−1: none), and its weight in each."""
        held = max((len(rows) for rows in self.members.values()), default=0)
        place, weight = np.full((len(self.market), held), -1), np.zeros((len(self.market), held), dtype=np.int64)
        for group, rows in self.members.items():
            for number, (row, each) in enumerate(rows):
                place[group, number], weight[group, number] = self.cells + row, each
        return place, weight

    @cached_property
    def budgets_of(self) -> Ints:
        """Requests × number: where its first budget stands, its second … (−1: none)."""
        return _numbered(self.budgets)

    @cached_property
    def quotas_of(self) -> Ints:
        """As ``budgets_of``, of quotas."""
        return _numbered(self.quotas)

    def of(self, ask: Ask, pieces: Sequence[Piece], span: tuple[int, int], start_s: int, end_s: int) -> dict[int, int]:
        """What one placement uses: limit → amount."""
        used: dict[int, int] = {}
        buckets = self.market.buckets

        def add(limit: int, amount: int) -> None:
            used[limit] = used.get(limit, 0) + amount

        for piece in pieces:
            for bucket in range(*span):
                add(piece.group * buckets + bucket, piece.units)
                for row, weight in self.members.get(piece.group, ()):
                    add(self.cells + row * buckets + bucket, weight * piece.units)
        for budget in self.market.budgets_of(ask):
            if budget.from_s <= start_s < _until(budget):
                add(self.budget[budget.id], sum(piece.cost for piece in pieces))
        for quota in self.market.quotas_of(ask):
            if end_s > quota.from_s and start_s < _until(quota):
                devices = sum(
                    piece.devices
                    for piece in pieces
                    if quota.groups is None or self.market.ids[piece.group] in quota.groups
                )
                if devices:
                    add(self.quota[quota.id], devices)
        return used


def usage(
    market: Market,
    columns: Mapping[str, Ints],
    several: Mapping[int, dict[int, int]],
) -> Usage:
    """The matrix from the columns of the pairs; ``several`` has the rows that take more than one group, made apart."""
    limits = Limits(market)
    if limits.plain and not several:
        return Plain(limits, columns)
    apart = np.zeros(len(columns["ask"]), dtype=np.bool_)
    apart[list(several)] = True
    layers = list(_layers(limits, columns, apart if several else None))
    return Sparse(limits, _stacked(layers, several, len(apart), len(limits.most)))


def _layers(limits: Limits, columns: Mapping[str, Ints], apart: Bools | None) -> Iterator[Layer]:
    market = limits.market
    buckets = market.buckets
    group, units = columns["group"], columns["units"]
    plain = None if apart is None else ~apart

    def both(mask: Bools | None) -> Bools | None:
        return plain if mask is None else mask if plain is None else mask & plain

    held = max((len(rows) for rows in limits.members.values()), default=0)
    rows = np.full((len(market), held, 2), -1, dtype=np.int64)
    for at, mine in limits.members.items():
        rows[at, : len(mine)] = mine
    for ahead in range(buckets):
        bucket = columns["bucket"] + ahead
        running = None if buckets == 1 else bucket < columns["until"]
        if running is not None and not running.any():
            break
        bucket = np.minimum(bucket, buckets - 1)
        yield both(running), group * buckets + bucket, units
        for number in range(held):
            row, weight = rows[group, number, 0], rows[group, number, 1]
            there = row >= 0 if running is None else running & (row >= 0)
            yield both(there), limits.cells + row * buckets + bucket, weight * units
    yield from ((both(mask), index, amount) for mask, index, amount in _allowances(limits, columns))


def _allowances(limits: Limits, columns: Mapping[str, Ints]) -> Iterator[Layer]:
    """Budgets and quotas; one layer for the first of every ask, one for the second, and so on."""
    market, problem = limits.market, limits.market.problem
    asks, when = problem.asks, None
    windows = [(each.from_s, each.until_s) for each in problem.budgets]
    windows += [(each.from_s, each.until_s) for each in problem.quotas]
    if market.buckets > 1 or any(window != (0, None) for window in windows):
        start = market.starts[columns["bucket"]]
        most = max((len(each.forms) for each in asks), default=0)
        seconds = [[lasting(each, min(form, len(each.forms))) for form in range(most + 1)] for each in asks]
        lasts = np.array(seconds, dtype=np.int64).reshape(len(asks), most + 1)
        when = start, start + lasts[columns["ask"], columns["form"]]
    first = limits.cells + limits.shared
    for number, limit in enumerate(limits.budgets_of.T):
        mask = None if number == 0 and bool((limit >= 0).all()) and when is None else limit[columns["ask"]] >= 0
        limit = limit[columns["ask"]]
        if mask is not None and when is not None:
            at = np.maximum(limit - first, 0)
            from_s, until_s = _windows(problem.budgets)
            mask &= (when[0] >= from_s[at]) & (when[0] < until_s[at])
        yield mask, limit, columns["cost"]
    first += len(problem.budgets)
    scopes = list(dict.fromkeys(quota.groups for quota in problem.quotas))
    scoped = scopes not in ([], [None])
    inside = np.stack([market.named(groups) for groups in scopes]) if scoped else np.ones((1, 1), dtype=np.bool_)
    place = {groups: at for at, groups in enumerate(scopes)}
    scope_of = np.array([place[quota.groups] for quota in problem.quotas], dtype=np.int64)
    for number, limit in enumerate(limits.quotas_of.T):
        every = number == 0 and bool((limit >= 0).all()) and when is None and not scoped
        mask = None if every else limit[columns["ask"]] >= 0
        limit = limit[columns["ask"]]
        at = np.maximum(limit - first, 0) if mask is not None else limit
        if mask is not None and when is not None:
            from_s, until_s = _windows(problem.quotas)
            mask &= (when[1] > from_s[at]) & (when[0] < until_s[at])
        if mask is not None and scoped:
            mask &= inside[scope_of[at], columns["group"]]
        yield mask, limit, columns["devices"]


def _places(lists: Sequence[tuple[str, ...]], at: Mapping[str, int]) -> list[list[int]]:
    """Where the names of each list stand, each once; thousands of lists are the same few."""
    known = {names: sorted({at[name] for name in names}) for names in set(lists)}
    return [known[names] for names in lists]


def _numbered(lists: Sequence[Sequence[int]]) -> Ints:
    """A row for each list, filled up with −1."""
    width = max((len(mine) for mine in lists), default=0)
    return np.array([[*mine, *[-1] * (width - len(mine))] for mine in lists], dtype=np.int64).reshape(len(lists), width)


def _windows(limits: Sequence[Budget | Quota]) -> tuple[Ints, Ints]:
    from_s = np.array([each.from_s for each in limits], dtype=np.int64)
    return from_s, np.array([_until(each) for each in limits], dtype=np.int64)


def _until(limit: Budget | Quota) -> int:
    return NO_CAP if limit.until_s is None else limit.until_s


def _stacked(layers: Sequence[Layer], several: Mapping[int, dict[int, int]], pairs: int, limits: int) -> Any:
    counts = np.zeros(pairs, dtype=np.int64)
    for mask, _, _ in layers:
        counts = counts + (1 if mask is None else mask.astype(np.int64))
    for row, used in several.items():
        counts[row] = len(used)
    ends: Ints = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    indices, data = np.empty(ends[-1], dtype=np.int32), np.empty(ends[-1], dtype=np.float64)
    filled = ends[:-1].copy()
    for mask, limit, amount in layers:
        rows = np.arange(pairs) if mask is None else np.flatnonzero(mask)
        indices[filled[rows]] = limit[rows]
        data[filled[rows]] = amount[rows]
        filled[rows] += 1
    for row, used in several.items():
        low, high = int(ends[row]), int(ends[row + 1])
        indices[low:high] = list(used)
        data[low:high] = list(used.values())
    return csr_array((data, indices, ends), shape=(pairs, limits))
