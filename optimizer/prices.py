"""What every scarce thing is worth: prices that make the market clear, and a bound that no plan can pass.

Put a price on each limit (units of a group, a shared capacity, a budget's dollars, a quota's devices) and let every ask
take its best pair at those prices, or none. Whatever the prices, what the asks then gain plus what the limits then earn
is at least the value of any plan that keeps the limits: Lagrangian duality. The bound is therefore certified by one
pass over all pairs, however the prices were found, and good prices make it tight.

They are found by an accelerated gradient on a smoothed version, where an ask spreads over its nearly-best pairs instead
of jumping between them (Nesterov 2005, entropic smoothing), with the smoothing made smaller step by step and a step
length for each price of its own. Most pairs are never near an ask's best; steps look only at those that are, and every
few steps the whole is looked at again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass

import numpy as np

from optimizer.filter import Floats, Ints
from optimizer.pairs import Pairs
from optimizer.solution import Limit

SMOOTH = (0.1, 0.6, 0.01, 0.001)
"""How far an ask spreads over pairs, as a share of its best profit: at first, what is kept of it from stage to stage,
at first with prices from before, and at the least."""
ENOUGH = 1e-4
"""A stage at the least smoothing that gains less than this share of the bound is the last."""
STEPS = (8, 32)
"""Fewest and most steps of one stage …"""
WORK = 8_000_000
"""… between which a stage looks at about so many pairs: early stages look at nearly all, so they get few steps."""


@dataclass(frozen=True)
class Prices:
    """Prices of all limits, in units of the profit per unit of the limit, and what they prove."""

    vector: Floats
    """Groups, shared capacities, budgets, quotas, in the order of the problem."""
    bound: float
    """No plan has a higher profit."""
    reduced: Floats
    """Of each pair: its profit less what it uses at these prices."""
    market: Clearing
    rounds: int

    @property
    def whole_bound(self) -> int:
        """The bound for profits in whole units, with room for what floating-point sums may have lost."""
        return math.floor(self.bound * (1 + 1e-9) + 1e-6)

    def by_limit(self) -> dict[tuple[Limit, str], float]:
        """The prices that are not zero, by what they price."""
        names = self.market.names
        return {names[at]: float(self.vector[at]) for at in np.flatnonzero(self.vector).tolist()}

    def at(self, vector: Floats) -> Floats:
        """Reduced profits at other prices."""
        return self.market.reduced(vector)


class Clearing:
    """The limits of one problem as arrays, for one kind of profit."""

    def __init__(self, pairs: Pairs, profit: Ints) -> None:
        problem = pairs.problem
        self._asks = len(pairs.asks)
        self.profit: Floats = profit.astype(np.float64)
        groups, shared, budgets, quotas = (
            len(each) for each in (problem.groups, problem.rows, problem.budgets, problem.quotas)
        )
        self._cuts = np.cumsum([groups, shared, budgets])
        self.most: Floats = np.array(
            [
                *(group.count for group in problem.groups),
                *(row.limit for row in problem.rows),
                *(budget.remaining_micros for budget in problem.budgets),
                *(quota.remaining_devices for quota in problem.quotas),
            ],
            dtype=np.float64,
        )
        self.names = [
            *((Limit.GROUP, each.id) for each in problem.groups),
            *((Limit.SHARED, each.id) for each in problem.rows),
            *((Limit.BUDGET, each.id) for each in problem.budgets),
            *((Limit.QUOTA, each.id) for each in problem.quotas),
        ]
        self._sizes = (groups, shared, budgets, quotas)
        members = [
            (at, pairs.market.index[name], weight)
            for at, row in enumerate(problem.rows)
            for name, weight in row.members.items()
            if weight
        ]
        self._row, self._member, self._weight = (
            np.array([each[k] for each in members], dtype=np.int64) for k in range(3)
        )
        self._payer, self._budget = _held(pairs, "budgets", {each.id: at for at, each in enumerate(problem.budgets)})
        self._holder, self._quota = _held(pairs, "quotas", {each.id: at for at, each in enumerate(problem.quotas)})
        self.ask, self.group = pairs.ask, pairs.group
        self.units, self.cost, self.devices = (
            column.astype(np.float64) for column in (pairs.units, pairs.cost, pairs.devices)
        )

    def restricted(self, to: Ints) -> Clearing:
        """The same limits over some of the pairs (indices, rising)."""
        part = copy(self)
        for name in ("profit", "ask", "group", "units", "cost", "devices"):
            setattr(part, name, getattr(self, name)[to])
        return part

    def reduced(self, prices: Floats) -> Floats:
        """Profit of each pair less what it uses."""
        groups = self._sizes[0]
        of_group, of_row, of_budget, of_quota = np.split(prices, self._cuts)
        unit = of_group + np.bincount(self._member, self._weight * of_row[self._row], minlength=groups)
        left: Floats = self.profit - self.units * unit[self.group]
        if len(of_budget):
            left -= self.cost * np.bincount(self._payer, of_budget[self._budget], minlength=self._asks)[self.ask]
        if len(of_quota):
            left -= self.devices * np.bincount(self._holder, of_quota[self._quota], minlength=self._asks)[self.ask]
        return left

    def used(self, share: Floats, power: int = 1) -> Floats:
        """How much of each limit is used when pairs are chosen to these shares; weights to a power, for curvature."""
        groups, shared, budgets, quotas = self._sizes
        of_group = np.bincount(self.group, self.units**power * share, minlength=groups)
        of_row = np.bincount(self._row, self._weight**power * of_group[self._member], minlength=shared)
        parts = [of_group, of_row]
        for weight, who, limit, size in (
            (self.cost, self._payer, self._budget, budgets),
            (self.devices, self._holder, self._quota, quotas),
        ):
            if size:
                by_ask = np.bincount(self.ask, weight**power * share, minlength=self._asks)
                parts.append(np.bincount(limit, by_ask[who], minlength=size))
        return np.concatenate(parts)


def _held(pairs: Pairs, where: str, index: dict[str, int]) -> tuple[Ints, Ints]:
    both = [(at, index[name]) for at, ask in enumerate(pairs.asks) for name in set(getattr(ask, where))]
    return np.array([at for at, _ in both], dtype=np.int64), np.array([name for _, name in both], dtype=np.int64)


def clear(
    pairs: Pairs,
    profit: Ints,
    *,
    left: Callable[[], float],
    rounds: int = 300,
    before: Mapping[tuple[Limit, str], float] | None = None,
) -> Prices:
    """Prices and their bound, within the time left; ``before`` are prices of a similar problem."""
    market = Clearing(pairs, profit)
    starts = pairs.start[:-1][np.diff(pairs.start) > 0]

    def whole(at: Floats) -> tuple[float, Floats]:
        rest = market.reduced(at)
        best = np.maximum.reduceat(rest, starts) if len(starts) else rest
        return float(at @ market.most + np.maximum(best, 0).sum()), rest

    prices: Floats = np.array([(before or {}).get(name, 0.0) for name in market.names], dtype=np.float64)
    bound, rest = whole(prices)
    best, best_rest, done = prices, rest, 0
    if not len(starts):
        return Prices(vector=np.zeros_like(prices), bound=0.0, reduced=rest, market=market, rounds=0)
    worth = np.maximum(np.maximum.reduceat(market.profit, starts), 1.0)
    heat = np.zeros(len(pairs.asks))
    smooth = SMOOTH[2] if before else SMOOTH[0]
    while done < rounds and left() > 0:
        heat[pairs.ask[starts]] = smooth * worth
        near = _near(rest, pairs, starts, 8 * heat)
        steps = int(np.clip(WORK // max(1, len(near)), *STEPS))
        prices = _descend(market.restricted(near), prices, heat, steps)
        done += steps
        now, rest = whole(prices)
        gained = bound - now
        if now < bound:
            bound, best, best_rest = now, prices, rest
        if smooth <= SMOOTH[3] and gained < ENOUGH * abs(bound):
            break
        smooth = max(smooth * SMOOTH[1], SMOOTH[3])
    return Prices(vector=best, bound=bound, reduced=best_rest, market=market, rounds=done)


def _near(rest: Floats, pairs: Pairs, starts: Ints, within: Floats) -> Ints:
    """Pairs whose reduced profit is not far below the best of their ask, or below nothing."""
    best = np.zeros(len(pairs.asks))
    best[pairs.ask[starts]] = np.maximum(np.maximum.reduceat(rest, starts), 0)
    return np.flatnonzero(rest > (best - within)[pairs.ask])


def _descend(market: Clearing, prices: Floats, heat: Floats, steps: int) -> Floats:
    """Accelerated projected gradient on the smoothed dual."""
    ask = market.ask
    starts = np.flatnonzero(np.diff(ask, prepend=-1))
    lengths = np.diff(np.append(starts, len(ask)))
    cool = 1 / heat[ask]
    first_cool = cool[starts]
    ahead, last, momentum = prices, prices, 1.0
    floor = _typical(market, cool)
    curve = floor
    for step in range(steps):
        rest = market.reduced(ahead)
        top = np.maximum(np.maximum.reduceat(rest, starts), 0)
        share = np.exp((rest - np.repeat(top, lengths)) * cool)
        share /= np.repeat(np.add.reduceat(share, starts) + np.exp(-top * first_cool), lengths)
        if step % 6 == 0:
            curve = 3.0 * np.maximum(market.used(share * cool, 2), floor)
        slope = market.most - market.used(share)
        prices = np.maximum(0, ahead - slope / curve)
        if float(slope @ (prices - last)) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        ahead = np.maximum(0, prices + (momentum - 1) / following * (prices - last))
        last, momentum = prices, following
    return prices


def _typical(market: Clearing, cool: Floats) -> Floats:
    """A floor for each limit's curvature: its full use in pieces of the mean size."""
    first, second = market.used(np.ones(len(cool))), market.used(cool, 2)
    mean = np.divide(second, first, out=np.ones_like(first), where=first > 0)
    return np.maximum(market.most * mean, 1e-12)
