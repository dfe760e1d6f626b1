"""Goal by goal: the exact solver on the strict order of goals, with what it proves.

Where it is given every eligible pair its bounds are the problem's. Where there are too many it gets the pairs that
look best at blended prices; its bounds are then dropped, and those of the prices, which hold for all pairs, are
reported instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np

from optimizer import goals
from optimizer.cpsat import Model, joined, taken_apart
from optimizer.effort import Effort
from optimizer.goals import Line
from optimizer.greedy import Plan, eased, priced, topped_up
from optimizer.ledger import Seats, bind
from optimizer.market import Bools, Ints
from optimizer.packing import packed_bound
from optimizer.pairs import Pairs
from optimizer.prices import Prices, clear
from optimizer.solution import Goal, Proof
from optimizer.welfare import Improvement

WHOLE = 12_000
"""Up to so many eligible pairs the exact solver sees all of them."""
CORE = 12_000
"""Of more than that it sees about this many, the first few of every ask."""
WORTH_S = 2e-5
"""Seconds for each pair below which the exact solver would hardly have begun: making its model takes a third of it."""
NEAR = 1e-4
"""Relative gap at which a goal of a large problem is left for the next."""


class Search:
    """The incumbent of one solve, and what is proved of each goal so far."""

    def __init__(
        self, pairs: Pairs, lines: tuple[Line, ...], plan: Plan, entitled: Bools, heard: Callable[[str], None]
    ) -> None:
        self._pairs = pairs
        self._entitled = entitled
        self._heard = heard
        self._lines = lines
        self.plan = plan
        self._proved: dict[int, tuple[int, Proof]] = {}
        self._undisputed = goals.undisputed(pairs, plan)
        self._prices: Prices | None = None
        self.modelled = 0
        self.solves = 0
        self.work = 0.0

    def run(self, left: Callable[[], float], effort: Effort) -> str:
        """Solve the goals in order until all are done or time is up; the name of the last thing that happened."""
        self._undisputed = goals.undisputed(self._pairs, self.plan)
        if self._undisputed and not self._pairs.partial:
            return "undisputed"
        kept = self._core()
        model: Model | None = None
        kept_as: list[tuple[Line, int]] = []
        whole = len(kept) == len(self._pairs) and not self._pairs.partial
        # In a large problem the last ten-thousandth of one goal is worth less than the time for the next.
        gap = 0.0 if self._prices is None else NEAR
        at = 0
        while at < len(self._lines):
            if left() <= 0:
                return "time is up"
            if self._settled(at, left):
                kept_as.append((self._lines[at], self._lines[at].of(self.plan)))
                at += 1
                continue
            if model is None:
                if left() < WORTH_S * len(kept):
                    return "time is up"
                model = Model(self._pairs, kept)
                self.modelled, whole = len(kept), whole and model.exact
            for line, reached in kept_as:
                model.require(line, reached)
            used, objective, factors = joined(self._lines[at:], len(kept))
            block = self._lines[at : at + used]
            rest = len(self._lines) - at - used
            found = model.solve(objective, self.plan, replace(effort, seconds=left() * (0.7 if rest else 1.0), gap=gap))
            self.solves += 1
            self.work += found.work
            if found.chosen is not None:
                self._adopt(found.chosen, found.nodes)
            if whole and found.status in ("OPTIMAL", "FEASIBLE"):
                values = [line.of(self.plan) for line in block]
                for i, bound in enumerate(taken_apart(block, factors, found.best, values)):
                    if bound is not None:
                        self.prove(at + i, bound, Proof.EXACT)
            kept_as = [(line, line.of(self.plan)) for line in block]
            at += used
            self._heard("exact")
        if model is None:
            return "prices"
        return "exact" if whole else "exact on the core"

    def _settled(self, at: int, left: Callable[[], float]) -> bool:
        """Whether prices alone prove the plan best in this goal, so that the solver need not."""
        if self._prices is None:
            return False
        line = self._lines[at]
        if line.of(self.plan) != self.bound_of(at) and at not in self._proved:
            self._bound_by_prices(at, left)
        return line.of(self.plan) == self.bound_of(at)

    def _bound_by_prices(self, at: int, left: Callable[[], float]) -> None:
        """What the prices of one goal prove of it, and where they lead."""
        line, pairs = self._lines[at], self._pairs
        if line.maximise:
            prices = clear(pairs, line.coefficient, left=left)
            self.prove(at, packed_bound(pairs, prices, left), Proof.PACKING)
        elif goals.complete(pairs, self.plan):
            profit, earned = goals.rewarded(line, pairs, goals.forced(self._lines[:at], pairs, self.plan))
            prices = clear(pairs, profit, left=left)
            self.prove(at, earned - packed_bound(pairs, prices, left), Proof.PACKING)
            self._follow(prices)

    def prove(self, at: int, bound: int, proof: Proof) -> None:
        """No plan as good in all goals before passes this in goal ``at``."""
        known = self._proved.get(at)
        if known is None or (bound < known[0] if self._lines[at].maximise else bound > known[0]):
            self._proved[at] = bound, proof

    def price(self, left: Callable[[], float]) -> None:
        """Prices for all goals: they say which pairs deserve the exact solver, and lead to one more plan.

        Where everybody can be placed, what is left to decide is where, and costs count as they are.
        """
        all_placed = goals.complete(self._pairs, self.plan)
        profit = goals.settled(self._pairs) if all_placed else goals.blended(self._pairs)
        self._prices = clear(self._pairs, profit, left=left)
        self._follow(self._prices)

    def _follow(self, prices: Prices) -> None:
        for plan in (eased(self._pairs, each) for each in priced(self._pairs, prices, self._entitled)):
            if goals.better(self._lines, plan, self.plan):
                self.plan = plan
                self._undisputed = goals.undisputed(self._pairs, plan)

    def take_over(self, improvement: Improvement) -> None:
        """The plan and the bound of a problem with one goal that was solved by other means."""
        self.plan = improvement.plan
        self._undisputed = goals.undisputed(self._pairs, self.plan)
        self.prove(len(self._lines) - 1, improvement.bound, improvement.proof)
        self.modelled, self.solves, self.work = improvement.modelled, improvement.solves, improvement.work

    def inherit(self, before: Search) -> None:
        """What was proved of the same problem with fewer ways to split."""
        for at, (bound, proof) in before._proved.items():
            self.prove(at, bound, proof)
        self.solves, self.work = before.solves, before.work

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
                bound=self.bound_of(at),
                proof=self._proof_of(at),
            )
            for at, line in enumerate(self._lines)
        )

    def bound_of(self, at: int) -> int:
        """What no plan passes in goal ``at``, as far as is known."""
        line = self._lines[at]
        if self._undisputed:
            return line.of(self.plan)
        if line.maximise:
            easy = line.ceiling
        else:
            easy = goals.floor(line, self._pairs, self.plan, goals.forced(self._lines[:at], self._pairs, self.plan))
        proved = self._proved.get(at)
        if proved is None:
            return easy
        return min(easy, proved[0]) if line.maximise else max(easy, proved[0])

    def _proof_of(self, at: int) -> Proof:
        proved = self._proved.get(at)
        return Proof.ALONE if proved is None or self.bound_of(at) != proved[0] else proved[1]

    def _adopt(self, chosen: Collection[int], named: Mapping[int, Seats]) -> None:
        seats = bind(self._pairs, chosen, named)
        if seats is None or goals.score(self._lines, chosen) < goals.score(self._lines, self.plan):
            return
        self.plan = eased(self._pairs, {pair: seats.get(pair, ()) for pair in sorted(chosen)})
        self._undisputed = goals.undisputed(self._pairs, self.plan)

    def _core(self) -> Ints:
        pairs = self._pairs
        if len(pairs) <= WHOLE:
            return np.arange(len(pairs))
        order = np.arange(len(pairs)) if self._prices is None else np.lexsort((-self._prices.reduced, pairs.ask))
        rank = np.empty(len(pairs), dtype=np.int64)
        rank[order] = np.arange(len(pairs)) - pairs.start[pairs.ask[order]]
        keep = rank < max(2, CORE // len(pairs.having))
        keep[list(self.plan)] = True
        return np.flatnonzero(keep)
