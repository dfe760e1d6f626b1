"""Statements about capacity requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, bindparam, insert, select, text, update

from broker.domain.errors import StaleVersion
from broker.domain.request import Request, RequestState
from broker.store.tables import requests

if TYPE_CHECKING:
    from broker.store.unit import Unit

_BY_ID = select(requests).where(requests.c.id.in_(bindparam("ids", expanding=True))).order_by(requests.c.id)
# In the very words of the partial index: for a bound value SQLite reads the whole table.
_OPEN = select(requests).where(text("requests.state = 'Open'")).order_by(requests.c.created_at, requests.c.id)
_ADD = insert(requests)
_SAVE = (
    update(requests)
    .where(requests.c.id == bindparam("key"), requests.c.revision == bindparam("was"))
    .values(
        state=bindparam("state"),
        updated_at=bindparam("updated_at"),
        attempts=bindparam("attempts"),
        excluded=bindparam("excluded"),
        lease=bindparam("lease"),
        placement=bindparam("placement"),
        reasons=bindparam("reasons"),
        message=bindparam("message"),
        revision=bindparam("revision"),
    )
)
_FIXED = ("id", "tenant", "cluster", "policy", "body", "created_at", "wait_until")
_MOVING = ("updated_at", "attempts", "lease", "placement", "reasons", "message", "revision")


class Requests:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def find(self, request_id: str) -> Request | None:
        row = self._unit.ask(_BY_ID, {"ids": [request_id]}).one_or_none()
        return None if row is None else _request(row)

    def by_id(self, ids: Iterable[str]) -> list[Request]:
        wanted = list(ids)
        return [_request(row) for row in self._unit.ask(_BY_ID, {"ids": wanted}).all()] if wanted else []

    def open(self) -> list[Request]:
        """Everything that waits for a place, in order of arrival."""
        return [_request(row) for row in self._unit.ask(_OPEN).all()]

    def page(
        self,
        *,
        tenant: str | None,
        cluster: str | None,
        state: str | None,
        before: str | None,
        limit: int,
    ) -> list[Request]:
        """Newest first."""
        query = select(requests).order_by(requests.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(requests.c.tenant == tenant)
        if cluster is not None:
            query = query.where(requests.c.cluster == cluster)
        if state is not None:
            query = query.where(requests.c.state == state)
        if before is not None:
            query = query.where(requests.c.id < before)
        return [_request(row) for row in self._unit.ask(query)]

    def add(self, request: Request) -> None:
        row = {name: getattr(request, name) for name in (*_FIXED, *_MOVING)}
        row |= {"state": request.state.value, "excluded": json.dumps(sorted(request.excluded))}
        self._unit.put_off(_ADD, row)
        self._unit.saved.append(request)

    def save(self, changes: Sequence[tuple[Request, Request]]) -> None:
        """(before, after): compare-and-set on the revision; ``StaleVersion`` for the first that somebody changed."""
        if not changes:
            return
        rows = [
            {
                **{name: getattr(after, name) for name in _MOVING},
                "state": after.state.value,
                "excluded": json.dumps(sorted(after.excluded)),
                "key": before.id,
                "was": before.revision,
            }
            for before, after in changes
        ]
        if self._unit.change(_SAVE, rows).rowcount != len(rows):
            raise StaleVersion("request", changes[0][0].id if len(changes) == 1 else "among several")
        self._unit.saved += [after for _, after in changes]


def _request(row: Row[*tuple[Any, ...]]) -> Request:
    values = dict(row._mapping)
    values["state"] = RequestState(values["state"])
    values["excluded"] = frozenset(json.loads(values["excluded"]))
    return Request(**values)
