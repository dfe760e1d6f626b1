"""Solving in a thread of its own, so that a person sees how far it is and may end it: Ctrl-C gives the best so far.

A thread whose native code hangs cannot be ended. It is left behind, and what needs no exact solver is done again: a
smaller answer, which says so.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lendmesh.problems.answer import dollars, is_money
from optimizer.effort import Progress, Stop
from optimizer.problem import Problem
from optimizer.solution import Solution

LOOK_S = 0.1
"""So often it is looked whether the solver is done, and said how far it is."""
PATIENCE_S = 60.0
"""So long past its time, and once more after it was told to end, a solver is waited for: reasons and checks of the
largest problems take some of it."""


class SolverFailed(Exception):
    """The solver ended without a plan, which it never should; the text says what it died of."""


@dataclass
class Run:
    """A solve, and what could be seen of it."""

    solution: Solution
    steps: list[Progress] = field(default_factory=list)
    """How far it was, whenever that changed."""
    stopped: bool = False


def solved(problem: Problem, *, seconds: float, seed: int, workers: int, out: Console) -> Run:
    """The best plan within the time, or until somebody presses Ctrl-C; pressed twice, it ends at once.

    What it says about its progress goes to ``out``, and only where that is a screen.

    :raises SolverFailed: there is none.
    """
    task = _Task(problem, seconds=seconds, seed=seed, workers=workers)
    line = (
        Live(console=out, get_renderable=task.drawn, transient=True, refresh_per_second=8) if out.is_terminal else None
    )
    if line is not None:
        line.start()
    task.start()
    try:
        try:
            task.wait(seconds + PATIENCE_S)
        except KeyboardInterrupt:
            task.stop()
        if not task.wait(0):
            task.end()
            if not task.wait(PATIENCE_S):
                task = task.without_exact_solver()
    finally:
        if line is not None:
            line.stop()
    if task.solution is None:
        raise SolverFailed(f"{type(task.failure).__name__}: {str(task.failure)[:300]}") from task.failure
    return Run(solution=task.solution, steps=task.steps, stopped=task.stopped)


class _Task:
    """What the thread does, and what both threads know of it."""

    def __init__(self, problem: Problem, *, seconds: float, seed: int, workers: int) -> None:
        self._problem, self._seconds, self._seed, self._workers = problem, seconds, seed, workers
        self._done = threading.Event()
        self._began = time.monotonic()
        self._stop = Stop()
        self.steps: list[Progress] = []
        self.solution: Solution | None = None
        self.failure: BaseException | None = None
        self.stopped = False

    def start(self) -> None:
        """Begin, in a thread that nobody has to wait for."""
        threading.Thread(target=self.run, name="solve", daemon=True).start()

    def run(self) -> None:
        """In the solving thread."""
        try:
            # Loading the solver takes a quarter of a second, which reading a bad file should not.
            from optimizer.solve import solve

            self.solution = solve(
                self._problem,
                time_limit_s=self._seconds,
                seed=self._seed,
                workers=self._workers,
                stop=self._stop,
                watch=self.heard,
            )
        except BaseException as failure:  # the waiting thread tells it
            self.failure = failure
        finally:
            self._done.set()

    def heard(self, progress: Progress) -> None:
        """In the solving thread."""
        self.steps.append(progress)

    def wait(self, seconds: float) -> bool:
        """Whether the plan is there within so many seconds."""
        until = time.monotonic() + seconds
        while not self._done.wait(LOOK_S):
            if time.monotonic() >= until:
                return False
        return True

    def stop(self) -> None:
        """End the solve soon, because somebody said so."""
        self.stopped = True
        self.end()

    def end(self) -> None:
        """End the solve soon."""
        self._stop.now()

    def without_exact_solver(self) -> _Task:
        """A solve that is told to end before it begins: judged, in a greedy order, checked and explained."""
        again = _Task(self._problem, seconds=self._seconds, seed=self._seed, workers=1)
        again.stopped, again.steps = self.stopped, self.steps
        again.end()
        again.run()
        if again.solution is not None:
            trouble = f"the exact solver did not end {2 * PATIENCE_S:g} s after its time and was left behind"
            again.solution = replace(again.solution, stats={**again.solution.stats, "trouble": trouble})
        return again

    def drawn(self) -> Text:
        """One line for a screen."""
        if not self.steps:
            return Text(f"  solving {len(self._problem.asks):,} requests × {len(self._problem.groups):,} offers", "dim")
        last = self.steps[-1]
        line = Text(f"  {time.monotonic() - self._began:5.1f} s  ", "dim", no_wrap=True, overflow="ellipsis")
        line.append(f"{last.stage}  {last.goal}")
        money = is_money(last.goal)
        for word, value in (("reached", last.reached), ("bound", last.bound)):
            if value is not None:
                line.append(f"  {word} {f'${float(dollars(value)):,.2f}' if money else f'{value:,}'}")
        if last.reached is not None and last.bound is not None:
            gap = abs(last.bound - last.reached) / max(1, abs(last.bound), abs(last.reached))
            line.append(f"  gap {gap:.2%}", "bold")
        line.append("  stopping …" if self.stopped else "  Ctrl-C ends it with the best so far", "dim")
        return line
