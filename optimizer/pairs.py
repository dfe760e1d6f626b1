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

from optimizer.columns import Columns, after, joined, ordered
from optimizer.filter import eligible
from optimizer.market import Bools, Ints, Market
from optimizer.problem import Aim, Ask, Confidential, Group, Problem
from optimizer.staying import alone, beside, rows, seats
from optimizer.usage import Limits, Piece, Usage, usage
from optimizer.variants import Variants, lasting, shape, variants

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
    def columns(self) -> Columns:
        """All of them, by name."""
        return {name: getattr(self, name) for name in NAMES}

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


def compile_pairs(problem: Problem, before: Pairs | None = None, *, spend: bool = False) -> Pairs:
    """Judge every cell and keep the eligible ones, with what keeps running leases where they are.

    ``before`` are the pairs of a similar problem; what is the same there is not judged again. ``spend``: nobody needs
    them afterwards, and their memory is used again.
    """
    from optimizer.bundles import bundled, standing  # these add to pairs what this file makes
    from optimizer.memory import familiar, spliced

    problem = replace(
        problem,
        groups=tuple(sorted(problem.groups, key=lambda group: (group.price_micros, group.id))),
        asks=tuple(sorted(problem.asks, key=lambda ask: ask.id)),
    )
    market = Market(problem)
    places = familiar(before, market)
    if before is None or places is None:
        columns, stays = _judged(market, problem.asks)
    else:
        unknown = [problem.asks[at] for at in np.flatnonzero(places < 0)]
        columns, stays = spliced(before, *_judged(market, unknown), places, spend=spend)
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
    return joined(parts, NAMES), np.concatenate(stays)


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
    count = 0 if more is None else len(more["ask"])
    if more is not None:
        columns = after({**more, "ask": more["ask"] + low}, columns)
    order = best_first(columns, market.aim)
    return ordered(columns, order), np.arange(count) if order is None else np.flatnonzero(order < count)


def _free(market: Market, those: Variants, row: Ints, group: Ints) -> Ints:
    """Units offered by the group, in the bucket with the least, while it would run."""
    if market.buckets == 1:
        return market.offered[:, 0][group]
    spans = list(zip(np.maximum(those.bucket, 0).tolist(), those.until.tolist(), strict=True))
    return market.gather("offered", spans, market.least_offered)[row, group]
