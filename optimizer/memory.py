"""What one solve leaves for the next: pairs that need no second judgement.

A queue changes by a few requests at a time. Where a request, every offer, and the budgets and quotas it draws on are
as they were, its cells would be judged as they were; so its pairs are taken over as they lie, and only the others are
made anew. Nothing is decided here: with a memory or without one the pairs are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.columns import SPARE, Columns, copied, numbered, renewed
from optimizer.market import Floats, Ints, Market
from optimizer.pairs import Pairs
from optimizer.problem import Ask
from optimizer.staying import alone


@dataclass
class Memory:
    """For one line of similar problems, solved one after the other. It holds the last one's pairs: at 20,000 requests
    and 2,000 groups half a gigabyte. Each solve takes that memory over, since new memory is what takes time."""

    pairs: Pairs | None = None
    worn: Floats | None = None
    """An array of about as many numbers as there are pairs; nobody reads it any more."""

    def taken(self) -> Pairs | None:
        """The last one's pairs, for good."""
        pairs, self.pairs = self.pairs, None
        return pairs

    def lent(self, length: int) -> Floats:
        """So many numbers of whatever value, until the next solve."""
        if self.worn is None or len(self.worn) < length:
            self.worn = np.empty(length + length // SPARE)
        return self.worn[:length]


def familiar(before: Pairs | None, market: Market) -> Ints | None:
    """For each request its place among those of before, if all its cells are judged alike, else −1; None: none is."""
    if before is None or not _alike(before.market, market):
        return None
    asks = market.problem.asks
    if any(map(_in_several, before.asks)) or any(map(_in_several, asks)):
        return None
    changed = _changed(before.market, market)
    index = {ask.id: at for at, ask in enumerate(before.asks)}
    places = np.full(len(asks), -1, dtype=np.int64)
    for number, ask in enumerate(asks):
        at = index.get(ask.id, -1)
        same = at >= 0 and (before.asks[at] is ask or before.asks[at] == ask)
        if same and (not changed or changed.isdisjoint((*ask.budgets, *ask.quotas))):
            places[number] = at
    return places if (places >= 0).any() else None


def spliced(before: Pairs, fresh: Columns, stays: Ints, places: Ints, *, spend: bool) -> tuple[dict[str, Ints], Ints]:
    """The columns of all requests, and which of their pairs leave a lease where it is.

    ``fresh`` and ``stays`` are the same of those requests alone that have no place, which are counted from 0.
    ``spend``: nobody needs the pairs of before any more.
    """
    new = places < 0
    begins = np.searchsorted(fresh["ask"], np.arange(int(new.sum()) + 1))
    number = np.where(new, np.cumsum(new) - 1, places)
    low, high = np.empty_like(number), np.empty_like(number)
    low[new], high[new] = begins[:-1], begins[1:]
    low[~new], high[~new] = before.start[:-1][places[~new]], before.start[1:][places[~new]]
    # Neighbours that were neighbours are copied as one.
    first = np.flatnonzero(np.diff(new, prepend=~new[0]) | (np.diff(number, prepend=-2) != 1))
    last = np.append(first[1:], len(places)) - 1
    runs = list(zip(new[first].astype(int).tolist(), low[first].tolist(), high[last].tolist(), strict=True))
    begin = np.cumsum(high - low) - (high - low)
    now = np.full(len(before.asks), -1, dtype=np.int64)
    now[places[~new]] = np.flatnonzero(~new)
    kept = np.array(list(before.keeps), dtype=np.int64)
    kept = kept[now[before.ask[kept]] >= 0]
    own = fresh["ask"][stays]
    staying = np.sort(
        np.concatenate(
            (
                begin[now[before.ask[kept]]] + kept - before.start[before.ask[kept]],
                begin[np.flatnonzero(new)[own]] + stays - begins[own],
            )
        )
    )
    old, fresh = ({name: each for name, each in table.items() if name != "ask"} for table in (before.columns, fresh))
    columns = renewed(old, fresh, runs) if spend else copied((old, fresh), runs)
    nowhere = np.zeros(0, dtype=np.int64)
    return columns | {"ask": numbered(high - low, into=before.ask if spend else nowhere)}, staying


def _alike(old: Market, new: Market) -> bool:
    """Whether all that is not about a single request is as it was, and what leases hold that must stay."""
    one, other = old.problem, new.problem
    return (
        (one.aim, one.starts, one.groups, one.rows) == (other.aim, other.starts, other.groups, other.rows)
        and np.array_equal(old.count, new.count)
        and np.array_equal(old.nodes, new.nodes)
        and np.array_equal(old.rows, new.rows)
    )


def _in_several(ask: Ask) -> bool:
    """Not all its ways are in single groups."""
    return ask.split > 1 or (ask.running is not None and not alone(ask))


def _changed(old: Market, new: Market) -> frozenset[str]:
    """Ids of the budgets and quotas that are not what they were."""
    found = set()
    for one, other in ((old.problem.budgets, new.problem.budgets), (old.problem.quotas, new.problem.quotas)):
        before = {each.id: each for each in one}
        found |= {each.id for each in other if before.get(each.id) != each}
    found |= {name for name, left in new.budgets.items() if old.budgets.get(name) != left}
    return frozenset(found | {name for name, left in new.quotas.items() if old.quotas.get(name) != left})
