"""Leases and requests as they are now, for those who are told of every change.

The writer hands over what it has just made durable, so whoever watches need not read again what this process itself
wrote. What another broker wrote is seen in the log: the row known here is older than the entry about it, and is
forgotten. Whatever is not here is in the store; nothing is decided because of what is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from broker.domain.lease import Lease
from broker.domain.log import Entry
from broker.domain.request import Request
from broker.store.unit import Row

LEASES, REQUESTS = 1_024, 2_048
"""Those changed last; a lease of many devices takes some ten kB."""
R = TypeVar("R", Lease, Request)


class Rows:
    """For one event loop."""

    def __init__(self) -> None:
        self._leases: _Latest[Lease] = _Latest(LEASES)
        self._requests: _Latest[Request] = _Latest(REQUESTS)

    def keep(self, rows: Iterable[Row]) -> None:
        """What a commit wrote, in its order; before its entries are ``heard``."""
        for row in rows:
            if isinstance(row, Lease):
                self._leases.keep(row)
            else:
                self._requests.keep(row)

    def heard(self, entries: Iterable[Entry]) -> None:
        """Forget what these entries say more about than is known here."""
        for entry in entries:
            if entry.lease is not None:
                self._leases.forget(entry.lease, before=entry.revision)
            if entry.request is not None and entry.type.startswith("request."):
                self._requests.forget(entry.request, before=entry.revision)

    def lease(self, lease_id: str) -> Lease | None:
        """As of the newest entry heard; None: not known here."""
        return self._leases.get(lease_id)

    def request(self, request_id: str) -> Request | None:
        """As of the newest entry heard; None: not known here."""
        return self._requests.get(request_id)

    def with_lease(self, request_id: str) -> tuple[Request, Lease | None] | None:
        """A request and the lease it has, if any; None unless both are known here."""
        request = self._requests.get(request_id)
        if request is None or request.lease is None:
            return None if request is None else (request, None)
        lease = self._leases.get(request.lease)
        return None if lease is None else (request, lease)


class _Latest(Generic[R]):
    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[str, R] = {}

    def get(self, row_id: str) -> R | None:
        return self._rows.get(row_id)

    def keep(self, row: R) -> None:
        known = self._rows.pop(row.id, None)
        self._rows[row.id] = row if known is None or known.revision <= row.revision else known
        if len(self._rows) > self._most:
            del self._rows[next(iter(self._rows))]

    def forget(self, row_id: str, *, before: int) -> None:
        known = self._rows.get(row_id)
        if known is not None and known.revision < before:
            del self._rows[row_id]
