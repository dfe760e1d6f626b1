"""What agents tell and are told. Every message is signed by its cluster's key, numbered, and about that cluster alone.

Nothing of a message is believed before its signature; then its name must be the credential's, its number must rise, and
its clock is measured. A replay is answered politely and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from broker.domain.access import Principal
from broker.domain.cluster import Cluster, clock_is_safe, clock_offset
from broker.domain.errors import Malformed, Unauthenticated, UntrustedMessage
from broker.domain.hearing import hear
from broker.domain.lease import Lease, State
from broker.domain.offer import Head, Offer
from broker.kit import jose
from broker.kit.kept import Kept
from broker.service import views
from broker.service.adverts import Adverts, Said
from broker.service.messages import believed, must_name, opened, word
from broker.service.moves import Move, Moves
from broker.store.unit import Unit
from broker.wire.agents import Desired, Heard, LeaseReport, Report
from broker.wire.leases import DesiredLease

T = TypeVar("T")

_FENCES_END = 1 << 62
_LARGE = 64 * 1024
"""Messages above this many bytes are verified and parsed in a thread: others shouldn't wait for it."""
CLUSTERS = 10_000
"""Of so many the signing key is kept."""


class Agents(Moves):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._adverts = Adverts()
        self._members: Kept[str, Cluster] = Kept(CLUSTERS)
        """As they were when last looked up: for their keys."""
        # One thread: large messages never take more than their turn from who waits for an answer.
        self._large = ThreadPoolExecutor(1, thread_name_prefix="messages")

    async def stop(self) -> None:
        self._large.shutdown(wait=False, cancel_futures=True)
        await super().stop()

    async def advert(self, p: Principal, jws: str) -> Heard:
        """What a cluster offers from now on, instead of what it offered before."""
        cluster, said = await self._believed(p.agent_of(), jws, self._read_advert)
        advert = said.advert
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
            self._replace_offers(unit, after, said, now)
            self._clear(unit, after, said, now)
            self._save(unit, known, after, now)
            return self._heard(after, advert.sequence, applied=True, now=now)

        return await self.store.write(job)

    async def report(self, p: Principal, jws: str) -> Heard:
        """How a cluster's leases stand; with ``resync`` all it knows, and from then on it may lend again."""
        cluster, report = await self._believed(p.agent_of(), jws, _read_report)
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

    def wanted_of(self, unit: Unit, name: str) -> list[DesiredLease]:
        """The leases of which the cluster has, or should have, something."""
        leases = unit.leases.open_for(name)
        keys = {each: unit.clusters.find(each) for each in borrowers_of(name, leases)}
        return self.wanted(name, leases, keys)

    def wanted(self, name: str, leases: Iterable[Lease], keys: Mapping[str, Cluster | None]) -> list[DesiredLease]:
        """Those of ``leases`` of which the cluster has, or should have, something; ``keys``: the borrowers."""
        return [
            views.desired_lease(
                lease,
                role="lender" if lease.lender == name else "borrower",
                borrower=keys.get(lease.borrower),
                now=self.now(),
            )
            for lease in leases
            if (lease.lender == name and lease.lender_open) or (lease.borrower == name and lease.borrower_open)
        ]

    # --- believing -------------------------------------------------------------------------------------------------

    async def _believed(self, name: str, jws: str, read: Callable[[str, Cluster], T]) -> tuple[Cluster, T]:
        """What a message says, and the cluster under whose key it was verified."""
        kept = self._members.get(name)
        if kept is not None:
            try:
                return kept, await self._in_turn(jws, partial(read, jws, kept))
            except UntrustedMessage:
                pass  # it may have joined again, with another key
        cluster = await self.store.read(lambda unit: unit.clusters.find(name))
        if cluster is None or cluster.revoked_at is not None:
            raise Unauthenticated
        self._members.keep(name, cluster)
        return cluster, await self._in_turn(jws, partial(read, jws, cluster))

    async def _in_turn(self, jws: str, read: Callable[[], T]) -> T:
        if len(jws) > _LARGE:
            return await asyncio.get_running_loop().run_in_executor(self._large, read)
        return read()

    def _read_advert(self, jws: str, cluster: Cluster) -> Said:
        said = self._adverts.read(believed(jws, jose.ADVERT, cluster), cluster=cluster.name)
        must_name(said.advert, cluster)
        return said

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
        unit.clusters.heard(after)

    # --- adverts ---------------------------------------------------------------------------------------------------

    def _replace_offers(self, unit: Unit, cluster: Cluster, said: Said, now: datetime) -> None:
        known = unit.offers.heads_of(cluster.name)
        new, changed = [], []
        for name, digest in said.digests.items():
            old = known.get(name)
            if old is None:
                fresh = replace(said.row(name, now), id=self.ids("ofr"), cluster=cluster.name)
                new.append(replace(fresh, revision=self._log_offer(unit, cluster, fresh, "offer.new", now)))
            elif old.digest != digest or old.withdrawn:
                after = replace(said.row(name, now), id=old.id, cluster=cluster.name)
                changed.append(replace(after, revision=self._log_offer(unit, cluster, after, "offer.changed", now)))
        gone = [old for name, old in known.items() if name not in said.digests and not old.withdrawn]
        unit.offers.add(new)
        unit.offers.save(changed)
        unit.offers.withdraw(
            {old.id: self._log_offer(unit, cluster, old, "offer.withdrawn", now) for old in gone}, now=now
        )

    def _log_offer(self, unit: Unit, cluster: Cluster, offer: Offer | Head, type_: str, now: datetime) -> int:
        return unit.log.add(
            type_,
            at=now,
            subject=f"cluster:{cluster.name}",
            offer=offer.id,
            cluster=cluster.name,
            data=json.dumps({"devices": offer.devices, "digest": offer.digest}),
        )

    def _clear(self, unit: Unit, cluster: Cluster, said: Said, now: datetime) -> None:
        """Leases in quarantine whose devices the lender offers again, all of them: idle, so at an end."""
        waiting = unit.leases.lent_by(cluster.name, [State.QUARANTINED])
        if not waiting:
            return
        idle = said.refs(cluster.name)
        moves = [
            Move(before=lease, after=lease.cleared(now=now), types=["lease.ended"])
            for lease in waiting
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


def borrowers_of(name: str, leases: Iterable[Lease]) -> set[str]:
    """Whose sealing keys the lender ``name`` needs for these."""
    return {lease.borrower for lease in leases if lease.lender == name and lease.lender_open}


def _read_report(jws: str, cluster: Cluster) -> Report:
    return opened(jws, Report, jose.REPORT, cluster)
