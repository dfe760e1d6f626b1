"""Leases: read the contract, watch it, and end it by the one path there is."""

from collections.abc import AsyncIterator
from typing import Annotated

from broker.domain.access import ADMIN, LEND, READ, REQUEST, Once
from broker.service.answers import Change, Page
from broker.web.call import Call, Paging
from broker.web.routing import route
from broker.wire.base import Name
from broker.wire.leases import LeaseState, LeaseView, Reclaim, Renewal, Revocation

TAG = "Leases"


class LeaseQuery(Paging):
    """Which leases to list."""

    state: LeaseState | None = None
    """Only those in this state."""
    cluster: Name | None = None
    """Only those that this cluster lends or borrows."""


async def list_leases(call: Call, *, query: LeaseQuery) -> Page[LeaseView]:
    """List the leases your tenant has a part in, newest first."""
    return await call.broker.leases(
        call.who, state=query.state, cluster=query.cluster, cursor=query.cursor, limit=query.limit
    )


async def get_lease(call: Call, *, lease: str) -> LeaseView:
    """Read one lease, with its signed form.

    ``token`` is a JWS that anybody can check offline with the key set at ``/.well-known/jwks.json``.
    """
    return await call.broker.lease(call.who, lease)


async def return_lease(call: Call, *, lease: str, once: Once) -> LeaseView:
    """Give the devices back before the end (borrower)."""
    return await call.broker.return_lease(call.who, lease, once)


async def renew_lease(call: Call, *, lease: str, body: Renewal, once: Once) -> LeaseView:
    """Ask for more time, counted from now (borrower); the answer says what was given."""
    return await call.broker.renew(call.who, lease, body, once)


async def reclaim_lease(call: Call, *, lease: str, body: Reclaim, once: Once) -> LeaseView:
    """Take the devices back before the end (lender).

    The borrower gets the notice that the signed terms promise, and not before the minimum runtime.
    """
    return await call.broker.reclaim(call.who, lease, body, once)


async def revoke_lease(call: Call, *, lease: str, body: Revocation, once: Once) -> LeaseView:
    """End a lease at once (administrator)."""
    return await call.broker.revoke(call.who, lease, body, once)


def watch_leases(call: Call, *, after: int | None) -> Annotated[AsyncIterator[Change], LeaseView]:
    """Watch leases as they change."""
    return call.broker.changes(call.who, "leases", after)


ROUTES = (
    route("GET", "/v1/leases", list_leases, needs=READ, tag=TAG),
    route("GET", "/v1/leases/watch", watch_leases, needs=READ, tag=TAG),
    route("GET", "/v1/leases/{lease}", get_lease, needs=READ, tag=TAG),
    route("POST", "/v1/leases/{lease}/return", return_lease, needs=REQUEST, tag=TAG),
    route("POST", "/v1/leases/{lease}/renew", renew_lease, needs=REQUEST, tag=TAG),
    route("POST", "/v1/leases/{lease}/reclaim", reclaim_lease, needs=LEND, tag=TAG),
    route("POST", "/v1/leases/{lease}/revoke", revoke_lease, needs=ADMIN, tag=TAG),
)
