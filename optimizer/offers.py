"""Why an offer is not used, or not all of it: the question of refusals, asked from the lender's side.

Only requests that got nothing are asked: the others have something better. For each offer with units left it is
counted what keeps each of them away, and the smallest cut of its price that would bring one.
"""

from __future__ import annotations

import numpy as np

from optimizer.grid import Bytes, Seen
from optimizer.ledger import Ledger
from optimizer.market import Bools, Floats, Ints
from optimizer.pairs import Pairs
from optimizer.solution import Idle, Why

DEAR = (Why.PRICE_CAP, Why.TIER_PRICE, Why.VALUE)
"""Predicates that a lower price could lift."""


class Offers:
    """What the unplaced requests, slice by slice, say about the groups that have units left."""

    def __init__(self, pairs: Pairs, ledger: Ledger, chosen: Bools, reduced: Floats | None) -> None:
        self._pairs = pairs
        self._free = ledger.units_left()
        self._which = np.flatnonzero(self._free > 0)
        self._asks = 0
        self._eligible = np.zeros(len(self._which), dtype=np.int64)
        self._removed: dict[Why, Ints] = {}
        self._cut: Floats = np.full(len(pairs.groups), np.inf)
        if reduced is not None and len(pairs):
            self._from_prices(chosen, reduced)

    def _from_prices(self, chosen: Bools, reduced: Floats) -> None:
        """Whom the clearing prices keep away: the cut that makes up for it."""
        pairs = self._pairs
        mine = np.flatnonzero(~chosen[pairs.ask] & (reduced < 0))
        hours = np.array([ask.duration_s for ask in pairs.asks], dtype=np.float64)[pairs.ask[mine]] / 3600
        np.minimum.at(self._cut, pairs.group[mine], -reduced[mine] / (pairs.devices[mine] * hours))

    def see(self, seen: Seen) -> None:
        """What is said of these requests."""
        if not len(self._which):
            return
        self._asks += len(seen.asks)
        self._eligible += self._summed(seen, seen.spared())
        for bit, mask in seen.bits.items():
            self._removed[bit] = self._removed.get(bit, 0) + self._summed(seen, mask)
        for bit in DEAR:
            if bit in seen.bits:
                row, at = np.nonzero(seen.among(seen.alone(bit))[:, self._which])
                if len(row):
                    self._dear(bit, seen, row, self._which[at])

    def _summed(self, seen: Seen, bits: Bytes) -> Ints:
        """In how many rows each of the groups with units left is marked."""
        # There are no more rows than fit into a byte.
        sums: Ints = seen.among(bits).view(np.uint8).sum(axis=0, dtype=np.uint8)[self._which].astype(np.int64)
        return sums

    def _dear(self, bit: Why, seen: Seen, row: Ints, group: Ints) -> None:
        wants = seen.asks
        total = np.array([want.total for want in wants], dtype=np.float64)[row]
        devices = seen.at(seen.devices, row, group)
        if bit is Why.VALUE:
            hours = np.array([want.duration_s / 3600 for want in wants])[row]
            worth = np.array([want.value_micros or 0 for want in wants], dtype=np.float64)[row]
            cut = (seen.at(seen.cost, row, group) - worth) / (devices * hours)
        else:
            caps = np.array([want.price_cap_micros or 0 for want in wants], dtype=np.float64)[row]
            cap = caps if bit is Why.PRICE_CAP else seen.at(seen.tier_cap, row, group)
            cut = (seen.at(seen.price, row, group) - cap) * total / devices
        np.minimum.at(self._cut, group, cut)

    def idle(self) -> dict[str, Idle]:
        """For each group with units left."""
        pairs, found = self._pairs, {}
        removed = [(bit, counts.tolist()) for bit, counts in sorted(self._removed.items())]
        price = pairs.market.price[:, 0].tolist()
        for at, (group, eligible) in enumerate(zip(self._which.tolist(), self._eligible.tolist(), strict=True)):
            cut = self._cut[group]
            whole = int(np.ceil(cut)) if np.isfinite(cut) else None
            found[pairs.groups[group].id] = Idle(
                free=int(self._free[group]),
                asks=self._asks,
                eligible=eligible,
                removed={bit: counts[at] for bit, counts in removed if counts[at]},
                cut_micros=whole if whole is not None and whole <= price[group] else None,
            )
        return found
