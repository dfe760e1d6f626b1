"""Offers: what may be borrowed at this moment."""

from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import StringConstraints

from broker.domain.access import READ
from broker.service.answers import Change, Page
from broker.web.call import Call, Paging
from broker.web.routing import route
from broker.wire.base import Label
from broker.wire.offers import OfferView

TAG = "Offers"


class OfferQuery(Paging):
    """Which offers to list."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    """Only devices of this model, as the offers name it."""
    region: Label | None = None
    """Only devices in this region."""


async def list_offers(call: Call, *, query: OfferQuery) -> Page[OfferView]:
    """List the offers that are open to your tenant."""
    return await call.broker.offers(
        call.who, model=query.model, region=query.region, cursor=query.cursor, limit=query.limit
    )


async def get_offer(call: Call, *, offer: str) -> OfferView:
    """Read one offer."""
    return await call.broker.offer(call.who, offer)


def watch_offers(call: Call, *, after: int | None) -> Annotated[AsyncIterator[Change], OfferView]:
    """Watch offers as they change."""
    return call.broker.changes(call.who, "offers", after)


ROUTES = (
    route("GET", "/v1/offers", list_offers, needs=READ, tag=TAG),
    route("GET", "/v1/offers/watch", watch_offers, needs=READ, tag=TAG),
    route("GET", "/v1/offers/{offer}", get_offer, needs=READ, tag=TAG),
)
