"""From a problem to a checked plan with its reasons and its distance from the best possible.

The steps, each leaving an answer if time ends there: judge every pair, try a few greedy orders, improve goal by goal
with the exact solver, name the nodes, check the plan by independent code, explain. The solver's bound is reported only
where it was given every eligible pair; where there are too many for it, it works on the most promising ones and the
bound is one that holds for the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

import numpy as np

from optimizer import goals
from optimizer.check import violations
from optimizer.cpsat import Effort, Model, joined, taken_apart
from optimizer.filter import Ints
from optimizer.goals import Line
from optimizer.greedy import Plan, plans, topped_up
from optimizer.ledger import bind
from optimizer.pairs import Pairs, compile_pairs
from optimizer.problem import Ask, Group, OutOfRange, Problem
from optimizer.reasons import placed, refused
from optimizer.solution import Goal, Solution, Status

WHOLE = 30_000
"""Up to so many eligible pairs the exact solver sees all of them."""
CORE = 20_000
"""Of more than that it sees about this many, the first few of every ask."""
TRUSTED = 5_000
"""Above so many pairs a plan that gives every ask its own best pair is not put to the solver: nothing can beat it."""


class BrokenPlan(AssertionError):
    """The independent checker found a plan of ours invalid: a defect here, never the caller's."""


def solve(
    problem: Problem,
    *,
    time_limit_s: float,
    seed: int = 0,
    workers: int = 1,
    deterministic_limit: float | None = None,
    alternatives: int = 20,
    stopwatch: Callable[[], float] = time.monotonic,
) -> Solution:
    """The best plan found within about ``time_limit_s`` seconds of wall time.

    The same problem and seed give the same plan as long as the time limit does not cut the search short; with
    ``deterministic_limit`` (the solver's own unit, about a second) below it, also where it does. More than one worker
    trades that for speed. ``alternatives`` is how many other groups each placement tells about.

    Raises ``OutOfRange`` for a time limit that is not a positive number.
    """
    if not 0 < time_limit_s < 86_400:
        raise OutOfRange(f"The time limit is {time_limit_s!r} s; it must be above 0 and below a day.")
    began = stopwatch()

    # Reasons take time too, about so much of it; a plan nobody can explain in time is late.
    reserve = min(time_limit_s / 3, len(problem.asks) * (2e-4 + len(problem.groups) * 5e-7))

    def left() -> float:
        return time_limit_s - reserve - (stopwatch() - began)

    pairs = compile_pairs(problem)
    lines = goals.goals(pairs)
    plan, winner = _first_answer(pairs, lines, left)
    search = _Search(pairs, lines, plan)
    if len(pairs) > TRUSTED and goals.undisputed(pairs, plan):
        stage = "undisputed"
    elif len(pairs):
        stage = search.run(left, Effort(seconds=0, deterministic=deterministic_limit, seed=seed, workers=workers))
    else:
        stage = "nothing to choose"
    search.top_up()
    placements = placed(pairs, search.plan, alternatives)
    if broken := violations(problem, placements):
        raise BrokenPlan(" ".join(broken))
    reached = search.goals()
    return Solution(
        status=Status.OPTIMAL if all(goal.gap == 0 for goal in reached) else Status.FEASIBLE,
        placements=placements,
        unplaced=refused(pairs, search.plan),
        goals=reached,
        cost_micros=sum(placement.cost_micros for placement in placements.values()),
        wall_s=stopwatch() - began,
        stats={
            "asks": len(pairs.asks),
            "groups": len(pairs.groups),
            "pairs": len(pairs),
            "modelled pairs": search.modelled,
            "greedy": winner,
            "stage": stage,
            "solves": search.solves,
            "solver work": search.work,
        },
    )


def warm() -> None:
    """Load the solver now (a quarter of a second) rather than within somebody's first request."""
    one = Group(id="g", cluster="c", kind="", price_micros=0, count=1)
    solve(Problem(groups=(one,), asks=(Ask(id="a", tenant="t", devices=1, duration_s=1),)), time_limit_s=60)


def _first_answer(pairs: Pairs, lines: tuple[Line, ...], left: Callable[[], float]) -> tuple[Plan, str]:
    best: Plan = {}
    winner = "none"
    for name, plan in plans(pairs):
        if goals.better(lines, plan, best):
            best, winner = plan, name
        if goals.undisputed(pairs, plan) or left() <= 0:
            break
    return best, winner


class _Search:
    """The exact part of one solve: the incumbent, and what is proved of each goal so far."""

    def __init__(self, pairs: Pairs, lines: tuple[Line, ...], plan: Plan) -> None:
        self._pairs = pairs
        self._lines = lines
        self.plan = plan
        self._proved: dict[int, int] = {}
        self._undisputed = goals.undisputed(pairs, plan)
        self.modelled = 0
        self.solves = 0
        self.work = 0.0

    def run(self, left: Callable[[], float], effort: Effort) -> str:
        """Solve the goals in order until all are done or time is up; the name of the last thing that happened."""
        kept = self._core()
        model = Model(self._pairs, kept)
        self.modelled = len(kept)
        whole = len(kept) == len(self._pairs) and model.exact
        at = 0
        while at < len(self._lines):
            if left() <= 0:
                return "time is up"
            used, objective, factors = joined(self._lines[at:], len(kept))
            block = self._lines[at : at + used]
            rest = len(self._lines) - at - used
            share = left() if rest == 0 else left() * 0.7
            found = model.solve(objective, self.plan, Effort(share, effort.deterministic, effort.seed, effort.workers))
            self.solves += 1
            self.work += found.work
            if found.chosen is not None:
                self._adopt(found.chosen, found.nodes)
            if whole and found.status in ("OPTIMAL", "FEASIBLE"):
                reached = [line.of(self.plan) for line in block]
                bounds = taken_apart(block, factors, found.best, reached)
                self._proved.update({at + i: bound for i, bound in enumerate(bounds) if bound is not None})
            for line in block:
                model.require(line, line.of(self.plan))
            at += used
        return "exact" if whole else "exact on the core"

    def top_up(self) -> None:
        """Place what still fits; changes nothing in a plan that is proved best."""
        self.plan = topped_up(self._pairs, self.plan)

    def goals(self) -> tuple[Goal, ...]:
        """What was reached and what is proved."""
        return tuple(
            Goal(
                name=line.name,
                maximise=line.maximise,
                reached=line.of(self.plan),
                bound=self._bound(at, line),
            )
            for at, line in enumerate(self._lines)
        )

    def _bound(self, at: int, line: Line) -> int:
        if self._undisputed:
            return line.of(self.plan)
        easy = line.ceiling if line.maximise else goals.floor(line, self._pairs, self.plan)
        proved = self._proved.get(at)
        if proved is None:
            return easy
        return min(easy, proved) if line.maximise else max(easy, proved)

    def _adopt(self, chosen: Collection[int], named: Mapping[int, int]) -> None:
        nodes = bind(self._pairs, chosen, named)
        if nodes is None or goals.score(self._lines, chosen) < goals.score(self._lines, self.plan):
            return
        self.plan = {pair: nodes.get(pair) for pair in sorted(chosen)}
        self._undisputed = goals.undisputed(self._pairs, self.plan)

    def _core(self) -> Ints:
        pairs = self._pairs
        if len(pairs) <= WHOLE:
            return np.arange(len(pairs))
        rank = np.arange(len(pairs)) - pairs.start[pairs.ask]
        having = int((np.diff(pairs.start) > 0).sum())
        keep = rank < max(2, CORE // having)
        keep[list(self.plan)] = True
        return np.flatnonzero(keep)
