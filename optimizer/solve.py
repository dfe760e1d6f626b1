"""From a problem to a checked plan with its reasons and its distance from the best possible.

``stages.py`` has the way there; this file is the door: it watches the time, puts the plan before the independent
checker, and adds why everything else was not chosen. A bound of a part is never reported as a bound of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from optimizer.check import violations
from optimizer.effort import Effort, Stop, Watch, uncollected
from optimizer.memory import Memory
from optimizer.problem import Aim, Ask, Group, OutOfRange, Problem
from optimizer.reasons import placed, unplaced
from optimizer.solution import Solution, Status
from optimizer.stages import Stages


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
    unused: bool = True,
    previous: Solution | None = None,
    memory: Memory | None = None,
    stop: Stop | None = None,
    watch: Watch | None = None,
    stopwatch: Callable[[], float] = time.monotonic,
) -> Solution:
    """The best plan found within about ``time_limit_s`` seconds of wall time.

    The same problem and seed give the same plan as long as the time limit does not cut the search short (and, with two
    solvers side by side, where pairs are many and seconds too, an equally good one); with ``deterministic_limit`` (the
    solver's own unit, about a second) below it, also where it does. More than one worker trades that for speed.
    ``alternatives`` is how many other groups each placement tells about, ``details`` for how many refused requests it
    is worked out what would help; ``unused=False`` leaves out why free groups stay so.
    ``previous``, the solution of a similar problem, gives its placements (where they are still possible) and its prices
    as a start; ``memory``, used for each of a line of similar problems, saves judging again what did not change.
    ``stop`` ends it early from another thread, with the best plan so far; ``watch`` hears of every step forward, in the
    solving thread.

    Raises ``OutOfRange`` for a time limit that is not a positive number.
    """
    if not 0 < time_limit_s < 86_400:
        raise OutOfRange(f"The time limit is {time_limit_s!r} s; it must be above 0 and below a day.")
    began = stopwatch()
    stop = stop or Stop()

    # What comes after the last stage takes time too, about so much; a plan nobody can explain in time is late.
    asks, groups, told = len(problem.asks), len(problem.groups), min(len(problem.asks), details)
    reserve = min(time_limit_s / 2, asks * (4.5e-5 + 5e-9 * groups) + told * (5e-5 + 1.2e-7 * groups))

    def left() -> float:
        return 0.0 if stop.asked else time_limit_s - reserve - (stopwatch() - began)

    effort = Effort(seconds=0, deterministic=deterministic_limit, seed=seed, workers=workers, stop=stop)
    with uncollected():
        stages = Stages(
            problem, left, effort, previous=previous, memory=memory, elapsed=lambda: stopwatch() - began, watch=watch
        )
    stages.run()
    pairs, search = stages.pairs, stages.search
    with uncollected():
        placements = placed(pairs, search.plan, alternatives)
        if broken := violations(problem, placements):
            raise BrokenPlan(" ".join(broken))
        reached = search.goals()
        refusals, idle = unplaced(pairs, search.plan, details, stages.reduced, unused=unused)
        return Solution(
            status=Status.OPTIMAL if all(goal.gap == 0 for goal in reached) else Status.FEASIBLE,
            placements=placements,
            unplaced=refusals,
            goals=reached,
            cost_micros=sum(placement.cost_micros for placement in placements.values()),
            prices=stages.prices,
            unused=idle,
            ended=tuple(ask.id for ask in pairs.asks if ask.running is not None and ask.id not in placements),
            fairness=stages.fairness(placements),
            wall_s=stopwatch() - began,
            stats={
                "asks": len(pairs.asks),
                "groups": len(pairs.groups),
                "pairs": len(pairs),
                "modelled pairs": search.modelled,
                "greedy": stages.winner,
                "stage": stages.stage,
                "solves": search.solves,
                "solver work": search.work,
                **({"trouble": stages.trouble} if stages.trouble else {}),
            },
        )


def warm() -> None:
    """Load the solver now (a quarter of a second) rather than within somebody's first request."""
    one = Group(id="g", cluster="c", kind="", price_micros=0, count=1)
    # Where two want one device, there is something to solve.
    two = tuple(Ask(id=name, tenant="t", devices=1, duration_s=1, value_micros=1) for name in "ab")
    for aim in Aim:
        solve(Problem(groups=(one,), asks=two, aim=aim), time_limit_s=60)
