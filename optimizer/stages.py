"""The stages of one solve, each of which leaves a plan that keeps every promise and a bound that holds for all plans.

Judge every cell; try a few greedy orders; where there are many pairs, price the limits, which leads to more plans and
to a bound over all pairs; where requests may be split, make new ways from what is left and go once more; improve with
the exact solver, on everything where it is small, else around the limits that are contested. A stage that fails is
left out, and the answer says so (``trouble``): a smaller honest answer beats none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from optimizer import fairness, goals
from optimizer.bundles import afresh, extended
from optimizer.cpsat import Model, joined
from optimizer.effort import Effort, Progress, Watch
from optimizer.flow import flowed
from optimizer.greedy import Plan, kept_up, plans, priced, returned, spent, topped_up
from optimizer.ledger import bind
from optimizer.market import Floats
from optimizer.memory import Memory
from optimizer.pairs import Pairs, compile_pairs
from optimizer.prices import SAMPLED, Prices, clear
from optimizer.problem import Aim, Problem
from optimizer.reasons import unseated
from optimizer.search import Search
from optimizer.solution import Fairness, Limit, Placement, Proof, Solution
from optimizer.welfare import Improvement

EXACT = 2_000
"""Up to so many eligible pairs the exact solver is asked at once; above, prices come first."""
TRUSTED = 5_000
"""Above so many pairs a plan that gives every ask its own best pair is not put to the solver: nothing can beat it."""
GUARANTEED = 20
"""Pairs of each request that the exact solver looks at where what is guaranteed does not fall into place by itself."""
FLOWING = 3_000_000
"""Up to so many pairs a flow is worth its time."""
A_PLAN = 1.5e-5
"""Seconds for each request that a plan by prices takes: prices that nobody has time to act on are of no use."""
AGAIN = 3
"""How often ways to split are made from what is left."""


class Stages:
    """One solve on its way: what is known so far."""

    def __init__(
        self,
        problem: Problem,
        left: Callable[[], float],
        effort: Effort,
        *,
        previous: Solution | None,
        memory: Memory | None,
        elapsed: Callable[[], float],
        watch: Watch | None,
    ) -> None:
        self._left, self._effort, self._elapsed, self._watch = left, effort, elapsed, watch
        self.stage, self.winner, self.trouble = "nothing to choose", "none", ""
        self.prices: Mapping[tuple[Limit, str], float] = {}
        self._before = previous.prices if previous else {}
        self.reduced: Floats | None = None
        """Of each pair, its profit less what it uses at the prices; known where the aim is welfare."""
        self._memory = memory
        before = memory.taken() if memory is not None else None
        self._look(compile_pairs(problem, before, spend=True))
        if memory is not None:
            memory.pairs = self.pairs
        self._search = Search(self.pairs, self.lines, {}, self.entitled, self._heard)
        self._search.plan = self._first_answer(previous)
        self._heard("greedy")

    @property
    def search(self) -> Search:
        """The plan so far, and what is proved of it."""
        return self._search

    def run(self) -> None:
        """All stages while time lasts."""
        if not len(self.pairs):
            return
        with self._surviving("guarantees"):
            self._guarantee()
        with self._surviving("solver"):
            if len(self.pairs) > TRUSTED and goals.undisputed(self.pairs, self.search.plan):
                self.stage = "undisputed"
            elif self.pairs.problem.aim is Aim.WELFARE:
                self._welfare()
            else:
                if len(self.pairs) > EXACT:
                    self.search.price(self._left)
                self.stage = self.search.run(self._left, self._effort)
                self._split_again(lambda: self.search.run(self._left, self._effort))
        if self.pairs.problem.aim is Aim.WELFARE and self.pairs.keeps:
            self.search.plan = returned(self.pairs, self.search.plan, self.lines[-1].coefficient)
        self.search.top_up()
        if out := unseated(self.pairs, self.search.plan):
            self.search.plan = {pair: seats for pair, seats in self.search.plan.items() if pair not in out}
        self._heard("done")

    def fairness(self, placements: Mapping[str, Placement]) -> Fairness | None:
        """How the plan treats the tenants, where the problem names shares."""
        pairs = self.pairs
        if not pairs.problem.shares:
            return None
        covered = {pairs.asks[at].id for at in np.flatnonzero(self.entitled).tolist()}
        return fairness.report(pairs.problem, placements, pairs=(pairs.ask, pairs.group), covered=covered)

    # --- stages ------------------------------------------------------------------------------------------------------

    def _look(self, pairs: Pairs) -> None:
        self.pairs = pairs
        having = set(pairs.having.tolist())
        index = {ask.id: at for at, ask in enumerate(pairs.asks)}
        self.entitled = np.zeros(len(pairs.asks), dtype=np.bool_)
        if any(share.guaranteed for share in pairs.problem.shares):
            names = fairness.entitled(pairs.problem, lambda ask: index[ask.id] in having)
            self.entitled[[index[name] for name in names]] = True
        self.lines = goals.goals(pairs, self.entitled)

    def _first_answer(self, previous: Solution | None) -> Plan:
        best: Plan = {}
        if previous is not None:
            best, self.winner = kept_up(self.pairs, previous.placements), "previous"
        for name, plan in islice(plans(self.pairs, self.entitled), self._orders(previous)):
            if goals.better(self.lines, plan, best):
                best, self.winner = plan, name
            if goals.undisputed(self.pairs, best) or self._left() <= 0:
                break
        return best

    def _orders(self, previous: Solution | None) -> int | None:
        """How many greedy orders are worth their time (None: all), where prices will try more and better ones."""
        if self.pairs.problem.aim is not Aim.WELFARE or len(self.pairs) <= EXACT:
            return None
        if previous is not None:
            known = sum(ask.id in previous.placements for ask in self.pairs.asks)
            if 2 * known > len(self.pairs.asks):
                return 0
        return 1 if len(self.pairs) > SAMPLED else None

    def _guarantee(self) -> None:
        """Where the greedy leaves out something that is guaranteed, the exact solver looks at the guaranteed alone."""
        first = self.lines[:-1] if self.pairs.problem.aim is Aim.WELFARE else ()
        short = [line for line in first if line.of(self.search.plan) < line.ceiling]
        if not short or len(self.pairs) <= EXACT or self._left() <= 0:
            return
        pairs = self.pairs
        mine = (self.entitled | pairs.must)[pairs.ask]
        rank = np.arange(len(pairs)) - pairs.start[pairs.ask]
        kept = np.flatnonzero(
            mine & (rank < GUARANTEED) | np.isin(np.arange(len(pairs)), list(self.search.plan)) & mine
        )
        used, objective, _ = joined(first, len(kept))
        hint = [pair for pair in self.search.plan if mine[pair]]
        found = Model(pairs, kept).solve(objective, hint, replace(self._effort, seconds=self._left() / 3))
        seats = None if found.chosen is None else bind(pairs, found.chosen, found.nodes)
        if found.chosen is not None and seats is not None and used == len(first):
            plan = topped_up(pairs, {pair: seats.get(pair, ()) for pair in sorted(found.chosen)})
            if goals.better(self.lines, plan, self.search.plan):
                self.search.plan = plan
                self._heard("guarantees")

    def _welfare(self) -> None:
        """One goal after those that come first: prices, and what they lead to."""
        found = self._priced()
        if len(self.pairs) <= EXACT:
            self.stage = self.search.run(self._left, self._effort)
            self._split_again(lambda: self.search.run(self._left, self._effort))
            return
        best = self.search.plan
        for each in chain(priced(self.pairs, found, self.entitled), self._flowed(found)):
            best = max(best, each, key=lambda plan: goals.score(self.lines, plan))
            if self._left() <= A_PLAN * len(self.pairs.asks):
                break
        self.search.plan = best
        self._heard("prices")

        def improve() -> str:
            bound = min(found.whole_bound, self.search.bound_of(len(self.lines) - 1))
            improvement = Improvement(
                self.pairs, self.lines[:-1], self.lines[-1], found, self.search.plan, bound, self._improved
            )
            self._improvement = improvement
            stage = improvement.run(self._left, self._effort)
            self.search.take_over(improvement)
            return stage

        def improve_again() -> str:
            nonlocal found
            found = self._priced()
            return improve()

        self._split_again(improve_again)
        self.stage = improve()

    def _flowed(self, prices: Prices) -> Iterator[Plan]:
        """Plans by way of a flow, where nothing comes before value and it is not too wide to be worth its time."""
        if len(self.lines) == 1 and len(self.pairs) <= FLOWING:
            yield from flowed(self.pairs, self.lines[0].coefficient, prices)

    def _priced(self) -> Prices:
        """The clearing prices, and what they prove of the last goal."""
        pairs, line = self.pairs, self.lines[-1]
        forced = pairs.must.copy()
        first = self.lines[:-1]
        if all(each.of(self.search.plan) == each.ceiling for each in first):
            forced |= self.entitled
        forced &= np.diff(pairs.start) > 0

        def left() -> float:
            return self._left() - A_PLAN * len(pairs.asks)

        # Ways to split are priced more than once, and the first prices are still read then.
        into = None if self._memory is None or pairs.splits.any() else self._memory.lent(len(pairs))
        known = self.prices or self._before
        found = clear(pairs, line.coefficient, left=left, before=known, forced=forced, into=into)
        self.prices, self.reduced = found.by_limit(), found.reduced
        self.search.prove(len(self.lines) - 1, found.whole_bound, Proof.PRICES)
        return found

    def _split_again(self, solve: Callable[[], str]) -> None:
        """Where not every way to split could be listed: new ones from what this plan leaves, and once more."""
        for _ in range(AGAIN):
            if not self.pairs.partial or self._left() <= 0:
                return
            ledger = spent(self.pairs, self.search.plan)
            buckets = self.pairs.market.buckets
            room = ledger.left[: self.pairs.usage.cells : buckets].astype(np.int64)
            amount = -(self.pairs.cost + self.pairs.loss).astype(np.float64)
            score = amount if self.reduced is None else self.reduced
            ways = afresh(self.pairs, room, score)
            if not ways:
                return
            pairs, moved = extended(self.pairs, ways)
            before, plan = self.search, {int(moved[pair]): seats for pair, seats in self.search.plan.items()}
            self._look(pairs)
            self._search = Search(pairs, self.lines, plan, self.entitled, self._heard)
            self._search.inherit(before)
            value = goals.score(self.lines, plan)
            self._search.top_up()
            self.stage = solve()
            if goals.score(self.lines, self.search.plan) == value:
                return

    # --- telling -----------------------------------------------------------------------------------------------------

    def _heard(self, stage: str) -> None:
        if self._watch is None:
            return
        goal = next((goal for goal in self.search.goals() if goal.gap > 0), None)
        self._watch(
            Progress(
                seconds=self._elapsed(),
                stage=stage,
                goal=goal.name if goal else "",
                reached=goal.reached if goal else None,
                bound=goal.bound if goal else None,
            )
        )

    def _improved(self, stage: str) -> None:
        if self._watch is None:
            return
        improvement = self._improvement
        self._watch(
            Progress(
                seconds=self._elapsed(),
                stage=stage,
                goal=improvement.line.name,
                reached=improvement.value,
                bound=improvement.bound,
            )
        )

    @contextmanager
    def _surviving(self, stage: str) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # whatever a solver dies of, the plan so far is valid
            self.trouble = f"{stage}: {type(error).__name__}: {error}"[:300]
