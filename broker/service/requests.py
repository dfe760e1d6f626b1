"""Capacity requests: taken in, looked at, taken back; and quotes, which cost nothing and promise nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from broker.domain.access import READ, REQUEST, Once, Principal
from broker.domain.errors import BadTerms, NotFound
from broker.domain.lease import Ending, Lease, State
from broker.domain.offer import Policy
from broker.domain.request import Request, RequestState
from broker.kit.durations import format_duration
from broker.service import selectors, views
from broker.service.answers import Page
from broker.service.core import page_limit, read_cursor
from broker.service.market import Snapshot
from broker.service.moves import Move
from broker.service.placing import Placing
from broker.service.translate import policy_spec, window
from broker.store.unit import Unit
from broker.wire import requests as wire
from broker.wire.burst import BurstPolicySpec
from broker.wire.requests import CapacityRequest, RequestView


class Requests(Placing):
    async def submit(self, p: Principal, body: CapacityRequest, once: Once | None = None) -> RequestView:
        """Taken in; the placing looks for devices at once. ``wait`` says how long it may go on looking."""
        p.require(REQUEST)
        p.may_speak_for(body.cluster)
        await self._check_selector(body)

        def job(unit: Unit) -> RequestView:
            request = self._new(unit, p, body)
            revision = unit.log.add(
                "request.open",
                at=request.created_at,
                subject=p.subject,
                request=request.id,
                peer=request.cluster,
                tenant=request.tenant,
            )
            request = replace(request, revision=revision)
            unit.requests.add(request)
            return views.request_view(request, None)

        return await self._once(p, once, RequestView, job)

    async def quote(self, p: Principal, body: CapacityRequest) -> RequestView:
        """What a request would be answered with if it came now, alone: nothing is reserved and nothing is kept."""
        p.require(REQUEST)
        p.may_speak_for(body.cluster)
        await self._check_selector(body)

        def look(unit: Unit) -> tuple[Request, Snapshot, Mapping[tuple[str, str], Policy], Mapping[str, int]]:
            request = self._new(unit, p, body)
            return request, *self.look_for(unit, [request])

        request, snapshot, policies, spent = await self.store.read(look)
        request = replace(request, id=self.ids("quo"))
        now = _asked_now(request, body)
        plan = await self.quoted(now, snapshot, policies, spent)
        if plan is not None and plan.choices:
            placement = self._placement(plan.choices[0], plan, snapshot)
            answer = replace(request, state=RequestState.PLACED, placement=placement)
        else:
            found, text = self.why(now, plan, snapshot)
            answer = replace(request, state=RequestState.REFUSED, reasons=found, message=text)
        when = "" if now is request else "It says what would fit now, not what will at not_before. "
        text = f"A quote: nothing was reserved. {when}{answer.message}".strip()
        return views.request_view(replace(answer, message=text), None)

    async def request(self, p: Principal, request_id: str) -> RequestView:
        p.require(READ)
        request, lease = await self.store.read(lambda unit: self._with_lease(unit, _seen(unit, p, request_id)))
        return views.request_view(request, lease, solving=request.id in self.solving)

    async def requests(
        self,
        p: Principal,
        *,
        state: wire.RequestState | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[RequestView]:
        """Newest first."""
        p.require(READ)
        most, before = page_limit(limit), read_cursor(cursor)
        seen = self.feed.last  # before the look: whoever watches from here misses nothing

        def look(unit: Unit) -> tuple[list[Request], dict[str, Lease]]:
            rows = unit.requests.page(
                tenant=None if p.admin else p.tenant,
                cluster=p.cluster,
                state=None if state is None else state.value,
                before=before,
                limit=most + 1,
            )
            leases = unit.leases.by_id(row.lease for row in rows if row.lease is not None)
            return rows, {lease.id: lease for lease in leases}

        rows, leases = await self.store.read(look)
        return self._page(
            rows,
            seen=seen,
            limit=most,
            key=lambda row: row.id,
            view=lambda row: views.request_view(row, leases.get(row.lease or ""), solving=row.id in self.solving),
        )

    async def cancel(self, p: Principal, request_id: str) -> RequestView:
        """Whoever asked takes it back; a lease that was being made, or runs, is drained."""
        p.require(REQUEST)

        def job(unit: Unit) -> RequestView:
            request = _seen(unit, p, request_id)
            if request.state is RequestState.CANCELLED:
                return views.request_view(*self._with_lease(unit, request))
            changed = self.save_requests(unit, [(request, request.cancelled(now=self.now()))], by=p.subject)[0]
            lease = unit.leases.find(request.lease) if request.lease else None
            if lease is not None and lease.state in (State.RESERVED, State.PREPARED, State.ACTIVE, State.ORPHANED):
                after = lease.drained(now=self.now(), ending=Ending.CANCELLED)
                lease = self.move(unit, [Move(before=lease, after=after, types=["lease.draining"])], by=p.subject)[0]
            return views.request_view(changed, lease)

        return await self.store.write(job)

    # --- inside ----------------------------------------------------------------------------------------------------

    async def _check_selector(self, body: CapacityRequest) -> None:
        selector = body.devices.selector
        if selector is not None and not selectors.known_good(selector):
            # Compiling takes a while for a hostile expression; others shouldn't wait for it.
            await asyncio.to_thread(selectors.check, selector)

    def _new(self, unit: Unit, p: Principal, body: CapacityRequest) -> Request:
        now = self.now()
        cluster = unit.clusters.find(body.cluster)
        if cluster is None or cluster.revoked_at is not None:
            raise NotFound("cluster", body.cluster)
        p.must_see("cluster", body.cluster, tenants=(cluster.tenant,), clusters=(cluster.name,))
        policy = unit.policies.find(body.cluster, body.policy) if body.policy is not None else None
        if body.policy is not None and policy is None:
            raise NotFound("burst policy", f"{body.cluster}/{body.policy}")
        _check_terms(body, policy)
        _check_window(body, now)
        text = body.model_dump_json()
        views.remember_request(text, body)
        return Request(
            id=self.ids("req"),
            tenant=cluster.tenant,
            cluster=body.cluster,
            policy=body.policy,
            body=text,
            created_at=now,
            updated_at=now,
            wait_until=window(body).until(now, None if body.wait is None else timedelta(seconds=body.wait)),
        )

    def _with_lease(self, unit: Unit, request: Request) -> tuple[Request, Lease | None]:
        return request, unit.leases.find(request.lease) if request.lease is not None else None


def _seen(unit: Unit, p: Principal, request_id: str) -> Request:
    request = unit.requests.find(request_id)
    if request is None:
        raise NotFound("request", request_id)
    p.must_see("request", request_id, tenants=(request.tenant,), clusters=(request.cluster,))
    return request


def _asked_now(request: Request, body: CapacityRequest) -> Request:
    """A quote knows no later offers than today's: it is for a start now."""
    if body.not_before is None or not window(body).early(request.created_at):
        return request
    body = body.model_copy(update={"not_before": None})
    text = body.model_dump_json()
    views.remember_request(text, body)
    return replace(request, body=text)


def _check_window(body: CapacityRequest, now: datetime) -> None:
    """What can't be in time is refused at once, with what would be."""
    wrong = window(body).mistake(now)
    if wrong is not None:
        field, words, sentence = wrong
        raise BadTerms(sentence, errors=[{"pointer": f"/{field}", "detail": words}])


def _check_terms(body: CapacityRequest, policy: Policy | None) -> None:
    spec: BurstPolicySpec | None = None if policy is None else policy_spec(policy.spec)
    if body.duration < 1:
        raise BadTerms(
            "A request needs a duration of at least 1s.", errors=[{"pointer": "/duration", "detail": "is zero"}]
        )
    if body.price_cap is None and not body.tiers and spec is None:
        raise BadTerms(
            "Say the most you would pay per device-hour: price_cap, or tiers with a price_cap each.",
            errors=[{"pointer": "/price_cap", "detail": "is missing"}],
        )
    names = [tier.name for tier in body.tiers]
    if len(set(names)) != len(names):
        raise BadTerms("Two tiers have the same name.", errors=[{"pointer": "/tiers", "detail": "names repeat"}])
    if spec is None or policy is None:
        return
    if spec.suspended:
        raise BadTerms(
            f"Burst policy {policy.name} is suspended.", errors=[{"pointer": "/policy", "detail": "suspended"}]
        )
    if body.tiers:
        raise BadTerms(
            f"Burst policy {policy.name} says which tiers there are: leave out either tiers or policy.",
            errors=[{"pointer": "/tiers", "detail": "are the policy's to name"}],
        )
    if body.duration > spec.max_duration:
        raise BadTerms(
            f"Burst policy {policy.name} allows {format_duration(spec.max_duration)} at most, "
            f"and {format_duration(body.duration)} were asked for.",
            errors=[{"pointer": "/duration", "detail": "longer than the policy's max_duration"}],
        )
