"""The log: append, read on from a revision, forget what is old."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, select

from broker.domain.log import Entry
from broker.store.tables import events

if TYPE_CHECKING:
    from broker.store.unit import Unit

_AFTER = (
    select(events).where(events.c.revision > bindparam("after")).order_by(events.c.revision).limit(bindparam("most"))
)
_TOUCHED = select(events.c.revision, events.c.type, events.c.lease, events.c.offer).where(
    events.c.revision > bindparam("after")
)
_FIRST = select(func.coalesce(func.min(events.c.revision), 0))
_OLD = delete(events).where(
    events.c.at < bindparam("before"),
    events.c.revision < select(func.max(events.c.revision)).scalar_subquery(),
    events.c.revision < select(func.min(events.c.revision)).scalar_subquery() + bindparam("most"),
)
_NAMES = tuple(column.name for column in events.columns)


class Log:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, type: str, *, at: datetime, **what: Any) -> int:  # noqa: A002
        """One entry; its revision."""
        revision = self._unit.next_revision()
        self._unit.entries.append(Entry(revision=revision, at=at, type=type, **what))
        return revision

    def after(self, revision: int, *, most: int) -> list[Entry]:
        return [Entry(**row._mapping) for row in self._unit.ask(_AFTER, {"after": revision, "most": most})]

    def touched(self, revision: int) -> tuple[set[str], set[str], bool]:
        """What changed after ``revision``: leases, offers, and whether anything else did but requests."""
        rows = self._unit.ask(_TOUCHED, {"after": revision}).all()
        leases = {row.lease for row in rows if row.lease is not None}
        offers = {row.offer for row in rows if row.type.startswith("offer.")}
        others = any(not row.type.startswith(("lease.", "offer.", "request.")) for row in rows)
        return leases, offers, others

    def oldest(self) -> int:
        """The first revision still there; 0 while there is none."""
        return int(self._unit.ask(_FIRST).scalar_one())

    def forget(self, *, before: datetime, most: int) -> int:
        """Up to ``most`` old entries, but never the last one: the numbers go on from it."""
        return self._unit.change(_OLD, {"before": before, "most": most}).rowcount


def entry_row(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _NAMES}
