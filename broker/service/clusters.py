"""The members of the federation: look at them, remove one."""

from __future__ import annotations

import json
from dataclasses import replace

from broker.domain.access import ADMIN, READ, Principal
from broker.domain.cluster import Cluster
from broker.domain.errors import NotFound
from broker.domain.lease import Ending, Event, Lease
from broker.service import views
from broker.service.answers import Page
from broker.service.core import page_limit, read_cursor
from broker.service.moves import Move, Moves
from broker.store.unit import Unit
from broker.wire.agents import ClusterView


class Clusters(Moves):
    async def clusters(self, p: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[ClusterView]:
        """The tenant's own, in order of names; an administrator's list has all."""
        p.require(READ)
        most, after = page_limit(limit), read_cursor(cursor) or ""
        seen = self.feed.last  # before the look: whoever watches from here misses nothing
        rows, counts = await self.store.read(
            lambda unit: (
                unit.clusters.page(tenant=None if p.admin else p.tenant, only=p.cluster, after=after, limit=most + 1),
                self._counts(unit),
            )
        )
        return self._page(rows, seen=seen, limit=most, key=lambda row: row.name, view=lambda row: _view(row, counts))

    async def cluster(self, p: Principal, name: str) -> ClusterView:
        p.require(READ)
        row, counts = await self.store.read(lambda unit: (_seen(unit, p, name), self._counts(unit)))
        return _view(row, counts)

    async def remove_cluster(self, p: Principal, name: str) -> ClusterView:
        """It is a member no more, from this moment: its credential is void, its offers go, what it asked for is
        cancelled, its leases are ended.

        What it lent stays unavailable until its devices are proved idle, which only a cluster that joins again can do.
        """
        p.require(ADMIN)

        def job(unit: Unit) -> ClusterView:
            row = _seen(unit, p, name)
            if row.revoked_at is None:
                now = self.now()
                unit.clusters.set(name, revoked_at=now, resynced=False)
                unit.log.add(
                    "cluster.revoked", at=now, subject=p.subject, cluster=name, tenant=row.tenant, data=json.dumps({})
                )
                self._withdraw(unit, name, p.subject)
                text = f"Cluster {name} was removed from the federation."
                asked = [request for request in unit.requests.open() if request.cluster == name]
                cancelled = [(request, request.cancelled(now=now, message=text)) for request in asked]
                self.save_requests(unit, cancelled, by=p.subject)
                ends = [lease for lease in unit.leases.live_of(name) if lease.can(Event.DRAIN)]
                self.move(
                    unit,
                    [
                        _revoked(name, lease, lease.drained(now=now, ending=Ending.REVOKED, message=text))
                        for lease in ends
                    ],
                    by=p.subject,
                )
            return _view(_seen(unit, p, name), self._counts(unit))

        return await self.store.write(job)

    def _withdraw(self, unit: Unit, name: str, by: str) -> None:
        now = self.now()
        gone = [offer for offer in unit.offers.of(name) if offer.withdrawn_at is None]
        changed = []
        for offer in gone:
            revision = unit.log.add("offer.withdrawn", at=now, subject=by, offer=offer.id, cluster=name)
            changed.append(replace(offer, withdrawn_at=now, updated_at=now, revision=revision))
        unit.offers.save(changed)

    def _counts(self, unit: Unit) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        lends, borrows = unit.leases.live_counts()
        return unit.offers.counts(), lends, borrows


def _revoked(name: str, before: Lease, after: Lease) -> Move:
    """What the cluster was about to lend, its borrower may look for elsewhere."""
    failed = frozenset({before.offer}) if before.lender == name else frozenset()
    return Move(before=before, after=after, types=["lease.draining"], failed=failed)


def _view(row: Cluster, counts: tuple[dict[str, int], dict[str, int], dict[str, int]]) -> ClusterView:
    offers, lends, borrows = (count.get(row.name, 0) for count in counts)
    return views.cluster_view(row, offers=offers, lends=lends, borrows=borrows)


def _seen(unit: Unit, p: Principal, name: str) -> Cluster:
    row = unit.clusters.find(name)
    if row is None:
        raise NotFound("cluster", name)
    p.must_see("cluster", name, tenants=(row.tenant,), clusters=(row.name,))
    return row
