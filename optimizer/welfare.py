"""One goal, many pairs: from a plan and prices to a better plan and a tighter bound.

Six means, each leaving the plan valid and the bound certified:

* *Cores*: each ask's best few pairs at the prices, all asks together, by the exact solver; what the best of them leave
  to gain is most of what there is.
* *Neighbourhoods*: the asks around one contested limit are taken out of the plan and placed anew by the exact solver,
  all others staying where they are.
* *Fixing by reduced cost*: a pair whose regret at the prices is more than the whole gap is in no better plan. What
  is left of the pairs stands for all of them, so that the exact solver's bound on the rest is a bound on the whole.
* *Mixed integers* (``mixed.py``): HiGHS on what is left of the pairs, where somebody has the patience, in a process
  beside all the others; then its plan and ours together are a core.
* *Packing* (``packing.py``): with the assignment priced, every group is a knapsack of its own.
* *Knapsacks* (``knapsacks.py``): with groups and shared capacity priced, every tenant's budgets and quotas are a
  problem of its own, small enough to solve exactly; the sum is a bound that knows a budget cannot be spent to the last
  cent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optimizer import goals
from optimizer.cpsat import Model
from optimizer.effort import Effort
from optimizer.goals import Line
from optimizer.greedy import Plan, spent
from optimizer.knapsacks import sharing, tightened
from optimizer.ledger import Seats, bind
from optimizer.market import Ints
from optimizer.mixed import beside
from optimizer.packing import packed_bound
from optimizer.pairs import Pairs
from optimizer.prices import Prices
from optimizer.solution import Proof

WHOLE = 15_000
"""So many pairs the exact solver handles well at once …"""
WORTH_S = 1e-4
"""… where it has so many seconds for each."""
LAST = 0.3
"""Share of the time of somebody in a hurry that is left to neighbourhoods, whatever else there is to do."""
CORE = 12_000
"""Up to so many best pairs are solved together before neighbourhoods are tried."""
FIRST = (2, 4)
"""Pairs of each ask in such a core: few lead to most of the gain, and soon; more only where there is patience."""
HURRIED, UNHURRIED = 0.5, 0.1
"""Share of the time that a core gets."""
BESIDE, CROSSED = 0.75, 0.7
"""Share of the time that the mixed-integer solver gets, and of the rest that its plan and ours get together."""
MIXED = 120_000
"""So many pairs the mixed-integer solver handles in the time that somebody with patience has …"""
PATIENT = 2.0
"""… which is, at the least, so many seconds left."""
LOOK_S = 4e-8
"""Seconds for each pair that a first look at all of them takes: whoever has no more leaves it."""
PACKING = 0.1
"""Share of the time that packing may take: where groups are many and large it tells least and takes longest."""
AROUND, AROUND_PATIENT = 150, 500
"""Asks in a neighbourhood: small ones lead on soon, larger ones further."""
BEST = 8
"""Pairs of each ask that a neighbourhood looks at, the best at the prices."""
IN_VAIN = 60
"""Neighbourhoods without a gain after which to stop."""
AGAIN = 1.0
"""Deterministic seconds for one neighbourhood."""


@dataclass(frozen=True)
class Ranked:
    """The best pairs of each ask at the prices, asks in order, the best first."""

    order: Ints
    rank: Ints
    start: Ints
    """Those of ask i are order[start[i]:start[i + 1]]."""

    def of(self, ask: int) -> list[int]:
        """The pairs of one ask."""
        best: list[int] = self.order[self.start[ask] : self.start[ask + 1]].tolist()
        return best


@dataclass
class Improvement:
    """A plan and what is proved about it, getting better."""

    pairs: Pairs
    before: Sequence[Line]
    """Goals that come first; the plan loses nothing in them."""
    line: Line
    prices: Prices
    plan: Plan
    bound: int
    heard: Callable[[str], None] = lambda _: None
    """Is told the stage whenever the plan or the bound has become better."""
    proof: Proof = Proof.PRICES
    solves: int = 0
    modelled: int = 0
    work: float = 0.0

    @property
    def value(self) -> int:
        """Of the plan."""
        return self.line.of(self.plan)

    @property
    def proved(self) -> bool:
        """Whether nothing is left to gain."""
        return self.value >= self.bound

    def run(self, left: Callable[[], float], effort: Effort) -> str:
        """All means in turn while time lasts; the name of the last."""
        if left() <= LOOK_S * len(self.pairs):
            return "prices"
        if not self.proved:
            until = left() * (1 - PACKING)
            self._prove(packed_bound(self.pairs, self.prices, lambda: left() - until), Proof.PACKING)
            self.heard("prices")
        if self.proved or left() <= 0:
            return "prices"
        ranked = _ranked(self.pairs, self.prices)
        if effort.deterministic is None and left() > PATIENT:
            return self._patiently(ranked, left, effort)
        total, stage = left(), "neighbourhoods"
        # Where budgets bind, each request's best few pairs rarely add up to what is left of them: a core says little.
        if not np.any(self.prices.vector[self.pairs.usage.hard :] > 0) and self._cored(
            ranked, FIRST[0], replace(effort, seconds=total * HURRIED)
        ):
            stage = "core"
        if not self.proved and left() > 0 and self._closed(left, effort):
            stage = "exact"
        if not self.proved and left() > 0:
            stage = "knapsacks"
            self._knapsacks(lambda: left() - LAST * total, effort)
        if not self.proved and left() > 0:
            self._neighbourhoods(ranked, left, effort)
        return stage

    def _patiently(self, ranked: Ranked, left: Callable[[], float], effort: Effort) -> str:
        """With the mixed-integer solver in a process beside."""
        total, more = left(), FIRST[-1]
        kept, stage = self._open(), "neighbourhoods"
        if len(kept) <= MIXED:
            before = [(line.coefficient, line.of(self.plan)) for line in self.before]
            step = replace(effort, seconds=left() * BESIDE)
            with beside(self.pairs, kept, self.line.coefficient, before, step) as other:

                def meanwhile() -> float:
                    return 0.0 if other.done else left()

                for first in FIRST:
                    self._cored(ranked, first, replace(effort, seconds=min(meanwhile(), total * UNHURRIED)))
                self._knapsacks(meanwhile, effort)
                self._all_the_rest(ranked, meanwhile, effort)
                found = None if self.proved else other.answer(left())
            stage = "mixed-integer"
            if found is not None:
                self.solves += 1
                own = set(self.plan)
                self._adopt(frozenset(found.plan), {pair: seats for pair, seats in found.plan.items() if seats})
                if not self.pairs.partial and found.bound < self.bound:
                    self._prove(math.ceil(found.bound), Proof.MIXED)
                    self.heard("mixed-integer")
                self._cored(ranked, more, replace(effort, seconds=left() * CROSSED), own | set(found.plan))
        else:
            for first in FIRST:
                self._cored(ranked, first, replace(effort, seconds=total * UNHURRIED))
            self._knapsacks(left, effort)
        if self._all_the_rest(ranked, left, effort):
            stage = "exact"
        return stage

    def _all_the_rest(self, ranked: Ranked, left: Callable[[], float], effort: Effort) -> bool:
        """What needs no other process; whether all that is open was small enough to be solved at once."""
        closed = not self.proved and left() > 0 and self._closed(left, effort)
        if not self.proved and left() > 0:
            self._neighbourhoods(ranked, left, effort)
        return closed

    def _prove(self, bound: int, proof: Proof) -> None:
        if (bound := max(bound, self.value)) < self.bound:
            self.bound, self.proof = bound, proof

    def _cored(self, ranked: Ranked, first: int, effort: Effort, also: Collection[int] = ()) -> bool:
        """The ``first`` best pairs of each ask, and the plan's own, solved at once, where these are few enough."""
        core = np.union1d(ranked.order[ranked.rank < first], np.array(sorted({*self.plan, *also}), dtype=np.int64))
        if len(core) > CORE or self.proved or effort.seconds <= 0:
            return False
        self._exact(core, effort, whole=False)
        return True

    def _closed(self, left: Callable[[], float], effort: Effort) -> bool:
        """All that a better plan could hold, solved at once, where that is little enough for the time."""
        kept = self._open()
        if len(kept) > min(WHOLE, left() / WORTH_S):
            return False
        self._exact(kept, replace(effort, seconds=left() * 0.7), whole=True)
        return True

    def _open(self) -> Ints:
        """Pairs that a better plan than this one could hold."""
        best = self.prices.margins()[self.pairs.ask]
        gap = self.prices.bound - self.value
        keep = best - self.prices.reduced <= gap * (1 + 1e-9) + 1
        keep[list(self.plan)] = True
        return np.flatnonzero(keep)

    def _exact(self, kept: Ints, effort: Effort, *, whole: bool) -> None:
        model = Model(self.pairs, kept)
        for line in self.before:
            model.require(line, line.of(self.plan))
        self.modelled = len(kept)
        found = model.solve(self.line.coefficient, self.plan, effort)
        self.solves += 1
        self.work += found.work
        if found.chosen is not None:
            self._adopt(frozenset(found.chosen), found.nodes)
            if whole and model.exact and not self.pairs.partial:
                self._prove(found.best, Proof.EXACT)
                self.heard("exact")

    def _neighbourhoods(self, ranked: Ranked, left: Callable[[], float], effort: Effort) -> None:
        dice = np.random.default_rng(effort.seed)
        vain = 0
        many = AROUND_PATIENT if effort.deterministic is None and left() > PATIENT else AROUND
        for asks in _around(self.pairs, self.prices, dice, many):
            if left() <= 0 or self.proved or vain >= IN_VAIN:
                return
            vain = 0 if self._again(asks, ranked, left(), effort) else vain + 1

    def _again(self, asks: Ints, ranked: Ranked, seconds: float, effort: Effort) -> bool:
        """Place these asks anew beside the others; whether that was better."""
        chosen = np.array(list(self.plan), dtype=np.int64)
        own = {pair: self.plan[pair] for pair in chosen[np.isin(self.pairs.ask[chosen], asks)].tolist()}
        ledger = spent(self.pairs, {pair: seats for pair, seats in self.plan.items() if pair not in own})
        choice = [pair for ask in asks.tolist() for pair in ranked.of(ask)]
        kept = np.array(sorted({*choice, *own}), dtype=np.int64)
        model = Model(self.pairs, kept, ledger)
        for line in self.before:
            model.require(line, line.of(own))
        step = replace(effort, seconds=seconds, deterministic=effort.deterministic or AGAIN)
        found = model.solve(self.line.coefficient, own, step)
        self.solves += 1
        self.work += found.work
        if found.chosen is None or self.line.of(found.chosen) <= self.line.of(own):
            return False
        named = {pair: seats for pair, seats in self.plan.items() if pair not in own and seats}
        return self._adopt(frozenset(found.chosen | (set(self.plan) - set(own))), {**named, **found.nodes})

    def _adopt(self, chosen: frozenset[int], named: Mapping[int, Seats]) -> bool:
        seats = bind(self.pairs, chosen, named)
        lines = (*self.before, self.line)
        if seats is None or goals.score(lines, chosen) <= goals.score(lines, self.plan):
            return False
        self.plan = {pair: seats.get(pair, ()) for pair in sorted(chosen)}
        self.heard("improvement")
        return True

    def _knapsacks(self, left: Callable[[], float], effort: Effort) -> None:
        if self.proved or left() <= 0:
            return
        for found in tightened(self.pairs, self.prices, self.plan, left, effort):
            self.solves += found.solves
            self.work += found.work
            self._prove(found.bound, Proof.KNAPSACKS)
            self.heard("knapsacks")


def _ranked(pairs: Pairs, prices: Prices) -> Ranked:
    rest = prices.reduced
    margin, worth = prices.margins(), prices.market.margins(prices.market.profit)
    good = np.zeros(len(pairs), dtype=np.bool_)
    good[prices.market.near(rest, margin - 0.2 * worth)] = True
    good[(pairs.start[:-1, None] + np.arange(BEST))[np.arange(BEST) < np.diff(pairs.start)[:, None]]] = True
    order = np.flatnonzero(good)
    order = order[np.lexsort((-rest[order], pairs.ask[order]))]
    rank = np.arange(len(order)) - np.searchsorted(pairs.ask[order], pairs.ask[order])
    order, rank = order[rank < BEST], rank[rank < BEST]
    start = np.searchsorted(pairs.ask[order], np.arange(len(pairs.asks) + 1))
    return Ranked(order=order, rank=rank.astype(np.int64), start=start.astype(np.int64))


def _around(pairs: Pairs, prices: Prices, dice: np.random.Generator, many: int) -> Iterator[Ints]:
    """For ever: the asks around one limit that has a price, those nearest to indifference first."""
    buckets, asks = pairs.market.buckets, pairs.asks
    margin = prices.margins()
    worth = np.maximum(prices.market.margins(prices.market.profit), 1.0)
    together = [asks for asks in sharing(pairs) if len(asks) > 1]
    dear = np.unique(np.flatnonzero(prices.vector[: pairs.usage.cells] > 0) // buckets)
    while True:
        if together and dice.random() < 0.5:
            near = together[int(dice.integers(len(together)))]
        elif len(dear):
            near = pairs.ask[np.flatnonzero(pairs.group == dear[dice.integers(len(dear))])]
        else:
            near = np.arange(len(asks))
        doubt = margin[near] / worth[near] + dice.random(len(near)) * 0.5
        yield np.sort(near[np.argsort(doubt, kind="stable")[:many]])
