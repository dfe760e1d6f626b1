"""The mixed-integer part: HiGHS over some pairs, for what is linear and too wide for CP-SAT to see through.

It counts in floating point. What it finds is therefore put together anew in whole numbers, pair by pair, and what it
proves is loosened by more than its tolerance before anybody hears of it. It works in a process of its own
(``highs.py``), so that it can be ended, and so that what it dies of is not ours.
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from optimizer.effort import Effort, Stop
from optimizer.greedy import Plan
from optimizer.ledger import Ledger, Seats
from optimizer.market import Floats, Ints
from optimizer.pairs import Pairs

GRACE = 5.0
"""Seconds after its time at which its process is ended."""
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
    part = pairs.usage.rows(kept)
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
    matrix = csr_array(vstack(rows))
    found = _answer(
        {
            "cost": -profit[kept] * money,
            "data": matrix.data,
            "indices": matrix.indices,
            "indptr": matrix.indptr,
            "shape": np.array(matrix.shape),
            "least": least,
            "most": most,
            "seconds": np.array(effort.seconds),
        },
        effort,
    )
    if found is None:
        return Mixed({}, math.inf)
    bound = -float(found["bound"]) / money * (1 + TOLERANCE) + 1
    if not len(found["x"]):
        return Mixed({}, bound)
    ledger = Ledger(pairs)
    plan: dict[int, Seats] = {}
    chosen = kept[found["x"] > 0.5]
    for pair in chosen[np.argsort(-profit[chosen], kind="stable")].tolist():
        if pair in ledger.fitting(int(pairs.ask[pair]), range(pair, pair + 1)):
            plan[pair] = ledger.take(pair)
    return Mixed(plan, bound)


class Beside:
    """One solve that goes on while its caller does something else."""

    def __init__(self, future: Future[Mixed]) -> None:
        self._future = future

    @property
    def done(self) -> bool:
        """It has its answer."""
        return self._future.done()

    def answer(self, seconds: float) -> Mixed | None:
        """What it says, waited for so long; None where it says nothing by then."""
        try:
            return self._future.result(timeout=max(0.0, seconds))
        except TimeoutError:
            return None


@contextmanager
def beside(
    pairs: Pairs, kept: Ints, profit: Ints, before: Sequence[tuple[Ints, int]], effort: Effort
) -> Iterator[Beside]:
    """``mixed`` on the side, ended with the block; the solver is another process and keeps another core busy."""
    stop = Stop()
    with effort.stop.stopping(stop.now), ThreadPoolExecutor(max_workers=1, thread_name_prefix="mixed") as pool:
        future = pool.submit(mixed, pairs, kept, profit, before, replace(effort, stop=stop))
        try:
            yield Beside(future)
        finally:
            stop.now()


def _answer(problem: Mapping[str, Any], effort: Effort) -> Mapping[str, Any] | None:
    """What the other process says; None where it was stopped, died, or did not end in time."""
    written = io.BytesIO()
    np.savez(written, **problem)
    command = [sys.executable, "-m", "optimizer.highs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        with effort.stop.stopping(process.kill):
            try:
                answer, _ = process.communicate(written.getvalue(), timeout=effort.seconds + GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                return None
        if process.returncode:
            return None
    with np.load(io.BytesIO(answer), allow_pickle=False) as found:
        return dict(found)
