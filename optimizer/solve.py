"""From a problem to a checked plan with its reasons and its distance from the best possible.

The steps, each leaving an answer if time ends there: judge every pair; try a few greedy orders; where there are many
pairs, price the limits, which leads to one more plan and to a bound over all pairs; improve with the exact solver, on
everything where it is small, else around the limits that are contested; check the plan by independent code; explain.
A bound of a part is never reported as a bound of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from optimizer import goals
from optimizer.check import violations
from optimizer.cpsat import Effort
from optimizer.goals import Line
from optimizer.greedy import Plan, kept_up, plans, priced
from optimizer.pairs import Pairs, compile_pairs
from optimizer.prices import clear
from optimizer.problem import Aim, Ask, Group, OutOfRange, Problem
from optimizer.reasons import placed, refused
from optimizer.search import Search
from optimizer.solution import Limit, Solution, Status
from optimizer.welfare import Improvement

EXACT = 2_000
"""Up to so many eligible pairs the exact solver is asked at once; above, prices come first."""
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
    details: int = 2_000,
    previous: Solution | None = None,
    stopwatch: Callable[[], float] = time.monotonic,
) -> Solution:
    """The best plan found within about ``time_limit_s`` seconds of wall time.

    The same problem and seed give the same plan as long as the time limit does not cut the search short; with
    ``deterministic_limit`` (the solver's own unit, about a second) below it, also where it does. More than one worker
    trades that for speed. ``alternatives`` is how many other groups each placement tells about, ``details`` for how
    many refused requests it is worked out what would help. ``previous``, the solution of a similar problem, gives its
    placements (where they are still possible) and its prices as a start.

    Raises ``OutOfRange`` for a time limit that is not a positive number.
    """
    if not 0 < time_limit_s < 86_400:
        raise OutOfRange(f"The time limit is {time_limit_s!r} s; it must be above 0 and below a day.")
    began = stopwatch()

    # Reasons take time too, about so much of it; a plan nobody can explain in time is late.
    reserve = min(time_limit_s / 3, min(len(problem.asks), details) * (2e-4 + len(problem.groups) * 5e-7))

    def left() -> float:
        return time_limit_s - reserve - (stopwatch() - began)

    pairs = compile_pairs(problem)
    lines = goals.goals(pairs)
    plan, winner = _first_answer(pairs, lines, previous, left)
    effort = Effort(seconds=0, deterministic=deterministic_limit, seed=seed, workers=workers)
    search = Search(pairs, lines, plan)
    prices: Mapping[tuple[Limit, str], float] = {}
    if len(pairs) > TRUSTED and goals.undisputed(pairs, plan):
        stage = "undisputed"
    elif problem.aim is Aim.WELFARE and len(pairs) > EXACT:
        found = clear(pairs, lines[0].coefficient, left=left, before=previous.prices if previous else None)
        prices = found.by_limit()
        best = plan
        for each in priced(pairs, found):
            best = max(best, each, key=lines[0].of)
            if left() <= 0:
                break
        improvement = Improvement(pairs, lines[0], found, best, found.whole_bound)
        stage = improvement.run(left, effort)
        search.take_over(improvement)
    elif len(pairs):
        if len(pairs) > EXACT:
            search.price(left)
        stage = search.run(left, effort)
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
        unplaced=refused(pairs, search.plan, details),
        goals=reached,
        cost_micros=sum(placement.cost_micros for placement in placements.values()),
        prices=prices,
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


def _first_answer(
    pairs: Pairs, lines: tuple[Line, ...], previous: Solution | None, left: Callable[[], float]
) -> tuple[Plan, str]:
    best: Plan = {}
    winner = "none"
    if previous is not None:
        best = kept_up(pairs, {name: each.group for name, each in previous.placements.items()})
        winner = "previous"
    for name, plan in plans(pairs):
        if goals.better(lines, plan, best):
            best, winner = plan, name
        if goals.undisputed(pairs, best) or left() <= 0:
            break
    return best, winner
