"""A capacity request: whose move it is, and what becomes of it when a lease of it is made, fails or ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from broker.domain.errors import Conflict


class RequestState(StrEnum):
    """As in ``broker.wire.requests``: the service maps one to the other by value, and a test checks that it can."""

    OPEN = "Open"  # the broker looks for a place
    PLACED = "Placed"  # the lender's: a lease is being made
    ACTIVE = "Active"  # the borrower's: the lease runs
    REFUSED = "Refused"
    CANCELLED = "Cancelled"
    CLOSED = "Closed"


DONE = frozenset({RequestState.REFUSED, RequestState.CANCELLED, RequestState.CLOSED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request, as of one moment; ``body``, ``placement`` and ``reasons`` are the wire's JSON, opaque here."""

    id: str
    tenant: str
    cluster: str
    policy: str | None
    body: str
    created_at: datetime
    updated_at: datetime
    wait_until: datetime
    """Nothing is tried after this."""
    state: RequestState = RequestState.OPEN
    attempts: int = 0
    excluded: frozenset[str] = frozenset()
    """Device references and offer ids that failed this request."""
    lease: str | None = None
    placement: str | None = None
    reasons: str = "[]"
    message: str = ""
    revision: int = 0

    def placed(self, *, lease: str, placement: str, now: datetime) -> Request:
        """A lease is being made for it."""
        self._must_be(RequestState.OPEN)
        return replace(
            self,
            state=RequestState.PLACED,
            lease=lease,
            placement=placement,
            reasons="[]",
            attempts=self.attempts + 1,
            updated_at=now,
            message="",
        )

    def active(self, *, now: datetime) -> Request:
        return replace(self, state=RequestState.ACTIVE, updated_at=now)

    def refused(self, *, reasons: str, message: str, now: datetime) -> Request:
        self._must_be(RequestState.OPEN)
        return replace(self, state=RequestState.REFUSED, reasons=reasons, message=message, updated_at=now)

    def waiting(self, *, reasons: str, message: str, now: datetime) -> Request:
        """Still open; whoever asks may read what stands in the way so far."""
        return replace(self, reasons=reasons, message=message, updated_at=now)

    def cancelled(self, *, now: datetime, message: str = "") -> Request:
        if self.state in DONE:
            raise Conflict(f"Request {self.id} is {self.state.value.lower()}; there is nothing to cancel.")
        return replace(self, state=RequestState.CANCELLED, message=message, updated_at=now)

    def closed(self, *, now: datetime, message: str) -> Request:
        return replace(self, state=RequestState.CLOSED, message=message, updated_at=now)

    def reopened(self, *, without: frozenset[str], message: str, most: int, now: datetime) -> Request:
        """Its lease failed before it was active: look again without what failed, or give up after ``most`` attempts."""
        if self.attempts >= most:
            text = f"Given up after {self.attempts} attempts; the last one failed: {message}"
            return replace(self, state=RequestState.REFUSED, message=text, updated_at=now)
        return replace(
            self,
            state=RequestState.OPEN,
            lease=None,
            placement=None,
            excluded=self.excluded | without,
            message=message,
            updated_at=now,
        )

    def _must_be(self, state: RequestState) -> None:
        if self.state is not state:
            raise Conflict(f"Request {self.id} is {self.state.value.lower()}, not {state.value.lower()}.")
