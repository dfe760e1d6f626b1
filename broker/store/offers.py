"""Statements about offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, func, insert, select, update

from broker.domain.offer import Head, Offer
from broker.store.tables import offers

if TYPE_CHECKING:
    from broker.store.unit import Unit

_HEADS = select(offers.c.id, offers.c.revision).where(offers.c.withdrawn_at.is_(None))
_BY_ID = select(offers).where(offers.c.id.in_(bindparam("ids", expanding=True)))
_OF = select(offers).where(offers.c.cluster == bindparam("c")).order_by(offers.c.name)
_HEADS_OF = select(offers.c.id, offers.c.name, offers.c.digest, offers.c.devices, offers.c.withdrawn_at).where(
    offers.c.cluster == bindparam("c")
)
_COUNTS = select(offers.c.cluster, func.count()).where(offers.c.withdrawn_at.is_(None)).group_by(offers.c.cluster)
_ADD = insert(offers)
_SAVE = (
    update(offers)
    .where(offers.c.id == bindparam("key"))
    .values(
        digest=bindparam("digest"),
        body=bindparam("body"),
        model=bindparam("model"),
        region=bindparam("region"),
        devices=bindparam("devices"),
        updated_at=bindparam("updated_at"),
        withdrawn_at=bindparam("withdrawn_at"),
        revision=bindparam("revision"),
    )
)
_WITHDRAW = (
    update(offers)
    .where(offers.c.id == bindparam("key"))
    .values(withdrawn_at=bindparam("now"), updated_at=bindparam("now"), revision=bindparam("new_revision"))
)
_OLD = delete(offers).where(offers.c.withdrawn_at < bindparam("before"))


class Offers:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def heads(self) -> dict[str, int]:
        """Id → revision of everything on offer: what a cache needs to know what changed."""
        return {row.id: row.revision for row in self._unit.ask(_HEADS)}

    def by_id(self, ids: Iterable[str]) -> list[Offer]:
        wanted = list(ids)
        found: list[Offer] = []
        for start in range(0, len(wanted), 500):
            found += [Offer(**row._mapping) for row in self._unit.ask(_BY_ID, {"ids": wanted[start : start + 500]})]
        return found

    def counts(self) -> dict[str, int]:
        """Offers that aren't withdrawn, per cluster."""
        return {row[0]: row[1] for row in self._unit.ask(_COUNTS)}

    def of(self, cluster: str) -> list[Offer]:
        """Withdrawn ones too."""
        return [Offer(**row._mapping) for row in self._unit.ask(_OF, {"c": cluster})]

    def heads_of(self, cluster: str) -> dict[str, Head]:
        """As ``of``, by name, without their devices."""
        return {
            row.name: Head(id=row.id, digest=row.digest, devices=row.devices, withdrawn=row.withdrawn_at is not None)
            for row in self._unit.ask(_HEADS_OF, {"c": cluster})
        }

    def add(self, new: Sequence[Offer]) -> None:
        if new:
            self._unit.change(_ADD, [asdict(offer) for offer in new])

    def save(self, changed: Sequence[Offer]) -> None:
        if changed:
            skipped = ("id", "cluster", "name")
            rows = [
                {"key": offer.id, **{k: v for k, v in asdict(offer).items() if k not in skipped}} for offer in changed
            ]
            self._unit.change(_SAVE, rows)

    def withdraw(self, gone: Mapping[str, int], *, now: datetime) -> None:
        """Offer → the revision at which it went."""
        if gone:
            rows = [{"key": name, "new_revision": revision, "now": now} for name, revision in gone.items()]
            self._unit.change(_WITHDRAW, rows)

    def forget(self, *, before: datetime) -> int:
        """Those withdrawn long ago."""
        return self._unit.change(_OLD, {"before": before}).rowcount
