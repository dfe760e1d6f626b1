"""What time does by itself: holds that take too long, leases that end, lenders that fall silent, things to forget."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from typing import Any

from broker.domain.hearing import silent
from broker.domain.lease import State
from broker.service.moves import Move, Moves
from broker.store.unit import Unit

BROKER = "broker"
AT_ONCE = 1_000
"""Most leases one transaction moves: others want to write, too."""
PORTION = 10_000
"""Most log entries one transaction forgets."""


class Timekeeping(Moves):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._began = self.now()

    async def expire(self) -> datetime | None:
        """Move every lease whose time has come; when the next one's will (None: none in sight)."""
        while True:
            now = self.now()
            next_due = await self.store.read(lambda unit: unit.leases.next_due())
            if next_due is None or next_due > now:
                return next_due
            await self.store.write(partial(self._expire, now))

    async def find_silent(self) -> list[str]:
        """Clusters not heard of for too long: their offers are stale from now on, what they lent is orphaned.

        Whoever was silent while no broker was there to hear is given the whole time again.
        """
        now = self.now()
        before = now - self.rules.silence
        if self._began > before:
            return []
        if not await self.store.read(lambda unit: unit.clusters.quiet_since(before)):
            return []
        return await self.store.write(lambda unit: self._silence(unit, before, now))

    async def forget(self) -> int:
        """Old answers to Idempotency-Keys, old log entries, offers withdrawn long ago; how many."""
        now = self.now()
        answers, events = now - self.rules.keep_answers, now - self.rules.keep_events
        forgotten = await self.store.write(
            lambda unit: unit.answers.forget(before=answers) + unit.offers.forget(before=events)
        )
        # In portions, so that nobody who wants to write waits for a week's entries to go.
        while gone := await self.store.write(lambda unit: unit.log.forget(before=events, most=PORTION)):
            forgotten += gone
        return forgotten

    def _expire(self, now: datetime, unit: Unit) -> None:
        moves = []
        for lease in unit.leases.due(now, most=AT_ONCE):
            overdue = lease.overdue(now=now, rules=self.rules)
            if overdue is None:
                unit.leases.postpone(lease, self.rules)
            else:
                after = overdue[1]
                failed = frozenset({lease.offer})
                moves.append(
                    Move(before=lease, after=after, types=[f"lease.{after.state.value.lower()}"], failed=failed)
                )
        self.move(unit, moves, by=BROKER)

    def _silence(self, unit: Unit, before: datetime, now: datetime) -> list[str]:
        names = []
        for cluster in unit.clusters.quiet_since(before):
            revision = unit.log.add(
                "member.silent",
                at=now,
                subject=BROKER,
                cluster=cluster.name,
                tenant=cluster.tenant,
                data=json.dumps({"from": cluster.state, "to": "Silent"}),
            )
            unit.clusters.set(cluster.name, silent=True, resynced=False, revision=revision)
            lost = [
                (lease, silent(lease)) for lease in unit.leases.lent_by(cluster.name, [State.ACTIVE, State.DRAINING])
            ]
            moves = [Move(before=lease, after=after, types=["lease.orphaned"]) for lease, after in lost if after]
            self.move(unit, moves, by=BROKER)
            names.append(cluster.name)
        return names
