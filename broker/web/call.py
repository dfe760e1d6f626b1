"""What a handler gets instead of HTTP, and the few types by which its signature tells what it takes.

A handler is ``async def renew(call, *, lease: str, body: Renewal, once: Once) -> LeaseView``. ``routing`` reads that:

* ``body``: a wire model (JSON), or ``Signed`` (a JWS in compact form, as it came);
* ``query``: a model of the query string;
* ``once``: the POST's Idempotency-Key;
* ``after``: where a watch resumes;
* any other name is a part of the path;
* the answer is a wire model, ``Page[model]``, None (204), ``Annotated[bytes, content type]``, or
  ``Annotated[AsyncIterator[Change], model]`` for a watch. The first line of its docstring is the operation's summary.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

from broker.domain.access import Principal
from broker.service.broker import Broker
from broker.web.metrics import Metrics
from broker.wire.base import Inbound

OPEN = "open"
"""No credential is asked for."""
ANYBODY = "anybody"
"""Any good credential will do."""


class Signed(str):
    """A signed message, exactly as it came: what is signed is bytes."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What the broker shows of itself, made once."""

    document: bytes
    """The OpenAPI document."""
    page: bytes
    """The same for people."""
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Call:
    """One call: whom to ask, and who is asking."""

    broker: Broker
    shown: Shown
    caller: Principal | None

    @property
    def who(self) -> Principal:
        """Who is asking; only an open route has nobody, and no open route asks for it."""
        if self.caller is None:
            raise LookupError("an open route asked who is calling")
        return self.caller


class Paging(Inbound):
    """Which part of a list."""

    cursor: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    """The ``cursor`` of the page before; opaque."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    """The most items in one page."""
