"""Watches: every change of leases, offers or requests that somebody may see, from any revision on.

What arrives is the object as it is now, not as it was at that revision: several changes may arrive as one, none is
lost, and whoever resumes after a gap is as well informed as whoever never left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from broker.domain.access import READ, Principal
from broker.domain.cluster import Cluster
from broker.domain.errors import WasSilent
from broker.domain.lease import Lease
from broker.domain.log import Entry
from broker.domain.request import Request
from broker.kit.kept import Kept
from broker.service import views
from broker.service.agents import CLUSTERS, Agents, borrowers_of
from broker.service.answers import Change
from broker.service.feed import Topic
from broker.service.offers import Offers
from broker.store.unit import Unit

Watched = Literal["leases", "offers", "requests", "desired"]


class Watch(Agents, Offers):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._borrowers: Kept[str, Cluster] = Kept(CLUSTERS)
        """As they were when last looked up: for their keys."""
        self.feed.hear(self._forget_keys)

    async def changes(self, p: Principal, kind: Watched, after: int | None = None) -> AsyncIterator[Change]:
        """For ever; ``after=None`` starts now. ``TooOld`` when the log doesn't reach back so far.

        An agent that was silent is told so instead (``WasSilent``): it must say first how its leases stand.
        """
        if kind == "desired":
            p.agent_of()
        else:
            p.require(READ)
        position = self.feed.last if after is None else after
        while True:
            position, entries = await self.feed.news(position, _topic(p, kind))
            if kind == "desired" and any(_given_up(p, entry) for entry in entries):
                raise WasSilent
            newest = {key: entry for entry in entries if (key := _subject(p, kind, entry)) is not None}
            if not newest:
                continue
            found = await self._objects(p, kind, set(newest))
            for key, entry in sorted(newest.items(), key=lambda item: item[1].revision):
                if key in found:
                    yield Change(entry.revision, entry.type, found[key])

    async def _objects(self, p: Principal, kind: Watched, ids: set[str]) -> dict[str, Any]:
        """As they are now: what this process wrote is at hand, the rest is read."""
        match kind:
            case "leases":
                return {lease.id: views.lease_view(lease) for lease in await self._leases_now(ids)}
            case "desired":
                name, leases = p.agent_of(), await self._leases_now(ids)
                keys = await self._keys_of(borrowers_of(name, leases))
                return {each.id: each for each in self.wanted(name, leases, keys)}
            case "requests":
                return {
                    request.id: views.request_view(request, lease, solving=request.id in self.solving)
                    for request, lease in await self._requests_now(ids)
                }
            case "offers":
                return await self.store.read(lambda unit: self._offers_now(unit, p, ids))

    async def _leases_now(self, ids: set[str]) -> list[Lease]:
        known = [lease for name in ids if (lease := self.feed.rows.lease(name)) is not None]
        missing = ids - {lease.id for lease in known}
        return known + await self.store.read(lambda unit: unit.leases.by_id(missing)) if missing else known

    async def _requests_now(self, ids: set[str]) -> list[tuple[Request, Lease | None]]:
        known = [both for name in ids if (both := self.feed.rows.with_lease(name)) is not None]
        missing = ids - {request.id for request, _ in known}
        return known + await self.store.read(lambda unit: _with_leases(unit, missing)) if missing else known

    async def _keys_of(self, borrowers: set[str]) -> dict[str, Cluster | None]:
        """The borrowers, for their sealing keys; these stay until the log says that some cluster joined or left."""
        keys: dict[str, Cluster | None] = {name: self._borrowers.get(name) for name in borrowers}
        missing = [name for name, known in keys.items() if known is None]
        if missing:
            seen = self.feed.last
            keys |= await self.store.read(lambda unit: {name: unit.clusters.find(name) for name in missing})
            if seen == self.feed.last:  # else one may have joined anew, with another key, while we looked
                for name in missing:
                    if (found := keys[name]) is not None:
                        self._borrowers.keep(name, found)
        return keys

    def _forget_keys(self, entries: list[Entry]) -> None:
        if any(entry.type.startswith("cluster.") for entry in entries):
            self._borrowers.clear()

    def _offers_now(self, unit: Unit, p: Principal, ids: set[str]) -> dict[str, Any]:
        snapshot = self.market.with_withdrawn(unit, self.market.look(unit, now=self.now()), ids)
        found = {}
        for name in ids:
            shown = snapshot.shown.get(name)
            if shown is not None and self._open_to(p, shown):
                found[name] = views.offer_view(shown, snapshot)
        return found


def _with_leases(unit: Unit, ids: set[str]) -> list[tuple[Request, Lease | None]]:
    requests = unit.requests.by_id(ids)
    leases = {lease.id: lease for lease in unit.leases.by_id(r.lease for r in requests if r.lease)}
    return [(request, leases.get(request.lease or "")) for request in requests]


def _topic(p: Principal, kind: Watched) -> Topic | None:
    """At least all that can be theirs to see; ``_subject`` looks closer."""
    if kind == "offers":
        return "offers", ""
    if p.cluster is not None:
        return "cluster", p.cluster
    return None if p.admin else ("tenant", p.tenant)


def _given_up(p: Principal, entry: Entry) -> bool:
    return entry.type == "member.silent" and entry.cluster == p.cluster


def _subject(p: Principal, kind: Watched, entry: Entry) -> str | None:
    """The id of what this entry is about, where it is theirs to see."""
    match kind:
        case "leases":
            mine = p.sees(
                tenants=tuple(filter(None, (entry.tenant, entry.peer_tenant))),
                clusters=tuple(filter(None, (entry.cluster, entry.peer))),
            )
            return entry.lease if mine else None
        case "requests":
            mine = p.sees(tenants=tuple(filter(None, (entry.tenant,))), clusters=tuple(filter(None, (entry.peer,))))
            return entry.request if mine else None
        case "desired":
            return entry.lease if p.cluster in (entry.cluster, entry.peer) else None
        case "offers":
            return entry.offer
