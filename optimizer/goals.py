"""What makes one plan better than another: a list of goals, each counted only among plans equal in all before it.

First, whatever the aim: leases that must not be ended go on, and what tenants are guaranteed is placed.

With the aim *priority*, then for each priority from the highest: the weight placed (a request counts its devices
unless it says otherwise), then whose turn it is (weight × places from the end of the queue). Then, over all: what
ending running leases costs, tiers in order, confidential where preferred, cost and expected losses, tightness of fit.
Who is served is thus settled before where, and no request loses its turn because a later one is cheaper.

With the aim *welfare*, one goal: Σ (value − cost − losses), each tenant's in proportion to what it had lately.

Every goal is Σ coefficient × chosen pair with whole, non-negative coefficients, so that goals can be compared, bounded
and joined without rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from optimizer.fairness import discounted
from optimizer.market import Bools, Ints
from optimizer.pairs import Pairs
from optimizer.problem import Aim, Ask

SAFE = 2**60
"""Sums stay below this, so that a solver may add a few of them in 64 bits."""


@dataclass(frozen=True)
class Line:
    """One goal over the pairs."""

    name: str
    maximise: bool
    coefficient: Ints
    """Of each pair; ≥ 0."""
    ceiling: int
    """No plan reaches more: every ask at its largest coefficient."""

    def of(self, chosen: Collection[int]) -> int:
        """The goal's value for a plan."""
        return int(self.coefficient[list(chosen)].sum()) if chosen else 0


def goals(pairs: Pairs, entitled: Bools | None = None) -> tuple[Line, ...]:
    """The goals in order of importance; those that cannot tell any two plans apart are left out."""
    lines = []
    devices = np.array([ask.total for ask in pairs.asks], dtype=np.int64)
    for name, whose in (("must go on", pairs.must), ("guaranteed", entitled)):
        if whose is not None and whose[pairs.ask].any():
            lines.append(_line(pairs, name, True, (devices * whose)[pairs.ask]))
    if pairs.problem.aim is Aim.WELFARE:
        return (*lines, _line(pairs, "welfare", True, _profit(pairs)))
    lines += _who(pairs)
    ending = np.array([_ending(ask) for ask in pairs.asks], dtype=np.int64)
    if ending.any():
        lines.append(_line(pairs, "not ended", True, ending[pairs.ask]))
    for name, column in (
        ("tiers", pairs.tier),
        ("not confidential", pairs.plain),
        ("cost", pairs.cost + pairs.loss),
        ("left over", pairs.slack),
    ):
        line = _line(pairs, name, False, column)
        if line.ceiling or name == "cost":
            lines.append(line)
    return tuple(lines)


def _ending(ask: Ask) -> int:
    """What ending it early costs."""
    return (ask.running.end_micros or 0) if ask.running is not None else 0


def _profit(pairs: Pairs) -> Ints:
    """What each pair is worth beyond what it costs, in proportion to what its tenant had lately."""
    worth = np.array([(ask.value_micros or 0) + _ending(ask) for ask in pairs.asks], dtype=np.int64)
    if pairs.must.any():
        # These are in every plan, so that only differences between their pairs count; none may come out negative.
        dearest = np.zeros(len(pairs.asks), dtype=np.int64)
        dearest[pairs.having] = np.maximum.reduceat(pairs.cost + pairs.loss, pairs.start[pairs.having])
        worth = np.where(pairs.must, np.maximum(worth, dearest), worth)
    profit: Ints = worth[pairs.ask]
    profit -= pairs.cost
    if pairs.loss.strides != (0,) or pairs.loss[:1].any():
        profit -= pairs.loss
    history = {share.tenant: share.history_milli for share in pairs.problem.shares if share.history_milli > 1_000}
    if not history:
        return profit
    had = np.array([history.get(ask.tenant, 0) for ask in pairs.asks], dtype=np.int64)
    return discounted(profit, had[pairs.ask])


def blended(pairs: Pairs) -> Ints:
    """One profit that leans the way all goals together do, for prices to be found by; it decides nothing alone.

    Each priority counts four times the one below, and within a request the best pair up to twice the worst.
    """
    priority = np.array([ask.priority for ask in pairs.asks], dtype=np.int64)
    level = np.minimum(np.searchsorted(np.unique(priority), priority), 6)
    weight = np.array([ask.counts_for for ask in pairs.asks], dtype=np.int64) * 4**level
    having = pairs.having
    amount = pairs.cost + pairs.loss
    least, spread = np.zeros(len(pairs.asks)), np.ones(len(pairs.asks))
    if len(having):
        least[having] = np.minimum.reduceat(amount, pairs.start[having])
        spread[having] = np.maximum(1, np.maximum.reduceat(amount, pairs.start[having]) - least[having])
    worse = 0.25 * (amount - least[pairs.ask]) / spread[pairs.ask]
    worse += 0.2 * pairs.tier / max(1, int(pairs.tier.max(initial=0))) + 0.05 * pairs.plain
    profit: Ints = (weight[pairs.ask] * 1000 * (1 - worse)).astype(np.int64)
    return profit


def rewarded(line: Line, pairs: Pairs, free: Bools) -> tuple[Ints, int]:
    """Least cost as most profit: each placement earns more than it can cost; and what all of them earn together.

    For plans that place every ask that has a pair, on one of these pairs, the profit is that sum less the goal.
    """
    having = pairs.having
    reward = np.zeros(len(pairs.asks), dtype=np.int64)
    if len(having):
        reward[having] = 2 * np.maximum.reduceat(line.coefficient, pairs.start[having]) + 1
    profit: Ints = np.where(free, reward[pairs.ask] - line.coefficient, -1)
    return profit, int(reward.sum())


def complete(pairs: Pairs, chosen: Collection[int]) -> bool:
    """Whether every ask that has a pair is placed; every plan as good then places them all."""
    return len(chosen) == len(pairs.having)


def better(lines: Sequence[Line], new: Collection[int], old: Collection[int]) -> bool:
    """Whether one plan beats another."""
    return score(lines, new) > score(lines, old)


def score(lines: Sequence[Line], chosen: Collection[int]) -> tuple[int, ...]:
    """A plan's goals as a tuple that compares as the plans do."""
    return tuple(line.of(chosen) if line.maximise else -line.of(chosen) for line in lines)


def settled(pairs: Pairs) -> Ints:
    """As ``blended``, where all can be placed: cost as it is, a later tier or a missed wish worse than any cost."""
    having, amount = pairs.having, pairs.cost + pairs.loss
    step = np.zeros(len(pairs.asks), dtype=np.int64)
    top = np.zeros(len(pairs.asks), dtype=np.int64)
    if len(having):
        step[having] = np.maximum.reduceat(amount, pairs.start[having])
        step[having] -= np.minimum.reduceat(amount, pairs.start[having]) - 1
    worse = amount + step[pairs.ask] * (pairs.plain + 2 * np.minimum(pairs.tier, 1000))
    if len(having):
        top[having] = 2 * np.maximum.reduceat(worse, pairs.start[having]) + 1
    profit: Ints = top[pairs.ask] - worse
    return profit


def forced(lines: Sequence[Line], pairs: Pairs, chosen: Collection[int]) -> Bools:
    """The pairs that plans as good as this one in all these goals can hold, as far as that shows without solving.

    Where every ask that has a pair is placed, plans as good place them all. Where a goal to be minimised is then as low
    as it can be for each ask alone, plans as good use only pairs that are.
    """
    free = np.ones(len(pairs), dtype=np.bool_)
    if complete(pairs, chosen):
        for line in lines:
            if not line.maximise and line.of(chosen) == floor(line, pairs, chosen, free):
                free &= line.coefficient == _least(line, pairs, free)[pairs.ask]
    return free


def floor(line: Line, pairs: Pairs, chosen: Collection[int], free: Bools) -> int:
    """What a goal to be minimised cannot go below, for plans that use only these pairs and place all that this does."""
    return int(_least(line, pairs, free).sum()) if complete(pairs, chosen) else 0


def _least(line: Line, pairs: Pairs, free: Bools) -> Ints:
    having = pairs.having
    least = np.zeros(len(pairs.asks), dtype=np.int64)
    if len(having):
        most = np.where(free, line.coefficient, np.iinfo(np.int64).max)
        least[having] = np.minimum.reduceat(most, pairs.start[having])
    return least


def undisputed(pairs: Pairs, chosen: Collection[int]) -> bool:
    """Whether every ask that has a pair has its own best one: then no plan is better in any goal."""
    having = pairs.having
    return set(chosen) == set(pairs.start[having].tolist())


def _who(pairs: Pairs) -> list[Line]:
    weight = np.array([ask.counts_for for ask in pairs.asks], dtype=np.int64)
    priority = np.array([ask.priority for ask in pairs.asks], dtype=np.int64)
    created = np.array([ask.created for ask in pairs.asks], dtype=np.int64)
    lines = []
    for level in np.unique(priority[pairs.ask])[::-1]:
        mine = priority == level
        lines.append(_line(pairs, f"weight at priority {level}", True, (weight * mine)[pairs.ask]))
        turns = np.unique(created[mine])
        if len(turns) > 1:
            ahead = len(turns) - np.searchsorted(turns, created)
            lines.append(_line(pairs, f"turn at priority {level}", True, (weight * ahead * mine)[pairs.ask]))
    return lines


def _line(pairs: Pairs, name: str, maximise: bool, coefficient: Ints) -> Line:
    having = pairs.having
    tops = np.maximum.reduceat(coefficient, pairs.start[having]) if len(having) else coefficient[:0]
    # Only thousands of billion-dollar requests get here; whole multiples keep the order among anything that differs
    # by more than a few thousand µUSD of them.
    shift = max(0, int(tops.astype(np.float64).sum() / SAFE)).bit_length()
    if shift:
        coefficient, tops, name = coefficient >> shift, tops >> shift, f"{name} (in units of {2**shift})"
    return Line(name=name, maximise=maximise, coefficient=coefficient, ceiling=int(tops.sum()))
