"""Watches: every change of leases, offers or requests that somebody may see, from any revision on.

What arrives is the object as it is now, not as it was at that revision: several changes may arrive as one, none is
lost, and whoever resumes after a gap is as well informed as whoever never left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Literal

from broker.domain.access import READ, Principal
from broker.domain.errors import WasSilent
from broker.domain.log import Entry
from broker.service import views
from broker.service.agents import Agents
from broker.service.answers import Change
from broker.service.feed import Topic
from broker.service.offers import Offers
from broker.store.unit import Unit

Watched = Literal["leases", "offers", "requests", "desired"]


class Watch(Agents, Offers):
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
            found = await self.store.read(partial(self._objects, p, kind, set(newest)))
            for key, entry in sorted(newest.items(), key=lambda item: item[1].revision):
                if key in found:
                    yield Change(entry.revision, entry.type, found[key])

    def _objects(self, p: Principal, kind: Watched, ids: set[str], unit: Unit) -> dict[str, Any]:
        match kind:
            case "leases":
                return {lease.id: views.lease_view(lease) for lease in unit.leases.by_id(ids)}
            case "desired":
                return {each.id: each for each in self.wanted_of(unit, p.agent_of(), ids)}
            case "requests":
                requests = unit.requests.by_id(ids)
                leases = {lease.id: lease for lease in unit.leases.by_id(r.lease for r in requests if r.lease)}
                return {
                    request.id: views.request_view(
                        request, leases.get(request.lease or ""), solving=request.id in self.solving
                    )
                    for request in requests
                }
            case "offers":
                return self._offers_now(unit, p, ids)

    def _offers_now(self, unit: Unit, p: Principal, ids: set[str]) -> dict[str, Any]:
        snapshot = self.market.with_withdrawn(unit, self.market.look(unit, now=self.now()), ids)
        found = {}
        for name in ids:
            shown = snapshot.shown.get(name)
            if shown is not None and self._open_to(p, shown):
                found[name] = views.offer_view(shown, snapshot)
        return found


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
