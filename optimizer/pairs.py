"""What the solvers choose from: every way to place every request, as columns.

A *pair* is a request and one way to place it: a group, in one form, from one start. A request that may be split also
has ways that take several groups (``bundles.py``), and a lease that runs has one that leaves it where it is. At most
one pair of a request is chosen.

Groups are put in order of price and requests in order of their ids first, so that the same problem in another order
has the same answer. The pairs of a request lie together, best first by what matters to it alone: tier, confidential
where preferred, cost, tightness of fit. A greedy takes the first that still fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from optimizer.filter import Variants, eligible, lasting, shape, variants
from optimizer.market import Bools, Ints, Market
from optimizer.problem import Aim, Ask, Confidential, Group, Problem
from optimizer.staying import alone, beside, rows, seats
from optimizer.usage import Limits, Piece, Usage, usage

SLICE = 1_000_000
"""Cells judged at a time: about 50 MB."""
NAMES = ("ask", "group", "units", "devices", "cost", "loss", "tier", "plain", "slack", "form", "bucket", "until")
ZERO = np.zeros(1, dtype=np.int64)


@dataclass(frozen=True)
class Pairs:
    """Columns of equal length, one entry for each pair, and where each request's pairs begin."""

    problem: Problem
    """In canonical order; indices below refer to it."""
    market: Market
    ask: Ints
    group: Ints
    """Of several, the first."""
    units: Ints
    """Of all workers."""
    devices: Ints
    cost: Ints
    loss: Ints
    """µUSD beside the cost that nobody is paid: expected reclaims, waiting, being moved."""
    tier: Ints
    plain: Ints
    """1 where the request prefers confidential and the group is not."""
    slack: Ints
    """Units the group would have left, taken alone: less is tighter."""
    form: Ints
    bucket: Ints
    """In which it starts …"""
    until: Ints
    """… and the first in which it does not run any more."""
    start: Ints
    """Pairs of ask i are start[i]:start[i + 1]."""
    several: Mapping[int, tuple[Piece, ...]]
    """What each group gives, for pairs that take more than one."""
    keeps: Mapping[int, tuple[tuple[int, int], ...]]
    """Pairs that leave a running lease where it is → (group, node) of each worker, where its workers have nodes."""
    usage: Usage
    partial: bool
    """Some request that may be split has more ways than are listed here."""

    @property
    def asks(self) -> tuple[Ask, ...]:
        return self.problem.asks

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.problem.groups

    @cached_property
    def same_node(self) -> Bools:
        """Which requests want each worker on one node."""
        return np.array([ask.same_node for ask in self.asks], dtype=np.bool_)

    @cached_property
    def splits(self) -> Bools:
        """Which requests may take several groups."""
        return np.array([ask.split > 1 for ask in self.asks], dtype=np.bool_)

    @cached_property
    def must(self) -> Bools:
        """Which requests are leases that must not be ended."""
        return np.array(
            [ask.running is not None and ask.running.end_micros is None for ask in self.asks], dtype=np.bool_
        )

    @cached_property
    def having(self) -> Ints:
        """The requests that have a pair."""
        return np.flatnonzero(np.diff(self.start))

    def __len__(self) -> int:
        return len(self.ask)

    def of(self, ask: int) -> range:
        """The pairs of one request, best first."""
        return range(int(self.start[ask]), int(self.start[ask + 1]))

    def pieces(self, pair: int) -> tuple[Piece, ...]:
        """What each group gives to it."""
        if pair in self.several:
            return self.several[pair]
        ask = self.asks[int(self.ask[pair])]
        workers = shape(ask, int(self.form[pair]))[1]
        return (
            Piece(
                group=int(self.group[pair]),
                workers=workers,
                units=int(self.units[pair]),
                devices=int(self.devices[pair]),
                cost=int(self.cost[pair]),
            ),
        )


def compile_pairs(problem: Problem) -> Pairs:
    """Judge every cell and keep the eligible ones, with what keeps running leases where they are."""
    from optimizer.bundles import bundled, standing  # they add to pairs what this file makes

    problem = replace(
        problem,
        groups=tuple(sorted(problem.groups, key=lambda group: (group.price_micros, group.id))),
        asks=tuple(sorted(problem.asks, key=lambda ask: ask.id)),
    )
    market = Market(problem)
    columns, stays = _judged(market, problem.asks)
    keeps = {int(pair): seats(market, problem.asks[columns["ask"][pair]]) for pair in stays}
    pairs = assembled(problem, market, columns, {}, keeps, partial=False)
    if any(ask.split > 1 or (ask.running is not None and not alone(ask)) for ask in problem.asks):
        pairs = bundled(pairs)
    return standing(pairs)


def _judged(market: Market, asks: Sequence[Ask]) -> tuple[dict[str, Ints], Ints]:
    """The columns of all pairs of these requests (``ask`` counts from the first of them), and which of these pairs
    leave a lease where it is."""
    parts, stays, begins = [], [np.zeros(0, dtype=np.int64)], 0
    for low, high in _slices(market, len(asks)):
        part, staying = _part(market, asks[low:high], low)
        parts.append(part)
        stays.append(staying + begins)
        begins += len(part["ask"])
    # Columns that are one array in every slice (devices are units, mostly) stay one.
    # One after the other, since memory that is given back is had again for nothing and new memory is not.
    columns: dict[str, Ints] = {}
    for name in NAMES:
        if name in columns:
            continue
        alike = [other for other in NAMES if all(part.get(other) is part[name] for part in parts)]
        whole = _joined([part[name] for part in parts])
        for other in alike:
            columns[other] = whole
            for part in parts:
                del part[other]
    return columns, np.concatenate(stays)


def assembled(
    problem: Problem,
    market: Market,
    columns: Mapping[str, Ints],
    several: Mapping[int, tuple[Piece, ...]],
    keeps: Mapping[int, tuple[tuple[int, int], ...]],
    *,
    partial: bool,
) -> Pairs:
    """Pairs from columns that are in order of requests."""
    limits = Limits(market) if several else None
    used = {}
    for pair, pieces in several.items():
        assert limits is not None
        ask, form = problem.asks[int(columns["ask"][pair])], int(columns["form"][pair])
        span = int(columns["bucket"][pair]), int(columns["until"][pair])
        start = int(market.starts[span[0]])
        used[pair] = limits.of(ask, pieces, span, start, start + lasting(ask, form))
    return Pairs(
        problem=problem,
        market=market,
        **{name: columns[name] for name in NAMES},
        start=np.searchsorted(columns["ask"], np.arange(len(problem.asks) + 1)).astype(np.int64),
        several=several,
        keeps=keeps,
        usage=usage(market, columns, used),
        partial=partial,
    )


def best_first(columns: Mapping[str, Ints], aim: Aim) -> Ints | None:
    """The order in which pairs lie: by request, and each request's by what matters to it; None: as they are."""
    ask, amount = columns["ask"], columns["cost"] + columns["loss"]
    if not len(ask):
        return None
    wish = ZERO if aim is Aim.WELFARE else 2 * columns["tier"] + columns["plain"]
    if wish.any():
        return np.lexsort((columns["slack"], amount, wish, ask))
    if aim is not Aim.WELFARE:
        return np.lexsort((columns["slack"], amount, ask))
    # An amount is below 2^52, a slice holds fewer than 2^11 requests: one key, and often in order already.
    low, most = int(ask.min()), int(amount.max())
    if int(ask.max()) - low >= 2**11 or most >= 2**52:
        return np.lexsort((amount, ask))
    key = ((ask - low) << 52) | amount
    return None if bool((key[1:] >= key[:-1]).all()) else np.argsort(key, kind="stable")


def _slices(market: Market, asks: int) -> list[tuple[int, int]]:
    step = min(2**11 - 1, max(1, SLICE // max(1, len(market) * market.buckets)))
    return [(low, min(low + step, asks)) for low in range(0, asks, step)]


def _part(market: Market, asks: Sequence[Ask], low: int) -> tuple[dict[str, Ints], Ints]:
    those = variants(market, asks)
    row, group, cells = eligible(market, those)
    choice = beside(market, asks, those.ask[row], group, those.workers[row])
    if choice is not None:
        row, group, cells = row[choice], group[choice], cells.only(choice)
    prefers = np.array([ask.confidential is Confidential.PREFER for ask in those.each()], dtype=np.bool_)
    zero = np.broadcast_to(np.int64(0), row.shape)
    tier = zero
    if any(ask.tiers for ask in asks):
        ranks = market.gather(
            "tiers", [ask.tiers for ask in those.each()], lambda tiers: np.stack(market.ranked(tiers))
        )
        tier = ranks[:, 0][row, group]
    one = market.buckets == 1
    simple = bool((those.form == 0).all())
    columns = {
        "ask": those.ask[row] + low,
        "group": group,
        "units": cells.units,
        "devices": cells.devices,
        "cost": cells.cost,
        "loss": cells.loss,
        "tier": tier,
        "plain": (prefers[row] & ~market.confidential[group]).astype(np.int64) if prefers.any() else zero,
        "slack": zero if market.aim is Aim.WELFARE else np.maximum(0, _free(market, those, row, group) - cells.units),
        "form": zero if simple else those.form[row],
        "bucket": zero if one else those.bucket[row],
        "until": np.broadcast_to(np.int64(1), row.shape) if one else those.until[row],
    }
    more = rows(market, asks) if choice is not None else None
    if more is not None:
        columns = _with_rows({**more, "ask": more["ask"] + low}, columns)
    order = best_first(columns, market.aim)
    ordered: dict[int, Ints] = {}
    for each in columns.values():
        if id(each) not in ordered:
            ordered[id(each)] = _ordered(each, order)
    count = 0 if more is None else len(more["ask"])
    stays = np.arange(count) if order is None else np.flatnonzero(order < count)
    return {name: ordered[id(each)] for name, each in columns.items()}, stays


def _with_rows(more: Mapping[str, Ints], columns: Mapping[str, Ints]) -> dict[str, Ints]:
    """The columns with some rows before them; what is one number everywhere, or one array, stays so where it can."""
    whole: dict[str, Ints] = {}
    for name, each in columns.items():
        same = next((old for old in whole if columns[old] is each and bool((more[old] == more[name]).all())), None)
        if same is not None:
            whole[name] = whole[same]
        elif len(each) and each.strides == (0,) and bool((more[name] == each[0]).all()):
            whole[name] = np.broadcast_to(each[0], (len(more[name]) + len(each),))
        else:
            whole[name] = np.concatenate((more[name], each))
    return whole


def _free(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
    """Units offered by the group, in the bucket with the least, while it would run."""
    if market.buckets == 1:
        return market.offered[:, 0][group]
    spans = list(zip(np.maximum(those.bucket, 0).tolist(), those.until.tolist(), strict=True))
    return market.gather("offered", spans, market.least_offered)[row, group]


def _ordered(values: Ints, order: Ints | None) -> Ints:
    return values if order is None or values.strides == (0,) else values[order]


def _joined(parts: list[Ints]) -> Ints:
    """One column of its slices; what is the same everywhere stays one number in memory."""
    if not parts:
        return np.zeros(0, dtype=np.int64)
    filled = [part for part in parts if len(part)]
    if filled and all(part.strides == (0,) for part in filled) and len({int(part[0]) for part in filled}) == 1:
        return np.broadcast_to(filled[0][:1].copy()[0], (sum(len(part) for part in parts),))
    return np.concatenate(parts)
