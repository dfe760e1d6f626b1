"""The mixed-integer part: HiGHS over some pairs, for what is linear and too wide for CP-SAT to see through.

It counts in floating point. What it finds is therefore put together anew in whole numbers, pair by pair, and what it
proves is loosened by more than its tolerance before anybody hears of it. The only file that knows this solver, as
SciPy brings it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from threading import Thread
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from optimizer.effort import Effort
from optimizer.greedy import Plan
from optimizer.ledger import Ledger, Seats
from optimizer.market import Floats, Ints
from optimizer.pairs import Pairs

POLL = 0.05
GRACE = 5.0
"""Seconds: how often it is looked whether somebody wants to stop, and how long after twice its time it may end."""
TOLERANCE = 1e-5
"""Relative; well above the solver's own 1e-6 of feasibility."""


@dataclass(frozen=True)
class Mixed:
    """What one solve says."""

    plan: Plan
    bound: float
    """No choice of these pairs has a higher profit; infinite where nothing was proved."""


def mixed(pairs: Pairs, kept: Ints, profit: Ints, before: Sequence[tuple[Ints, int]], effort: Effort) -> Mixed:
    """The best of these pairs (indices, rising), within the time; ``before`` are goals and what they must reach.

    Nodes are not looked at: the bound holds without them, and what finds no node is left out of the plan.
    """
    part = pairs.usage.matrix[kept]
    used = np.flatnonzero(np.asarray(part.sum(axis=0)).ravel() > pairs.usage.most)
    # Every row in parts of its limit, so that dollars and devices are of one size.
    scale: Floats = 1 / np.maximum(pairs.usage.most[used], 1.0)
    limits = (part[:, used].multiply(scale)).T.tocsr()
    asks, at = np.unique(pairs.ask[kept], return_inverse=True)
    once = csr_array((np.ones(len(kept)), (at, np.arange(len(kept)))), shape=(len(asks), len(kept)))
    most = np.concatenate((pairs.usage.most[used] * scale, np.ones(len(asks)), np.full(len(before), np.inf)))
    rows = [limits, once, *(csr_array(goal[kept][None, :] / max(1, reached)) for goal, reached in before)]
    least = np.full(len(most), -np.inf)
    least[len(most) - len(before) :] = [1.0 if reached else 0.0 for _, reached in before]
    money = 1 / max(1.0, float(profit[kept].max(initial=1)) / 1e4)

    def solve() -> Any:
        return milp(
            -profit[kept] * money,
            integrality=np.ones(len(kept)),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(vstack(rows), least, most),
            options={"time_limit": effort.seconds, "mip_rel_gap": 1e-5},
        )

    found = _unless_stopped(solve, effort)
    if found is None:
        return Mixed({}, math.inf)
    bound = math.inf
    if found.mip_dual_bound is not None and math.isfinite(found.mip_dual_bound):
        bound = -float(found.mip_dual_bound) / money * (1 + TOLERANCE) + 1
    if found.x is None:
        return Mixed({}, bound)
    ledger = Ledger(pairs)
    plan: dict[int, Seats] = {}
    chosen = kept[found.x > 0.5]
    for pair in chosen[np.argsort(-profit[chosen], kind="stable")].tolist():
        if pair in ledger.fitting(int(pairs.ask[pair]), range(pair, pair + 1)):
            plan[pair] = ledger.take(pair)
    return Mixed(plan, bound)


def _unless_stopped(solve: Callable[[], Any], effort: Effort) -> Any:
    """What it returns; None where somebody asked to stop, or where it does not end in time.

    This solver cannot be told to stop. It is left to itself then, to end by its own limit.
    """
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(solve())
        except Exception as error:
            answer.set_exception(error)

    Thread(target=run, name="mixed-integer solver", daemon=True).start()
    waited = 0.0
    while not effort.stop.asked and waited < 2 * effort.seconds + GRACE:
        try:
            return answer.result(timeout=POLL)
        except NotYet:
            waited += POLL
    return None
