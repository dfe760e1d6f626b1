"""Statements about clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import CursorResult, Executable, bindparam, insert, select, update

from broker.domain.cluster import Cluster
from broker.domain.errors import LenderUnavailable
from broker.store.tables import clusters

if TYPE_CHECKING:
    from broker.store.unit import Unit

_ALL = select(clusters).order_by(clusters.c.name)
_ONE = select(clusters).where(clusters.c.name == bindparam("n"))
_BY_CREDENTIAL = select(clusters).where(clusters.c.credential_hash == bindparam("h"))
_ADD = insert(clusters)
_FENCE = (
    update(clusters)
    .where(
        clusters.c.name == bindparam("n"),
        clusters.c.revoked_at.is_(None),
        clusters.c.resynced,
        clusters.c.clock_safe,
        ~clusters.c.silent,
    )
    .values(fence=clusters.c.fence + bindparam("by"))
    .returning(clusters.c.fence)
)
_HEARING = (
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
_HEARD = (
    update(clusters)
    .where(clusters.c.name == bindparam("n"))
    .values({name: bindparam(f"new_{name}") for name in _HEARING})
)
_RECOVER = update(clusters).where(clusters.c.resynced).values(resynced=False)
_QUIET = (
    select(clusters)
    .where(~clusters.c.silent, clusters.c.revoked_at.is_(None), clusters.c.last_seen_at < bindparam("before"))
    .order_by(clusters.c.name)
)


class Clusters:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._found: dict[str, Cluster | None] = {}
        """Those looked up since any was changed."""

    def all(self) -> list[Cluster]:
        return [Cluster(**row._mapping) for row in self._unit.ask(_ALL)]

    def find(self, name: str) -> Cluster | None:
        if name not in self._found:
            row = self._unit.ask(_ONE, {"n": name}, aside=True).one_or_none()
            self._found[name] = None if row is None else Cluster(**row._mapping)
        return self._found[name]

    def look_again(self) -> None:
        """What was looked up may be another by now."""
        self._found.clear()

    def by_credential(self, credential_hash: str) -> Cluster | None:
        row = self._unit.ask(_BY_CREDENTIAL, {"h": credential_hash}).one_or_none()
        return None if row is None else Cluster(**row._mapping)

    def page(self, *, tenant: str | None, only: str | None, after: str, limit: int) -> list[Cluster]:
        """In order of names, after ``after``."""
        query = select(clusters).where(clusters.c.name > after).order_by(clusters.c.name).limit(limit)
        if tenant is not None:
            query = query.where(clusters.c.tenant == tenant)
        if only is not None:
            query = query.where(clusters.c.name == only)
        return [Cluster(**row._mapping) for row in self._unit.ask(query)]

    def add(self, cluster: Cluster) -> None:
        self._change(_ADD, asdict(cluster))

    def set(self, name: str, **values: Any) -> None:
        self._change(update(clusters).where(clusters.c.name == name).values(**values))

    def heard(self, cluster: Cluster) -> None:
        """As it is after a message of its agent; hundreds of these come every second."""
        values = {f"new_{name}": getattr(cluster, name) for name in _HEARING}
        self._change(_HEARD, {"n": cluster.name, **values})

    def next_fence(self, name: str, *, by: int = 1) -> int:
        """The next fence of a lender that may lend now (``by`` of them: the last); ``LenderUnavailable`` else."""
        fence = self._change(_FENCE, {"n": name, "by": by}).scalar_one_or_none()
        if fence is None:
            raise LenderUnavailable(name)
        return int(fence)

    def recover(self) -> int:
        """Every lender has to say again what it knows, before it lends."""
        return self._change(_RECOVER).rowcount

    def quiet_since(self, before: datetime) -> Sequence[Cluster]:
        """Not silent yet, and not heard of since."""
        return [Cluster(**row._mapping) for row in self._unit.ask(_QUIET, {"before": before})]

    def _change(self, statement: Executable, values: Mapping[str, Any] | None = None) -> CursorResult[*tuple[Any, ...]]:
        self.look_again()
        return self._unit.change(statement, values)
