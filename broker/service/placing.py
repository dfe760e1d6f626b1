"""Placing: everything that is open, solved together over everything on offer, and committed.

A round takes a snapshot, thinks outside any transaction, and commits what it decided in one. By then the snapshot may
be stale; whether a device is still free only the store's constraint knows, whether a request is still open only its
revision, whether money is left only the sum at that moment. A placement that any of these refuses is undone alone and
its request stays open for the next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from broker.domain.errors import BudgetExhausted, DeviceTaken, LenderUnavailable, StaleVersion
from broker.domain.lease import Lease
from broker.domain.placing import Choice, Plan
from broker.domain.request import Request
from broker.service import reasons, views
from broker.service.market import DEVICE, Device, Snapshot
from broker.service.moves import about
from broker.service.thinking import Thinking
from broker.service.translate import budget_of, pays, policy_spec
from broker.store.leases import month_of
from broker.store.unit import Unit
from broker.wire.base import price
from broker.wire.leases import LeaseBody, LeasedDevice

_log = structlog.stdlib.get_logger(__name__)
BROKER = "broker"
Others = Sequence[tuple[Request, Request]]
"""Requests that get nothing: before, and after."""
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
    failed: list[str] = field(default_factory=list)
    """The solver failed on them: open until it has failed often enough."""
    solver: dict[str, object] = field(default_factory=dict)

    @property
    def again(self) -> bool:
        """Somebody is still open who might be served now."""
        return bool(self.lost or self.failed)

    def add(self, part: Round) -> None:
        """What came of a part of it."""
        self.open += part.open
        self.placed += part.placed
        self.lost += part.lost
        self.refused += part.refused
        self.failed += part.failed
        self.solver = part.solver or self.solver


class Placing(Thinking):
    async def place(self) -> Round:
        """One round over all open requests; what can't be thought about together, in parts."""
        self.next_start = None
        try:
            try:
                thought = await self._rounds.run(self._look_and_think)
            except Exception:
                _log.exception("solve failed")
                return await self._place_in_parts()
            return Round() if thought is None else await self._settle(*thought)
        finally:
            self.solving = set()

    def _look_and_think(self) -> tuple[Sequence[Request], Plan, Sequence[Grant], Others, Snapshot] | None:
        """All in one thread: on a busy event loop every step between two threads would wait for its turn."""
        opened, snapshot, policies, spent = self.store.read_here(self.look)
        if not opened:
            return None
        self.solving = {request.id for request in opened}
        plan = self.plan(opened, snapshot, policies, spent)
        return opened, plan, *self.sort_out(opened, plan, snapshot), snapshot

    async def _place_in_parts(self) -> Round:
        opened, snapshot, policies, spent = await self.store.read(self.look)
        self.solving = {request.id for request in opened}
        done = Round()
        parts: list[Sequence[Request]] = [opened] if opened else []
        while parts:
            part = parts.pop()
            plan = await self.thought(part, snapshot, policies, spent)
            if plan is None and len(part) > 1:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
                continue
            grants, others = await asyncio.to_thread(self.sort_out, part, plan, snapshot)
            done.add(await self._settle(part, plan, grants, others, snapshot))
            if plan is not None and parts:
                snapshot = snapshot.without(ref for choice in plan.choices for ref in choice.refs)
        return done

    async def _settle(
        self, part: Sequence[Request], plan: Plan | None, grants: Sequence[Grant], others: Others, snapshot: Snapshot
    ) -> Round:
        """Commit what came of thinking about these."""
        write = partial(self.commit, grants=grants, others=others, snapshot=snapshot)
        done = await self.store.write(write)
        done.open = len(part)
        if plan is None:
            done.failed = [request.id for request in part if request.id not in done.refused]
            return done
        done.solver = reasons.solver(plan)
        done.lost += sorted(plan.left)
        self.remember(plan, done.lost)
        return done

    def sort_out(self, opened: Iterable[Request], plan: Plan | None, snapshot: Snapshot) -> tuple[list[Grant], Others]:
        """Who gets what, and what becomes of the others. Without a plan nobody gets anything."""
        requests = {request.id: request for request in opened}
        grants = (
            []
            if plan is None
            else [
                Grant(requests.pop(choice.want.id), choice, self._placement(choice, plan, snapshot))
                for choice in plan.choices
            ]
        )
        others: list[tuple[Request, Request]] = []
        for request in requests.values():
            if plan is not None and request.id in plan.left:
                continue
            if plan is None and not self.failed(request):
                continue
            found, text = self.why(request, plan, snapshot)
            if request.attempts and request.reasons == "[]" and request.message:
                text = f"{request.message} Nothing else fits: {text}"[:1_024]
            if plan is None or snapshot.at >= request.wait_until:
                if plan is not None:
                    found, text = self.at_the_end(request, found, text, snapshot.at)
                others.append((request, request.refused(reasons=found, message=text, now=self.now())))
            elif found != request.reasons:
                others.append((request, request.waiting(reasons=found, message=text, now=self.now())))
        return grants, others

    def _placement(self, choice: Choice, plan: Plan, snapshot: Snapshot) -> str:
        view = reasons.placement_view(choice, plan, snapshot.shown)
        return views.remember_placement(view.model_dump_json(), view)

    # --- commit ----------------------------------------------------------------------------------------------------

    def commit(
        self,
        unit: Unit,
        grants: Sequence[Grant],
        others: Others,
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
        done.refused = [
            before.id for before, after in self._save_others(unit, others) if after.state is not before.state
        ]
        return done

    def _save_others(self, unit: Unit, others: Others) -> Others:
        """Those of them that nobody cancelled while we thought: all in one go if that is all, else one by one."""
        if not others:
            return []
        try:
            with unit.attempt():
                self.save_requests(unit, others, by=BROKER)
        except StaleVersion:
            if len(others) == 1:
                return []
            return [each for one in others for each in self._save_others(unit, [one])]
        return others

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
        devices = sorted(choice.refs)
        contract = LeaseBody.model_construct(
            id=lease_id,
            request=request.id,
            lender=choice.lot.cluster,
            borrower=request.cluster,
            tenant=request.tenant,
            kind=shown.offer.kind,
            devices=tuple(_leased(shown.devices[ref], fence) for ref in devices),
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
            transfer_micros=choice.want.transfer_micros.get(choice.lot.region, 0),
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


def _leased(device: Device, fence: int) -> LeasedDevice:
    fields: dict[str, Any] = dict(zip(DEVICE, device, strict=True))
    return LeasedDevice.model_construct(**fields, fence=fence)
