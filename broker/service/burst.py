"""Burst policies: written in a cluster as objects, or here over REST; and what each has spent this month."""

from __future__ import annotations

from dataclasses import replace

from broker.domain.access import READ, REQUEST, Principal
from broker.domain.errors import BadCursor, NotFound, OwnedByObject
from broker.domain.offer import Policy
from broker.service.answers import Page
from broker.service.core import Core, page_limit, read_cursor
from broker.service.translate import budget_of, policy_spec
from broker.store.leases import month_of
from broker.store.unit import Unit
from broker.wire.agents import BurstPolicyReport, BurstPolicyStatuses
from broker.wire.burst import BurstPolicySpec, BurstPolicyStatus, BurstPolicyView
from broker.wire.requests import SpendView

OBJECT, API = "object", "api"


class Burst(Core):
    async def burst_policies(
        self, p: Principal, *, cluster: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[BurstPolicyView]:
        """Those of the tenant's clusters, by cluster and name."""
        p.require(READ)
        if p.cluster is not None and cluster not in (None, p.cluster):
            return Page([], None, self.feed.last)
        most, after = page_limit(limit), _after(read_cursor(cursor))
        seen = self.feed.last  # before the look: whoever watches from here misses nothing

        def look(unit: Unit) -> list[tuple[Policy, BurstPolicyStatus]]:
            rows = unit.policies.page(
                tenant=None if p.admin else p.tenant, cluster=p.cluster or cluster, after=after, limit=most + 1
            )
            return [(row, self._status(unit, row)) for row in rows]

        rows = await self.store.read(look)
        return self._page(
            rows,
            seen=seen,
            limit=most,
            key=lambda row: f"{row[0].cluster}/{row[0].name}",
            view=lambda row: _view(*row),
        )

    async def burst_policy(self, p: Principal, cluster: str, name: str) -> BurstPolicyView:
        p.require(READ)

        def look(unit: Unit) -> BurstPolicyView:
            policy = _seen(unit, p, cluster, name)
            return _view(policy, self._status(unit, policy))

        return await self.store.read(look)

    async def put_burst_policy(self, p: Principal, cluster: str, name: str, body: BurstPolicySpec) -> BurstPolicyView:
        """Written here. One that follows an object in the cluster is changed there and nowhere else."""
        p.require(REQUEST)
        p.may_speak_for(cluster)

        def job(unit: Unit) -> BurstPolicyView:
            owner = unit.clusters.find(cluster)
            if owner is None or owner.revoked_at is not None:
                raise NotFound("cluster", cluster)
            p.must_see("cluster", cluster, tenants=(owner.tenant,), clusters=(cluster,))
            _not_an_object(unit.policies.find(cluster, name))
            spec = body.model_dump_json()
            policy = self._put(unit, Policy(cluster=cluster, name=name, tenant=owner.tenant, source=API, spec=spec), p)
            return _view(policy, self._status(unit, policy))

        return await self.store.write(job)

    async def delete_burst_policy(self, p: Principal, cluster: str, name: str) -> None:
        """What it pays for already goes on to its end."""
        p.require(REQUEST)

        def job(unit: Unit) -> None:
            _not_an_object(_seen(unit, p, cluster, name))
            self._drop(unit, cluster, name, p)

        await self.store.write(job)

    async def burst_policies_report(self, p: Principal, body: BurstPolicyReport) -> BurstPolicyStatuses:
        """The cluster's BurstPolicy objects, all of them; the answer is what their status should say."""
        name = p.agent_of()

        def job(unit: Unit) -> BurstPolicyStatuses:
            known = {policy.name: policy for policy in unit.policies.of(name)}
            for key, spec in body.policies.items():
                policy = Policy(cluster=name, name=key, tenant=p.tenant, source=OBJECT, spec=spec.model_dump_json())
                old = known.get(key)
                if old is None or (old.source, old.spec) != (policy.source, policy.spec):
                    known[key] = self._put(unit, policy, p)
            for key, old in list(known.items()):
                if old.source == OBJECT and key not in body.policies:
                    self._drop(unit, name, key, p)
            return BurstPolicyStatuses(policies={key: self._status(unit, known[key]) for key in body.policies})

        return await self.store.write(job)

    def _put(self, unit: Unit, policy: Policy, p: Principal) -> Policy:
        revision = unit.log.add(
            "policy.put",
            at=self.now(),
            subject=p.subject,
            cluster=policy.cluster,
            tenant=policy.tenant,
            data=policy.spec,
        )
        policy = replace(policy, revision=revision)
        unit.policies.put(policy)
        return policy

    def _drop(self, unit: Unit, cluster: str, name: str, p: Principal) -> None:
        unit.log.add("policy.dropped", at=self.now(), subject=p.subject, cluster=cluster, tenant=p.tenant)
        unit.policies.drop(cluster, name)

    def _status(self, unit: Unit, policy: Policy) -> BurstPolicyStatus:
        spec, month = policy_spec(policy.spec), month_of(self.now())
        budget = budget_of(spec)
        spent = unit.leases.spent(cluster=policy.cluster, policy=policy.name, month=month)
        message = ""
        if spec.suspended:
            message = "Suspended: nothing new is asked for."
        elif budget is not None and spent >= budget:
            message = f"The budget of {month} is spent; the next month begins on the 1st (UTC)."
        return BurstPolicyStatus.model_construct(
            spend=SpendView.model_construct(month=month, committed=spent, budget=budget),
            live_leases=unit.leases.live_of_policy(cluster=policy.cluster, policy=policy.name),
            message=message,
        )


def _view(policy: Policy, status: BurstPolicyStatus) -> BurstPolicyView:
    return BurstPolicyView.model_construct(
        cluster=policy.cluster,
        name=policy.name,
        source=policy.source,
        spec=policy_spec(policy.spec),
        status=status,
        revision=policy.revision,
    )


def _seen(unit: Unit, p: Principal, cluster: str, name: str) -> Policy:
    policy = unit.policies.find(cluster, name)
    if policy is None:
        raise NotFound("burst policy", f"{cluster}/{name}")
    p.must_see("burst policy", f"{cluster}/{name}", tenants=(policy.tenant,), clusters=(cluster,))
    return policy


def _not_an_object(policy: Policy | None) -> None:
    if policy is not None and policy.source == OBJECT:
        raise OwnedByObject(
            f"Burst policy {policy.name} follows the BurstPolicy object in cluster {policy.cluster}: change it there."
        )


def _after(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "", ""
    cluster, slash, name = cursor.partition("/")
    if not slash:
        raise BadCursor
    return cluster, name
