"""Leases as their parties use them: look, renew, give back, take back, revoke.

A borrower's tenant may renew and return, a lender's reclaim, an administrator revoke; both tenants may look. Anybody
else is told that there is no such lease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from broker.domain.access import ADMIN, LEND, READ, REQUEST, Once, Principal
from broker.domain.errors import BadTerms, BudgetExhausted, NotFound
from broker.domain.lease import Ending, Lease, State
from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.service import views
from broker.service.answers import Page
from broker.service.core import page_limit, read_cursor
from broker.service.moves import Move, Moves
from broker.service.translate import budget_of, policy_spec
from broker.store.leases import month_of
from broker.store.unit import Unit
from broker.wire.leases import LeaseState, LeaseView, Reclaim, Renewal, Revocation


class Leases(Moves):
    async def lease(self, p: Principal, lease_id: str) -> LeaseView:
        p.require(READ)
        return views.lease_view(await self.store.read(lambda unit: seen(unit, p, lease_id)))

    async def leases(
        self,
        p: Principal,
        *,
        state: LeaseState | None = None,
        cluster: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[LeaseView]:
        """Newest first, on either side."""
        p.require(READ)
        most, before = page_limit(limit), read_cursor(cursor)
        seen = self.feed.last  # before the look: whoever watches from here misses nothing
        if p.cluster is not None and cluster not in (None, p.cluster):
            return Page([], None, self.feed.last)
        rows = await self.store.read(
            lambda unit: unit.leases.page(
                tenant=None if p.admin else p.tenant,
                cluster=p.cluster or cluster,
                state=None if state is None else state.value,
                before=before,
                limit=most + 1,
            )
        )
        return self._page(rows, seen=seen, limit=most, key=lambda row: row.id, view=views.lease_view)

    async def return_lease(self, p: Principal, lease_id: str, once: Once | None = None) -> LeaseView:
        """The borrower is done with it. Again is fine: the answer is how it stands."""
        p.require(REQUEST)

        def change(unit: Unit, lease: Lease) -> LeaseView:
            if lease.state in (State.DRAINING, State.QUARANTINED, State.ENDED):
                return views.lease_view(lease)
            after = lease.drained(now=self.now(), ending=Ending.RETURNED)
            return self._moved(unit, lease, replace(after, ending=Ending.RETURNED), p)

        return await self._once(p, once, LeaseView, self._on(p, lease_id, borrower(p), change))

    async def renew(self, p: Principal, lease_id: str, body: Renewal, once: Once | None = None) -> LeaseView:
        """More time, as far as terms and budget allow; ``expires_at`` in the answer is what was really given."""
        p.require(REQUEST)
        if body.duration < 1:
            raise BadTerms("A renewal needs a duration of at least 1s, counted from now.")

        def change(unit: Unit, lease: Lease) -> LeaseView:
            after = lease.renewed(now=self.now(), duration_s=body.duration)
            self._must_be_wanted(unit, after)
            self._must_afford(unit, lease, after)
            return self._moved(unit, lease, self.signed(after), p, "lease.renewed")

        return await self._once(p, once, LeaseView, self._on(p, lease_id, borrower(p), change))

    async def reclaim(self, p: Principal, lease_id: str, body: Reclaim, once: Once | None = None) -> LeaseView:
        """The lender wants its devices back: after the notice and the minimum runtime that the terms name."""
        p.require(LEND)

        def change(unit: Unit, lease: Lease) -> LeaseView:
            text = body.reason or f"The lender {lease.lender} takes its devices back."
            after = lease.reclaimed(now=self.now(), message=text)
            return self._moved(unit, lease, after, p, None if after.state is not lease.state else "lease.reclaimed")

        return await self._once(p, once, LeaseView, self._on(p, lease_id, lender(p), change))

    async def revoke(self, p: Principal, lease_id: str, body: Revocation, once: Once | None = None) -> LeaseView:
        """An administrator ends it at once."""
        p.require(ADMIN)

        def change(unit: Unit, lease: Lease) -> LeaseView:
            after = lease.drained(now=self.now(), ending=Ending.REVOKED, message=body.reason)
            return self._moved(unit, lease, replace(after, ending=Ending.REVOKED), p)

        return await self._once(p, once, LeaseView, self._on(p, lease_id, lambda lease: True, change))

    def _on(
        self,
        p: Principal,
        lease_id: str,
        mine: Callable[[Lease], bool],
        change: Callable[[Unit, Lease], LeaseView],
    ) -> Callable[[Unit], LeaseView]:
        def job(unit: Unit) -> LeaseView:
            lease = seen(unit, p, lease_id)
            if not mine(lease):
                raise NotFound("lease", lease_id)
            return change(unit, lease)

        return job

    def _moved(self, unit: Unit, before: Lease, after: Lease, p: Principal, type_: str | None = None) -> LeaseView:
        move = Move(before=before, after=after, types=[type_ or f"lease.{after.state.value.lower()}"])
        return views.lease_view(self.move(unit, [move], by=p.subject)[0])

    def _must_be_wanted(self, unit: Unit, after: Lease) -> None:
        """A renewal stays within the total that the request named."""
        request = unit.requests.find(after.request)
        cap = None if request is None else views.capacity_request(request.body).total_cap
        if cap is not None and after.cost_micros > cap.amount:
            raise BudgetExhausted(
                f"Renewed, the lease could cost {dollars(after.cost_micros)}; the request's total_cap is "
                f"{dollars(cap.amount)}."
            )

    def _must_afford(self, unit: Unit, before: Lease, after: Lease) -> None:
        policy = unit.policies.find(before.borrower, before.policy) if before.policy else None
        if policy is None:
            return
        spec = policy_spec(policy.spec)
        budget = budget_of(spec)
        if after.active_at is not None and after.expires_at is not None:
            whole = after.expires_at - after.active_at
            if whole > timedelta(seconds=spec.max_duration):
                raise BadTerms(
                    f"Burst policy {policy.name} allows {format_duration(spec.max_duration)} at most, start to end."
                )
        month = month_of(before.created_at)
        spent = unit.leases.spent(cluster=before.borrower, policy=policy.name, month=month)
        more = after.cost_micros - before.cost_micros
        if budget is not None and spent + more > budget:
            raise BudgetExhausted(
                f"The renewal could cost {dollars(more)} more, and burst policy {policy.name} has "
                f"{dollars(max(0, budget - spent))} left for {month}."
            )


def dollars(micros: int) -> str:
    return f"${from_micros(micros):,}"


def seen(unit: Unit, p: Principal, lease_id: str) -> Lease:
    """The lease; ``NotFound`` where it isn't theirs to see."""
    lease = unit.leases.find(lease_id)
    if lease is None:
        raise NotFound("lease", lease_id)
    p.must_see("lease", lease_id, tenants=(lease.tenant, lease.lender_tenant), clusters=(lease.lender, lease.borrower))
    return lease


def borrower(p: Principal) -> Callable[[Lease], bool]:
    return lambda lease: p.sees(tenants=(lease.tenant,), clusters=(lease.borrower,))


def lender(p: Principal) -> Callable[[Lease], bool]:
    return lambda lease: p.sees(tenants=(lease.lender_tenant,), clusters=(lease.lender,))
