"""Thinking: from open requests and a snapshot to a plan. Nothing here touches the store but ``look``.

The optimizer runs in threads of its own, within the time a person waits, and what it can't answer for many at once is
asked again for halves. A request that it can't answer for at all, alone and several times, is refused and told so: no
answer, or a very late one, is worse than «no». A quote is the same thought with nothing done about it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog

from broker.domain import placing
from broker.domain.errors import Overloaded
from broker.domain.offer import Policy
from broker.domain.placing import Plan, Stock, Want
from broker.domain.request import Request
from broker.kit.kept import Kept
from broker.service import reasons, views
from broker.service.market import Snapshot, nothing
from broker.service.moves import Moves
from broker.service.translate import budget_id, budget_of, may_start, pays, policy_spec, want, window
from broker.store.leases import month_of
from broker.store.unit import Unit
from broker.wire.requests import CapacityRequest, Reason
from optimizer.problem import Problem
from optimizer.solution import Solution

T = TypeVar("T")
_log = structlog.stdlib.get_logger(__name__)
AT_ONCE = 20_000
"""Most requests in one solve; the others wait for the next round, the least urgent last."""
THINK_S, THINK_MORE_S, MANY = 0.1, 0.1, 500
"""How long one solve may look for better plans, and how much longer about this many requests; the plan it has then is
the answer. What few ask for is all but always settled within the first, and who asks next waits for it."""
OVERDUE_S = 5.0
"""A solve that hasn't come back by then is given up."""
QUOTES = 1_000
"""Most quotes that wait at a time, each until it is overdue: who must be told to come back has waited for it."""
TRIES = 3
"""A request for which alone the solver failed so often is refused."""
MOST_ALTERNATIVES, LEAST_ALTERNATIVES, ALTERNATIVES = 20, 4, 2_000
"""How many other offers a placement tells about: for one request, for each of many, and for all of them together."""


NOWHERE: Mapping[str, int] = {}
"""Of nearly everybody: no data to bring."""


class NotStarted(Exception):
    """It waited for others all the time it had."""


class Lane:
    """A thread that does one thing after the other; where one of them never ends, another thread goes on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """``TimeoutError`` when it takes longer than ``OVERDUE_S``, ``NotStarted`` when it had not begun by then.

        Whoever goes away while waiting for a turn leaves none of it behind.
        """
        pool, began = self._pool, time.monotonic()

        def begun() -> T:
            nonlocal began
            began = time.monotonic()
            return work()

        future = pool.submit(begun)
        waiting = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({waiting}, timeout=OVERDUE_S)
            if not done and future.cancel():
                raise NotStarted
            if not done and (left := began + OVERDUE_S - time.monotonic()) > 0:  # its turn came late
                done, _ = await asyncio.wait({waiting}, timeout=left)
            if done:
                return waiting.result()
        finally:
            waiting.cancel()
        if self._pool is pool:
            pool.shutdown(wait=False)
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        raise TimeoutError

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Thinking(Moves):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        # One thread each, so that a round waits for one quote at most.
        self._rounds, self._quotes = Lane("rounds"), Lane("quotes")
        self._failures: Kept[str, int] = Kept(10_000)
        """Request → how often the solver failed on it alone."""
        self._asking = 0
        """Quotes that are being thought about, or wait for it."""
        self._last: Solution | None = None
        """Of the round before: what is still open of it, and its prices."""

        self.next_start: datetime | None = None
        """When the window of a request opens that this round had to leave out."""

    async def stop(self) -> None:
        self._rounds.close()
        self._quotes.close()
        await super().stop()

    # --- look ------------------------------------------------------------------------------------------------------

    def look(self, unit: Unit) -> tuple[list[Request], Snapshot, Mapping[tuple[str, str], Policy], Mapping[str, int]]:
        """All open requests, the market, the burst policies, and what these have spent this month."""
        opened = unit.requests.open()
        if len(opened) > AT_ONCE:
            opened.sort(key=lambda request: -views.capacity_request(request.body).priority)
            del opened[AT_ONCE:]
        if not opened:
            return [], nothing(self.now()), {}, {}
        return opened, *self.look_for(unit, opened)

    def look_for(
        self, unit: Unit, asked: Sequence[Request]
    ) -> tuple[Snapshot, Mapping[tuple[str, str], Policy], Mapping[str, int]]:
        """The market, and the burst policies if any of these draws on one."""
        market = self.market.look(unit, now=self.now())
        if all(request.policy is None for request in asked):
            return market, {}, {}
        spent = unit.leases.spent_by_policy(month_of(self.now()))
        return market, unit.policies.all(), {budget_id(*key): amount for key, amount in spent.items()}

    # --- think -----------------------------------------------------------------------------------------------------

    async def thought(
        self,
        asked: Sequence[Request],
        snapshot: Snapshot,
        policies: Mapping[tuple[str, str], Policy],
        spent: Mapping[str, int],
    ) -> Plan | None:
        """A plan for these, or None when thinking about them fails or takes far too long."""
        try:
            return await self._rounds.run(partial(self.plan, asked, snapshot, policies, spent))
        except Exception:
            _log.exception("solve failed", requests=[request.id for request in asked][:20])
            return None

    async def quoted(
        self,
        asked: Request,
        snapshot: Snapshot,
        policies: Mapping[tuple[str, str], Policy],
        spent: Mapping[str, int],
    ) -> Plan | None:
        """As ``thought``, for one that is only asked about; ``Overloaded`` when too many others are."""
        if self._asking >= QUOTES:
            raise Overloaded
        self._asking += 1
        try:
            return await self._quotes.run(partial(self.plan, [asked], snapshot, policies, spent))
        except NotStarted:
            raise Overloaded from None
        except Exception:
            _log.exception("quote failed")
            return None
        finally:
            self._asking -= 1

    def plan(
        self,
        asked: Sequence[Request],
        snapshot: Snapshot,
        policies: Mapping[tuple[str, str], Policy],
        spent: Mapping[str, int],
    ) -> Plan:
        """One solve over all that is given."""
        stock = snapshot.stock()
        wants: list[Want] = []
        budgets: dict[str, int] = {}
        for request in asked:
            if not self._may_borrow(request, snapshot):
                continue
            body = views.capacity_request(request.body)
            if not may_start(body, snapshot.at):
                if body.not_before is not None and body.not_before > snapshot.at:
                    self.next_start = min(self.next_start or body.not_before, body.not_before)
                continue
            policy = policies.get((request.cluster, request.policy)) if request.policy else None
            if request.policy and not pays(policy):
                continue
            spec = None if policy is None else policy_spec(policy.spec)
            matched = snapshot.catalogue.match(driver=body.devices.driver, selector=body.devices.selector)
            wanted = want(request, body, spec, matched=matched, transfers=self._transfers(body, stock))
            if wanted.budget is not None and spec is not None:
                budgets[wanted.budget] = (budget_of(spec) or 0) - spent.get(wanted.budget, 0)
            wants.append(wanted)
        return placing.plan(wants, stock, budgets, self._solve)

    def _transfers(self, body: CapacityRequest, stock: Stock) -> Mapping[str, int]:
        if body.data is None:
            return NOWHERE
        return self.rules.egress.transfers(body.data.region, body.data.gb, stock.regions())

    def _solve(self, problem: Problem) -> Solution:
        share = ALTERNATIVES // max(1, len(problem.asks))
        return self.solve(
            problem,
            time_limit_s=THINK_S + THINK_MORE_S * min(1.0, len(problem.asks) / MANY),
            alternatives=max(LEAST_ALTERNATIVES, min(MOST_ALTERNATIVES, share)),
            unused=False,  # nobody is told
            previous=self._before(problem),
        )

    def _before(self, problem: Problem) -> Solution | None:
        """Where the last solve left off, as far as it says anything about this problem."""
        last = self._last
        if last is None or last.prices:
            return last
        known = {ask.id for ask in problem.asks} & last.placements.keys()
        return last if known else None

    def remember(self, plan: Plan, lost: Sequence[str]) -> None:
        """What the next solve may start from: who was placed by this one and is open still, and the prices."""
        left = {name: each for name, each in plan.solution.placements.items() if name in set(lost)}
        found = replace(plan.solution, placements=left, unplaced={})
        self._last = found if left or found.prices else None

    def failed(self, request: Request) -> bool:
        """Note that the solver failed on it alone; True once that is enough."""
        count = (self._failures.get(request.id) or 0) + 1
        self._failures.keep(request.id, count)
        return count >= TRIES

    # --- why not ---------------------------------------------------------------------------------------------------

    def why(self, request: Request, plan: Plan | None, snapshot: Snapshot) -> tuple[str, str]:
        """Reasons as JSON, and the sentences."""
        if plan is None:
            text = "The solver failed on this request; the broker's log says how. Others are not affected by it."
            return reasons.dump([Reason(reason="solver", detail=text)]), text
        body = views.capacity_request(request.body)
        if not may_start(body, snapshot.at):
            return reasons.outside(window(body), snapshot.at, before=request.reasons)
        refusal = plan.solution.unplaced.get(request.id)
        if refusal is not None:
            found = reasons.reasons(refusal, snapshot.shown, workers=body.devices.workers)
            return reasons.dump(found), reasons.message(refusal)
        if request.policy and self._may_borrow(request, snapshot):
            text = f"Burst policy {request.policy} was removed or suspended, so nobody pays for this."
            return reasons.dump([Reason(reason="policy", detail=text)]), text
        cluster = snapshot.clusters.get(request.cluster)
        text = cluster.why if cluster is not None else "The borrower's cluster is not a member any more."
        return reasons.dump([Reason(reason="borrower", detail=text)]), text

    def at_the_end(self, request: Request, found: str, text: str, at: datetime) -> tuple[str, str]:
        """The last reasons: where a window ends the wait, it is one of them."""
        asked = window(views.capacity_request(request.body))
        if asked.latest is None or at < asked.latest or asked.over(at):
            return found, text
        return reasons.ended(asked, found, text)

    def _may_borrow(self, request: Request, snapshot: Snapshot) -> bool:
        cluster = snapshot.clusters.get(request.cluster)
        return cluster is not None and cluster.revoked_at is None and cluster.clock_safe and not cluster.silent
