"""What every scarce thing is worth: prices that make the market clear, and a bound that no plan can pass.

Put a price on each limit (units of a group, a shared capacity, a budget's dollars, a quota's devices) and let every ask
take its best pair at those prices, or none. Whatever the prices, what the asks then gain plus what the limits then earn
is at least the value of any plan that keeps the limits: Lagrangian duality. The bound is therefore certified by one
pass over all pairs, however the prices were found, and good prices make it tight.

They are found by an accelerated gradient on a smoothed version, where an ask spreads over its nearly-best pairs instead
of jumping between them (Nesterov 2005, entropic smoothing), with the smoothing made smaller step by step and a step
length for each price of its own. Most pairs are never near an ask's best; steps look only at those that are, and every
few steps the whole is looked at again. A large market is priced by a sample of its asks first, with as small a share of
every limit: what a sample pays is nearly what all pay, and the whole then starts where few pairs are near.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from optimizer.columns import BLOCK
from optimizer.market import Bools, Floats, Ints
from optimizer.pairs import Pairs
from optimizer.solution import Limit

SMOOTH = (0.1, 0.7, 0.01, 0.001)
"""How far an ask spreads over pairs, as a share of its best profit: at first, what is kept of it from stage to stage,
at first with prices from before, and at the least."""
SAMPLED = 1_500_000
"""Above so many pairs a sample of about so many is priced first …"""
ROUGHLY = 0.05
"""… down to this smoothing, with which the whole then starts: sharper prices would fit the sample and not the whole."""
ENOUGH = 1e-4
"""A stage at the least smoothing that gains less than this share of the bound is the last."""
NEAR = (0.03, 6, 10)
"""A pair is near where it is worth less than its request's best by no more than so many times the smoothing: above
this much smoothing, and below. What is left out weighs little, but a request may have hundreds of such pairs."""
PASSES = 6
"""A first stage takes about as long as so many looks at all pairs; it is not begun where less time is left."""
CAUTION = 3.0
"""Steps are so much shorter than the curvature says, since it changes on the way."""
STEPS = (8, 32)
"""Fewest and most steps of one stage …"""
WORK = 8_000_000
"""… between which a stage looks at about so many pairs: early stages look at nearly all, so they get few steps."""


@dataclass(frozen=True)
class Prices:
    """Prices of all limits, in units of the profit per unit of the limit, and what they prove."""

    vector: Floats
    """In the order of the usage's columns."""
    bound: float
    """No plan has a higher profit."""
    reduced: Floats
    """Of each pair: its profit less what it uses at these prices."""
    market: Clearing
    rounds: int

    @property
    def whole_bound(self) -> int:
        """The bound for profits in whole units, with room for what floating-point sums may have lost."""
        return math.floor(self.bound * (1 + 1e-9) + 1e-6) + self.market.rounding

    def by_limit(self) -> dict[tuple[Limit, str], float]:
        """The prices that are not zero, by what they price; of a limit in several buckets of time, the sum."""
        names = self.market.names
        found: dict[tuple[Limit, str], float] = {}
        for at in np.flatnonzero(self.vector).tolist():
            found[names[at]] = found.get(names[at], 0.0) + float(self.vector[at])
        return found

    def at(self, vector: Floats) -> Floats:
        """Reduced profits at other prices."""
        return self.market.reduced(vector)

    def margins(self) -> Floats:
        """What each ask gains from its best pair at these prices: not below 0, unless it must be placed."""
        return self.market.margins(self.reduced)


class Clearing:
    """The limits of one problem, and one kind of profit."""

    def __init__(self, pairs: Pairs, profit: Ints, forced: Bools | None = None) -> None:
        usage = pairs.usage
        self.names = usage.names
        self.most: Floats = usage.most
        self.profit: Ints | Floats = profit
        self.ask = pairs.ask
        self._usage = usage
        self._matrix: Any = None
        """Of some pairs only: what each uses of every limit."""
        self.rounding = 2 * int(pairs.splits.sum())
        """µUSD by which ways to split, rounded part by part, may be better than the whole ways they mix."""
        self.floor: Floats = np.zeros(len(pairs.asks))
        """What each ask gains by nothing; of one that must be placed, less than anything."""
        if forced is not None:
            self.floor[forced] = -np.inf

    def restricted(self, to: Ints) -> Clearing:
        """The same limits over some of the pairs (indices, rising)."""
        part = copy(self)
        part.__dict__.pop("starts", None)
        part.__dict__.pop("_squares", None)
        part.profit, part.ask = self.profit[to].astype(np.float64), self.ask[to]
        part._matrix = self._usage.rows(to) if self._matrix is None else self._matrix[to]
        return part

    @cached_property
    def starts(self) -> Ints:
        """Where the pairs of each ask that has any begin."""
        return np.concatenate(([0], np.flatnonzero(self.ask[1:] != self.ask[:-1]) + 1)) if len(self.ask) else self.ask

    @cached_property
    def _squares(self) -> Any:
        matrix = self._matrix
        return csr_array((matrix.data**2, matrix.indices, matrix.indptr), shape=matrix.shape)

    def reduced(self, prices: Floats, into: Floats | None = None) -> Floats:
        """Profit of each pair less what it uses; ``into`` an array that has served."""
        worth = self._usage.times(prices, into) if self._matrix is None else self._matrix @ prices
        left: Floats = np.subtract(self.profit, worth, out=worth)
        return left

    def used(self, share: Floats) -> Floats:
        """How much of each limit is used when pairs are chosen to these shares."""
        used: Floats = self._matrix.T @ share
        return used

    def curved(self, share: Floats) -> Floats:
        """As ``used`` with squared amounts: how fast use changes with the price."""
        used: Floats = self._squares.T @ share
        return used

    def margins(self, rest: Floats | Ints) -> Floats:
        """What each ask gains from its best pair, or from nothing."""
        best = np.maximum(self.floor, 0.0)
        if len(self.starts):
            mine = self.ask[self.starts]
            best[mine] = np.maximum(np.maximum.reduceat(rest, self.starts), self.floor[mine])
        return best

    def near(self, rest: Floats, least: Floats) -> Ints:
        """The pairs whose reduced profit is above what is said for their ask; a block at a time, for memory's sake."""
        found = [
            np.flatnonzero(rest[low : low + BLOCK] > least[self.ask[low : low + BLOCK]]) + low
            for low in range(0, len(rest), BLOCK)
        ]
        return np.concatenate(found)

    def bound(self, prices: Floats, into: Floats | None = None) -> tuple[float, Floats]:
        """What no plan can pass, and reduced profits; ``into`` an array that has served."""
        rest = self.reduced(prices, into)
        return float(prices @ self.most + self.margins(rest).sum()), rest


def clear(
    pairs: Pairs,
    profit: Ints,
    *,
    left: Callable[[], float],
    rounds: int = 500,
    before: Mapping[tuple[Limit, str], float] | None = None,
    forced: Bools | None = None,
    into: Floats | None = None,
) -> Prices:
    """Prices and their bound, within the time left; ``before`` are prices of a similar problem, ``forced`` asks that
    are in every plan, ``into`` an array of so many numbers that has served."""
    market = Clearing(pairs, profit, forced)
    # Of a limit in several buckets of time the price before is told as a sum.
    known = {name: price / pairs.market.buckets for name, price in (before or {}).items()}
    prices: Floats = np.array([known.get(name, 0.0) for name in market.names], dtype=np.float64)
    if not len(pairs):
        return Prices(np.zeros_like(prices), 0.0, profit.astype(np.float64), market, 0)
    smooth = SMOOTH[2] if before else SMOOTH[0]
    if not before and len(pairs) > SAMPLED:
        every = -(-len(pairs) // SAMPLED)
        sample = market.restricted(np.flatnonzero((np.arange(len(pairs.asks)) % every == 0)[market.ask]))
        sample.most = market.most / every
        prices, smooth = _annealed(sample, prices, (SMOOTH[0], ROUGHLY), math.inf, left, rounds)[0], ROUGHLY
    best, bound, rest, done = _annealed(market, prices, (smooth, SMOOTH[3]), ENOUGH, left, rounds, into)
    return Prices(vector=best, bound=bound, reduced=rest, market=market, rounds=done)


def _annealed(
    market: Clearing,
    prices: Floats,
    smooth: tuple[float, float],
    enough: float,
    left: Callable[[], float],
    rounds: int,
    into: Floats | None = None,
) -> tuple[Floats, float, Floats, int]:
    """Stage after stage with less smoothing, from the first to the least: the best prices, their bound, reduced
    profits there, steps."""
    before = left()
    bound, rest = market.bound(prices, into)
    lasts = PASSES * (before - left())
    best, done = prices, 0
    if not len(market.starts):
        return best, bound, rest, 0
    worth = np.maximum(np.maximum.reduceat(market.profit, market.starts), 1.0)
    heat = np.zeros(len(market.floor))
    now_smooth, least = smooth
    course = _Course(prices)
    while done < rounds and (before := left()) > lasts:
        heat[market.ask[market.starts]] = now_smooth * worth
        wide = NEAR[1] if now_smooth > NEAR[0] else NEAR[2]
        near = market.near(rest, market.margins(rest) - wide * heat)
        steps = int(np.clip(WORK // max(1, len(near)), *STEPS))
        _descend(market.restricted(near), course, heat, steps)
        done += steps
        now, rest = market.bound(course.prices, rest)
        lasts = before - left()
        gained = bound - now
        if now < bound:
            bound, best = now, course.prices
        else:
            course = _Course(course.prices)  # where it led astray, momentum is of no use
        if now_smooth <= least and gained < enough * abs(bound):
            break
        now_smooth = max(now_smooth * SMOOTH[1], least)
    return best, bound, rest if course.prices is best else market.reduced(best, rest), done


@dataclass
class _Course:
    """Where the descent is, and with how much momentum: stages differ little, so that it carries over."""

    prices: Floats
    ahead: Floats | None = None
    momentum: float = 1.0


def _descend(market: Clearing, course: _Course, heat: Floats, steps: int) -> None:
    """Accelerated projected gradient on the smoothed dual."""
    ask, starts = market.ask, market.starts
    lengths = np.diff(np.append(starts, len(ask)))
    cool = 1 / heat[ask]
    first_cool = cool[starts]
    none = market.floor[ask[starts]]
    last, momentum = course.prices, course.momentum
    ahead = last if course.ahead is None else course.ahead
    floor = _typical(market, cool)
    curve = floor
    for step in range(steps):
        rest = market.reduced(ahead)
        top = np.maximum(np.maximum.reduceat(rest, starts), none)
        share = np.exp((rest - np.repeat(top, lengths)) * cool)
        share /= np.repeat(np.add.reduceat(share, starts) + np.exp((none - top) * first_cool), lengths)
        if step % 6 == 0:
            curve = CAUTION * np.maximum(market.curved(share * cool), floor)
        slope = market.most - market.used(share)
        prices = np.maximum(0, ahead - slope / curve)
        if float(slope @ (prices - last)) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        ahead = np.maximum(0, prices + (momentum - 1) / following * (prices - last))
        last, momentum = prices, following
    course.prices, course.ahead, course.momentum = last, ahead, momentum


def _typical(market: Clearing, cool: Floats) -> Floats:
    """A floor for each limit's curvature: its full use in pieces of the mean size."""
    first, second = market.used(np.ones(len(cool))), market.curved(cool)
    mean = np.divide(second, first, out=np.ones_like(first), where=first > 0)
    return np.maximum(market.most * mean, 1e-12)
