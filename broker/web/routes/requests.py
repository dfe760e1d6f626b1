"""Capacity requests: ask, look, watch, take back."""

from collections.abc import AsyncIterator
from typing import Annotated

from broker.domain.access import READ, REQUEST, Once
from broker.service.answers import Change, Page
from broker.web.call import Call, Paging
from broker.web.routing import route
from broker.wire.requests import CapacityRequest, RequestState, RequestView

TAG = "Capacity requests"


class RequestQuery(Paging):
    """Which requests to list."""

    state: RequestState | None = None
    """Only those in this state."""


async def submit_request(call: Call, *, body: CapacityRequest, once: Once) -> RequestView:
    """Ask for capacity.

    The answer comes at once, with the request's id and state Open; watch it, or read it again, to see it placed or
    refused with reasons.
    """
    return await call.broker.submit(call.who, body, once)


async def quote(call: Call, *, body: CapacityRequest) -> RequestView:
    """Ask what it would cost, where, and why not elsewhere.

    The same body and the same answer as a request, but nothing is placed, reserved or remembered. The offers may have
    changed by the time you ask in earnest.
    """
    return await call.broker.quote(call.who, body)


async def list_requests(call: Call, *, query: RequestQuery) -> Page[RequestView]:
    """List your tenant's requests, newest first."""
    return await call.broker.requests(call.who, state=query.state, cursor=query.cursor, limit=query.limit)


async def get_request(call: Call, *, request: str) -> RequestView:
    """Read one request: its step, its placement and the reasons for it."""
    return await call.broker.request(call.who, request)


async def cancel_request(call: Call, *, request: str) -> RequestView:
    """Take a request back; a lease that was made for it ends.

    Again is fine. One that was refused or has ended by itself has nothing to take back: 409.
    """
    return await call.broker.cancel(call.who, request)


def watch_requests(call: Call, *, after: int | None) -> Annotated[AsyncIterator[Change], RequestView]:
    """Watch requests as they change."""
    return call.broker.changes(call.who, "requests", after)


ROUTES = (
    route("POST", "/v1/requests", submit_request, needs=REQUEST, tag=TAG, status=201),
    route("GET", "/v1/requests", list_requests, needs=READ, tag=TAG),
    route("GET", "/v1/requests/watch", watch_requests, needs=READ, tag=TAG),
    route("GET", "/v1/requests/{request}", get_request, needs=READ, tag=TAG),
    route("DELETE", "/v1/requests/{request}", cancel_request, needs=REQUEST, tag=TAG),
    route("POST", "/v1/quotes", quote, needs=REQUEST, tag=TAG),
)
