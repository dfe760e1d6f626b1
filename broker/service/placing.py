"""Placing: everything that is open, solved together over everything on offer, and committed.

A round takes a snapshot, thinks outside any transaction, and commits what it decided in one. By then the snapshot may
be stale; whether a device is still free only the store's constraint knows, whether a request is still open only its
revision, whether money is left only the sum at that moment. A placement that any of these refuses is undone alone and
its request stays open for the next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from broker.domain import placing
from broker.domain.errors import BudgetExhausted, DeviceTaken, LenderUnavailable, StaleVersion
from broker.domain.lease import Lease
from broker.domain.offer import Policy
from broker.domain.placing import Choice, Plan, Want
from broker.domain.request import Request
from broker.service import reasons, views
from broker.service.market import Snapshot
from broker.service.moves import Moves, about
from broker.service.translate import budget_id, budget_of, pays, policy_spec, want
from broker.store.leases import month_of
from broker.store.unit import Unit
from broker.wire.base import price
from broker.wire.devices import OfferedDevice
from broker.wire.leases import LeaseBody, LeasedDevice
from broker.wire.requests import Reason

_log = structlog.stdlib.get_logger(__name__)
BROKER = "broker"
AT_ONCE = 20_000
"""Most requests in one solve; the others wait for the next round, the least urgent last."""
_LOST = (DeviceTaken, StaleVersion, LenderUnavailable, BudgetExhausted)


@dataclass(frozen=True, slots=True)
class Grant:
    """One placement on its way into the store."""

    request: Request
    choice: Choice
    placement: str


@dataclass(slots=True)
class Round:
    """What came of one round."""

    open: int = 0
    placed: list[str] = field(default_factory=list)
    """Ids of the requests."""
    lost: list[str] = field(default_factory=list)
    """Placed by the plan, refused by the store: still open."""
    refused: list[str] = field(default_factory=list)
    solver: dict[str, object] = field(default_factory=dict)

    @property
    def again(self) -> bool:
        """Somebody is still open who might be served now."""
        return bool(self.lost)


class Placing(Moves):
    async def place(self) -> Round:
        """One round over all open requests."""
        opened, snapshot, policies, spent = await self.store.read(self.look)
        if not opened:
            return Round()
        self.solving = {request.id for request in opened}
        try:
            plans = await asyncio.to_thread(self._plans, opened, snapshot, policies, spent)
            sorted_out = [await asyncio.to_thread(self.sort_out, part, plan, snapshot) for part, plan in plans]
            grants = [grant for some, _ in sorted_out for grant in some]
            others = [other for _, some in sorted_out for other in some]
            done = await self.store.write(lambda unit: self.commit(unit, grants, others, snapshot))
        finally:
            self.solving = set()
        done.open = len(opened)
        for _, plan in plans:
            done.solver = reasons.solver(plan)
            done.lost += sorted(plan.left)
        return done

    # --- look and think --------------------------------------------------------------------------------------------

    def look(self, unit: Unit) -> tuple[list[Request], Snapshot, dict[tuple[str, str], Policy], dict[str, int]]:
        """All open requests, the market, the burst policies, and what these have spent this month."""
        opened = unit.requests.open()
        if len(opened) > AT_ONCE:
            opened.sort(key=lambda request: -views.capacity_request(request.body).priority)
            del opened[AT_ONCE:]
        if not opened:
            return [], Snapshot(self.now(), {}, {}, set()), {}, {}
        return opened, self.market.look(unit, now=self.now()), unit.policies.all(), self._spent(unit)

    def _spent(self, unit: Unit) -> dict[str, int]:
        month = month_of(self.now())
        return {budget_id(*key): spent for key, spent in unit.leases.spent_by_policy(month).items()}

    def _plans(
        self,
        opened: Sequence[Request],
        snapshot: Snapshot,
        policies: Mapping[tuple[str, str], Policy],
        spent: Mapping[str, int],
    ) -> list[tuple[Sequence[Request], Plan]]:
        """One plan for all; where that fails, one for each half: what can't be thought about stops nobody else."""
        try:
            return [(opened, self.plan(opened, snapshot, policies, spent))]
        except Exception:
            _log.exception("solve failed", requests=[request.id for request in opened][:20])
            if len(opened) == 1:
                return []
            half = len(opened) // 2
            first = self._plans(opened[:half], snapshot, policies, spent)
            taken = {ref for _, plan in first for choice in plan.choices for ref in choice.refs}
            rest = replace(snapshot, taken=snapshot.taken | taken)
            return first + self._plans(opened[half:], rest, policies, spent)

    def plan(
        self,
        opened: Sequence[Request],
        snapshot: Snapshot,
        policies: Mapping[tuple[str, str], Policy],
        spent: Mapping[str, int],
    ) -> Plan:
        """Think: nothing here touches the store."""
        stock = placing.shelves(snapshot.lots(), snapshot.taken)
        lots = [shelf.lot for shelf in stock.values()]
        wants: list[Want] = []
        budgets: dict[str, int] = {}
        for request in opened:
            if not self._may_borrow(request, snapshot):
                continue
            body = views.capacity_request(request.body)
            policy = policies.get((request.cluster, request.policy)) if request.policy else None
            if request.policy and not pays(policy):
                continue
            spec = None if policy is None else policy_spec(policy.spec)
            matched = self.market.match(lots, driver=body.devices.driver, selector=body.devices.selector)
            wanted = want(request, body, spec, matched=matched)
            if wanted.budget is not None and spec is not None:
                budgets[wanted.budget] = (budget_of(spec) or 0) - spent.get(wanted.budget, 0)
            wants.append(wanted)
        return placing.plan(wants, stock, budgets, self.solve)

    def _may_borrow(self, request: Request, snapshot: Snapshot) -> bool:
        cluster = snapshot.clusters.get(request.cluster)
        return cluster is not None and cluster.revoked_at is None and cluster.clock_safe and not cluster.silent

    def sort_out(
        self, opened: Iterable[Request], plan: Plan, snapshot: Snapshot
    ) -> tuple[list[Grant], list[tuple[Request, Request]]]:
        """Who gets what, and what becomes of the others."""
        requests = {request.id: request for request in opened}
        grants = [
            Grant(requests.pop(choice.want.id), choice, self._placement(choice, plan, snapshot))
            for choice in plan.choices
        ]
        others: list[tuple[Request, Request]] = []
        for request in requests.values():
            if request.id in plan.left:
                continue
            found, text = self._why(request, plan, snapshot)
            if request.attempts and request.reasons == "[]" and request.message:
                text = f"{request.message} Nothing else fits: {text}"[:1_024]
            if snapshot.at >= request.wait_until:
                others.append((request, request.refused(reasons=found, message=text, now=self.now())))
            elif found != request.reasons:
                others.append((request, request.waiting(reasons=found, message=text, now=self.now())))
        return grants, others

    def _placement(self, choice: Choice, plan: Plan, snapshot: Snapshot) -> str:
        return reasons.placement_view(choice, plan, snapshot.shown).model_dump_json()

    def _why(self, request: Request, plan: Plan, snapshot: Snapshot) -> tuple[str, str]:
        """Reasons as JSON, and the sentences."""
        refusal = plan.solution.unplaced.get(request.id)
        if refusal is None:
            cluster = snapshot.clusters.get(request.cluster)
            if request.policy and self._may_borrow(request, snapshot):
                text = f"Burst policy {request.policy} was removed or suspended, so nobody pays for this."
                return reasons.dump([Reason(reason="policy", detail=text)]), text
            text = cluster.why if cluster is not None else "The borrower's cluster is not a member any more."
            return reasons.dump([Reason(reason="borrower", detail=text)]), text
        return reasons.dump(reasons.reasons(refusal, snapshot.shown)), reasons.message(refusal)

    # --- commit ----------------------------------------------------------------------------------------------------

    def commit(
        self,
        unit: Unit,
        grants: Sequence[Grant],
        others: Sequence[tuple[Request, Request]],
        snapshot: Snapshot,
    ) -> Round:
        """Write what was decided, as far as it still holds."""
        done = Round()
        try:
            with unit.attempt():
                self._grant(unit, grants, snapshot)
            done.placed = [grant.request.id for grant in grants]
        except Exception as error:
            if not isinstance(error, _LOST):
                _log.exception("grants failed together", requests=[grant.request.id for grant in grants][:20])
            for grant in grants:
                try:
                    with unit.attempt():
                        self._grant(unit, [grant], snapshot)
                    done.placed.append(grant.request.id)
                except _LOST:
                    done.lost.append(grant.request.id)
                except Exception:  # what can't be written stops nobody else; it stays open and is tried again later
                    _log.exception("grant failed", request=grant.request.id)
        for before, after in others:
            try:
                with unit.attempt():
                    self.save_requests(unit, [(before, after)], by=BROKER)
            except StaleVersion:
                continue  # cancelled while we thought
            if after.state is not before.state:
                done.refused.append(before.id)
        return done

    def _grant(self, unit: Unit, grants: Sequence[Grant], snapshot: Snapshot) -> list[Lease]:
        """RESERVED, all or none: fences, lease rows, device rows under the unique index, log, requests."""
        if not grants:
            return []
        now = self.now()
        fences = _Fences(unit, grants)
        new: list[tuple[Lease, Sequence[str]]] = []
        for grant in grants:
            lease = self._lease(grant, snapshot, fence=fences.next(grant.choice.lot.cluster))
            revision = unit.log.add("lease.reserved", at=now, subject=BROKER, **about(lease))
            new.append((replace(lease, revision=revision), grant.choice.refs))
        self._must_hold(unit, [lease for lease, _ in new])
        unit.leases.reserve(new, self.rules)
        changes = [
            (grant.request, grant.request.placed(lease=lease.id, placement=grant.placement, now=now))
            for grant, (lease, _) in zip(grants, new, strict=True)
        ]
        self.save_requests(unit, changes, by=BROKER)
        return [lease for lease, _ in new]

    def _lease(self, grant: Grant, snapshot: Snapshot, *, fence: int) -> Lease:
        choice, request = grant.choice, grant.request
        shown = snapshot.shown[choice.lot.id]
        body = views.capacity_request(request.body)
        lease_id = self.ids("lse")
        devices = [shown.devices[ref] for ref in choice.refs]
        contract = LeaseBody.model_construct(
            id=lease_id,
            request=request.id,
            lender=choice.lot.cluster,
            borrower=request.cluster,
            tenant=request.tenant,
            kind=shown.offer.kind,
            devices=tuple(_leased(device, fence) for device in sorted(devices, key=lambda each: each.ref(""))),
            price=price(choice.lot.price_micros),
            terms=shown.offer.terms,
            place=shown.offer.place,
            confidential=shown.offer.confidential if choice.want.confidential != "none" else None,
            duration=body.duration,
        )
        text = contract.model_dump_json()
        views.remember(text, contract)
        lease = Lease(
            id=lease_id,
            request=request.id,
            offer=choice.lot.id,
            lender=choice.lot.cluster,
            borrower=request.cluster,
            tenant=request.tenant,
            lender_tenant=choice.lot.tenant,
            policy=request.policy,
            devices=len(devices),
            price_micros=choice.lot.price_micros,
            duration_s=body.duration,
            max_duration_s=shown.offer.terms.max_duration,
            reclaim_notice_s=shown.offer.terms.reclaim_notice,
            minimum_runtime_s=shown.offer.terms.minimum_runtime,
            body=text,
            workload_namespace=body.workload.namespace,
            created_at=self.now(),
        )
        return lease.reserved(fence=fence, now=self.now(), rules=self.rules)

    def _must_hold(self, unit: Unit, leases: Iterable[Lease]) -> None:
        worst: dict[tuple[str, str], int] = {}
        for lease in leases:
            if lease.policy is not None:
                key = (lease.borrower, lease.policy)
                worst[key] = worst.get(key, 0) + lease.cost_micros
        for (cluster, name), more in worst.items():
            policy = unit.policies.find(cluster, name)
            if not pays(policy):
                raise StaleVersion("burst policy", f"{cluster}/{name}")
            budget = budget_of(policy_spec(policy.spec))
            spent = unit.leases.spent(cluster=cluster, policy=name, month=month_of(self.now()))
            if budget is not None and spent + more > budget:
                raise BudgetExhausted(f"The budget of burst policy {name} can't hold the worst case.")


class _Fences:
    """One new fence per lease, taken from each lender's counter in one go."""

    def __init__(self, unit: Unit, grants: Sequence[Grant]) -> None:
        counts: dict[str, int] = {}
        for grant in grants:
            counts[grant.choice.lot.cluster] = counts.get(grant.choice.lot.cluster, 0) + 1
        # In order of names, so that two brokers can't wait for each other.
        self._next = {name: unit.clusters.next_fence(name, by=counts[name]) - counts[name] for name in sorted(counts)}

    def next(self, lender: str) -> int:
        self._next[lender] += 1
        return self._next[lender]


def _leased(device: OfferedDevice, fence: int) -> LeasedDevice:
    fields: dict[str, Any] = {name: getattr(device, name) for name in OfferedDevice.model_fields}
    return LeasedDevice.model_construct(**fields, fence=fence)
