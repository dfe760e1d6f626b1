"""The broker about itself: is it well, what does it offer, with which keys does it sign."""

from typing import Annotated

from broker.domain.access import METRICS
from broker.service.census import census
from broker.web.call import OPEN, Call
from broker.web.metrics import CONTENT_TYPE
from broker.web.refusals import NotReady
from broker.web.routing import route
from broker.wire.base import Jwk, Outbound

TAG = "The broker itself"


class Health(Outbound):
    """It answers."""

    status: str = "ok"


class KeySet(Outbound):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[Jwk]
    """Ed25519 keys; leases are signed with one of them."""


async def healthy(call: Call) -> Health:
    """Whether the process runs."""
    return Health()


async def ready(call: Call) -> Health:
    """Whether it can serve: the store answers."""
    if (why := await call.broker.ready()) is not None:
        raise NotReady(why)
    return Health()


async def get_keys(call: Call) -> KeySet:
    """The keys with which anybody can verify leases offline."""
    return KeySet.model_validate(call.broker.jwks())


async def get_document(call: Call) -> Annotated[bytes, "application/json"]:
    """This document."""
    return call.shown.document


async def get_docs(call: Call) -> Annotated[bytes, "text/html; charset=utf-8"]:
    """This document for people."""
    return call.shown.page


async def scrape(call: Call) -> Annotated[bytes, CONTENT_TYPE]:
    """Metrics in Prometheus' text format."""
    return call.shown.metrics.text(await census(call.broker))


ROUTES = (
    route("GET", "/healthz", healthy, needs=OPEN, tag=TAG),
    route("GET", "/readyz", ready, needs=OPEN, tag=TAG),
    route("GET", "/.well-known/jwks.json", get_keys, needs=OPEN, tag=TAG),
    route("GET", "/openapi.json", get_document, needs=OPEN, tag=TAG),
    route("GET", "/docs", get_docs, needs=OPEN, tag=TAG),
    route("GET", "/metrics", scrape, needs=METRICS, tag=TAG),
)
