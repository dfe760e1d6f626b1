"""Statements about burst policies."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select, update

from broker.domain.offer import Policy
from broker.store.tables import burst_policies

if TYPE_CHECKING:
    from broker.store.unit import Unit

_T = burst_policies
_ONE = select(_T).where(_T.c.cluster == bindparam("c"), _T.c.name == bindparam("n"))
_OF = select(_T).where(_T.c.cluster == bindparam("c")).order_by(_T.c.name)
_ALL = select(_T)
_ADD = insert(_T)
_SAVE = (
    update(_T)
    .where(_T.c.cluster == bindparam("c"), _T.c.name == bindparam("n"))
    .values(spec=bindparam("new_spec"), source=bindparam("new_source"), revision=bindparam("new_revision"))
)
_DROP = delete(_T).where(_T.c.cluster == bindparam("c"), _T.c.name == bindparam("n"))


class Policies:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def find(self, cluster: str, name: str) -> Policy | None:
        row = self._unit.ask(_ONE, {"c": cluster, "n": name}, aside=True).one_or_none()
        return None if row is None else Policy(**row._mapping)

    def of(self, cluster: str) -> list[Policy]:
        return [Policy(**row._mapping) for row in self._unit.ask(_OF, {"c": cluster})]

    def all(self) -> dict[tuple[str, str], Policy]:
        return {(row.cluster, row.name): Policy(**row._mapping) for row in self._unit.ask(_ALL)}

    def page(self, *, tenant: str | None, cluster: str | None, after: tuple[str, str], limit: int) -> list[Policy]:
        query = (
            select(_T)
            .where((_T.c.cluster > after[0]) | ((_T.c.cluster == after[0]) & (_T.c.name > after[1])))
            .order_by(_T.c.cluster, _T.c.name)
            .limit(limit)
        )
        if tenant is not None:
            query = query.where(_T.c.tenant == tenant)
        if cluster is not None:
            query = query.where(_T.c.cluster == cluster)
        return [Policy(**row._mapping) for row in self._unit.ask(query)]

    def put(self, policy: Policy) -> None:
        row = self._unit.change(
            _SAVE,
            {
                "c": policy.cluster,
                "n": policy.name,
                "new_spec": policy.spec,
                "new_source": policy.source,
                "new_revision": policy.revision,
            },
        )
        if row.rowcount == 0:
            self._unit.change(_ADD, asdict(policy))

    def drop(self, cluster: str, name: str) -> None:
        self._unit.change(_DROP, {"c": cluster, "n": name})
