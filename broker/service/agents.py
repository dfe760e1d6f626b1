"""What agents tell and are told. Every message is signed by its cluster's key, numbered, and about that cluster alone.

Nothing of a message is believed before its signature; then its name must be the credential's, its number must rise, and
its clock is measured. A replay is answered politely and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from broker.domain.access import Principal
from broker.domain.cluster import Cluster, clock_is_safe, clock_offset
from broker.domain.errors import Malformed, Unauthenticated
from broker.domain.hearing import hear
from broker.domain.lease import State
from broker.domain.offer import Offer
from broker.kit import jose
from broker.service import views
from broker.service.messages import offer_rows, opened, word
from broker.service.moves import Move, Moves
from broker.store.unit import Unit
from broker.wire.agents import Desired, Heard, LeaseReport, Report
from broker.wire.base import Inbound
from broker.wire.leases import DesiredLease
from broker.wire.offers import Advert

B = TypeVar("B", bound=Inbound)

_FENCES_END = 1 << 62
_LARGE = 64 * 1024
"""Messages above this many bytes are verified and parsed in a thread: others shouldn't wait for it."""


class Agents(Moves):
    async def advert(self, p: Principal, jws: str) -> Heard:
        """What a cluster offers from now on, instead of what it offered before."""
        name = p.agent_of()
        cluster = await self._cluster(name)
        advert = await self._opened(jws, Advert, jose.ADVERT, cluster)
        rows = await self._offers(advert, len(jws))
        now = self.now()

        def job(unit: Unit) -> Heard:
            known = self._heard_of(unit, cluster)
            if advert.sequence <= known.advert_sequence:
                return self._heard(known, known.advert_sequence, applied=False, now=now)
            after = self._seen(known, advert.sent_at, now)
            after = replace(
                after,
                advert_sequence=advert.sequence,
                valid_until=advert.valid_until,
                counts=advert.counts.model_dump_json(),
            )
            self._replace_offers(unit, after, rows, now)
            self._clear(unit, after, {device.ref(name) for offer in advert.offers for device in offer.devices}, now)
            self._save(unit, known, after, now)
            return self._heard(after, advert.sequence, applied=True, now=now)

        return await self.store.write(job)

    async def report(self, p: Principal, jws: str) -> Heard:
        """How a cluster's leases stand; with ``resync`` all it knows, and from then on it may lend again."""
        cluster = await self._cluster(p.agent_of())
        report = await self._opened(jws, Report, jose.REPORT, cluster)
        if report.highest_fence >= _FENCES_END:
            raise Malformed("highest_fence is higher than any fence the broker can have given out.")
        now = self.now()

        def job(unit: Unit) -> Heard:
            known = self._heard_of(unit, cluster)
            if report.sequence <= known.report_sequence:
                return self._heard(known, known.report_sequence, applied=False, now=now)
            after = self._seen(known, report.sent_at, now)
            after = replace(
                after,
                report_sequence=report.sequence,
                fence=max(known.fence, report.highest_fence),
                resynced=known.resynced or report.resync,
            )
            unknown = self._hear(unit, after, report.leases, now)
            if report.resync:
                names = ", ".join(unknown[:8])
                text = f"It reports {len(unknown)} leases this broker doesn't know: {names}." if unknown else ""
                after = replace(after, message=text)
            self._save(unit, known, after, now)
            return self._heard(after, report.sequence, applied=True, now=now)

        return await self.store.write(job)

    async def desired(self, p: Principal) -> Desired:
        """Everything wanted of this cluster, as of one revision: watch from there."""
        name = p.agent_of()
        return await self.store.read(
            lambda unit: Desired.model_construct(
                revision=unit.revision, server_time=self.now(), leases=self.wanted_of(unit, name)
            )
        )

    def wanted_of(self, unit: Unit, name: str, only: set[str] | None = None) -> list[DesiredLease]:
        """The leases of which the cluster has, or should have, something (``only``: of these)."""
        leases = unit.leases.open_for(name) if only is None else unit.leases.by_id(only)
        open_ = [
            lease
            for lease in leases
            if (lease.lender == name and lease.lender_open) or (lease.borrower == name and lease.borrower_open)
        ]
        borrowers = {lease.borrower for lease in open_ if lease.lender == name}
        keys = {each: unit.clusters.find(each) for each in borrowers}
        return [
            views.desired_lease(
                lease,
                role="lender" if lease.lender == name else "borrower",
                borrower=keys.get(lease.borrower),
                now=self.now(),
            )
            for lease in open_
        ]

    # --- believing -------------------------------------------------------------------------------------------------

    async def _cluster(self, name: str) -> Cluster:
        cluster = await self.store.read(lambda unit: unit.clusters.find(name))
        if cluster is None or cluster.revoked_at is not None:
            raise Unauthenticated
        return cluster

    async def _opened(self, jws: str, model: type[B], typ: str, cluster: Cluster) -> B:
        if len(jws) > _LARGE:
            return await asyncio.to_thread(opened, jws, model, typ, cluster)
        return opened(jws, model, typ, cluster)

    async def _offers(self, advert: Advert, size: int) -> dict[str, Offer]:
        if size > _LARGE:
            return await asyncio.to_thread(offer_rows, advert, self.now())
        return offer_rows(advert, self.now())

    def _heard_of(self, unit: Unit, verified: Cluster) -> Cluster:
        """The cluster as it is now, still with the key the message was verified under."""
        known = unit.clusters.find(verified.name)
        if known is None or known.revoked_at is not None or known.signing_key != verified.signing_key:
            raise Unauthenticated
        return known

    def _seen(self, cluster: Cluster, sent_at: datetime, now: datetime) -> Cluster:
        offset = clock_offset(sent_at=sent_at, now=now)
        return replace(
            cluster,
            last_seen_at=now,
            silent=False,
            clock_offset_ms=int(offset.total_seconds() * 1000),
            clock_safe=clock_is_safe(offset, self.rules),
        )

    def _heard(self, cluster: Cluster, sequence: int, *, applied: bool, now: datetime) -> Heard:
        return Heard.model_construct(
            server_time=now,
            sequence=sequence,
            applied=applied,
            clock_safe=cluster.clock_safe,
            message=cluster.why if cluster.state != "Ready" else "",
        )

    def _save(self, unit: Unit, before: Cluster, after: Cluster, now: datetime) -> None:
        back = after.lends(now) and not before.lends(now)
        if back or after.state != before.state:
            was = "Stale" if after.state == before.state else before.state  # its adverts had run out
            data = json.dumps({"from": was, "to": after.state, "clock_offset_ms": after.clock_offset_ms})
            revision = unit.log.add(
                f"member.{after.state.lower()}",
                at=now,
                subject=f"cluster:{after.name}",
                cluster=after.name,
                tenant=after.tenant,
                data=data,
            )
            after = replace(after, revision=revision)
        fields = (
            "last_seen_at",
            "silent",
            "clock_offset_ms",
            "clock_safe",
            "advert_sequence",
            "report_sequence",
            "valid_until",
            "counts",
            "fence",
            "resynced",
            "message",
            "revision",
        )
        unit.clusters.set(after.name, **{name: getattr(after, name) for name in fields})

    # --- adverts ---------------------------------------------------------------------------------------------------

    def _replace_offers(self, unit: Unit, cluster: Cluster, rows: dict[str, Offer], now: datetime) -> None:
        known = {offer.name: offer for offer in unit.offers.of(cluster.name)}
        new, changed = [], []
        for name, row in rows.items():
            old = known.get(name)
            if old is None:
                fresh = replace(row, id=self.ids("ofr"), cluster=cluster.name)
                new.append(replace(fresh, revision=self._log_offer(unit, fresh, "offer.new", now)))
            elif old.digest != row.digest or old.withdrawn_at is not None:
                after = replace(row, id=old.id, cluster=cluster.name)
                changed.append(replace(after, revision=self._log_offer(unit, after, "offer.changed", now)))
        for old in known.values():
            if old.name not in rows and old.withdrawn_at is None:
                after = replace(old, withdrawn_at=now, updated_at=now)
                changed.append(replace(after, revision=self._log_offer(unit, after, "offer.withdrawn", now)))
        unit.offers.add(new)
        unit.offers.save(changed)

    def _log_offer(self, unit: Unit, offer: Offer, type_: str, now: datetime) -> int:
        return unit.log.add(
            type_,
            at=now,
            subject=f"cluster:{offer.cluster}",
            offer=offer.id,
            cluster=offer.cluster,
            data=json.dumps({"devices": offer.devices, "digest": offer.digest}),
        )

    def _clear(self, unit: Unit, cluster: Cluster, idle: set[str], now: datetime) -> None:
        """Leases in quarantine whose devices the lender offers again, all of them: idle, so at an end."""
        moves = [
            Move(before=lease, after=lease.cleared(now=now), types=["lease.ended"])
            for lease in unit.leases.lent_by(cluster.name, [State.QUARANTINED])
            if idle and idle.issuperset(unit.leases.refs(lease.id))
        ]
        if moves:
            self.move(unit, moves, by=f"cluster:{cluster.name}")

    # --- reports ---------------------------------------------------------------------------------------------------

    def _hear(self, unit: Unit, cluster: Cluster, lines: Iterable[LeaseReport], now: datetime) -> list[str]:
        """Apply every line; ids of leases that this broker doesn't know (restored from a backup: nothing is freed)."""
        lines = list(lines)
        leases = {lease.id: lease for lease in unit.leases.by_id({line.lease for line in lines})}
        unknown: list[str] = []
        moves: dict[str, Move] = {}

        def move() -> None:
            """All that was heard so far, in as few statements as one line would take."""
            leases.update(
                (lease.id, lease) for lease in self.move(unit, list(moves.values()), by=f"cluster:{cluster.name}")
            )
            moves.clear()

        for line in lines:
            lease = leases.get(line.lease)
            mine = lease is not None and cluster.name == (lease.lender if line.role == "lender" else lease.borrower)
            if lease is None or not mine:
                if line.phase not in ("gone", "released"):
                    unknown.append(line.lease)
                continue
            if lease.id in moves:
                move()
            lease = leases[lease.id]
            outcome = hear(lease, word(line, cluster.name), now=now)
            if outcome.types:
                after = self.signed(outcome.lease) if outcome.sign else outcome.lease
                moves[lease.id] = Move(before=lease, after=after, types=outcome.types, failed=outcome.failed)
        if moves:
            move()
        return unknown
