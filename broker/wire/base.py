"""What every message has in common.

Strict where we accept, tolerant where we read: an ``Inbound`` model refuses a field it doesn't know (a typo is an
error), an ``Outbound`` one ignores it (so that fields can be added). Both are frozen. Money and durations travel as
people write them, and every text and list has a limit.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from broker.kit.durations import format_duration, parse_duration
from broker.kit.money import DEAREST_MICROS, from_micros, to_micros


class Inbound(BaseModel):
    """What we accept."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_max_length=16_384, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Outbound(BaseModel):
    """What we say; whoever reads it ignores what it doesn't know."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


def _seconds(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"a bare number has no unit; write {value} seconds as {value}s")
    if not isinstance(value, str):
        raise ValueError("a duration is a text such as 90s, 15m, 2h or 1h30m")
    return parse_duration(value)


Duration = Annotated[
    int,
    BeforeValidator(_seconds),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?$", "examples": ["90s", "1h30m"]}),
]
"""Whole seconds in Python; ``1h30m`` on the wire."""


def _micros(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError('an amount of money is a text such as "2.40", so that no digit is lost')
    return to_micros(value)


Amount = Annotated[
    int,
    BeforeValidator(_micros),
    PlainSerializer(lambda micros: str(from_micros(micros)), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d{1,6})?$", "examples": ["2.40"]}),
]
"""Micro-dollars in Python; ``"2.40"`` on the wire."""


def _usd(value: object) -> object:
    if value != "USD":
        raise ValueError(
            f"prices are in USD here; {str(value)[:12]!r} can't be compared with them, so convert it first"
        )
    return value


Currency = Annotated[Literal["USD"], BeforeValidator(_usd)]


class Price(Inbound):
    """A price per device and hour."""

    amount: Amount
    currency: Currency = "USD"
    per: Literal["device-hour"] = "device-hour"

    @property
    def micros(self) -> int:
        """Micro-dollars per device-hour."""
        return self.amount


def _likely(value: Price) -> Price:
    if value.amount > DEAREST_MICROS:
        raise ValueError(
            f"{from_micros(value.amount):,} USD for one device and hour is more than "
            f"{from_micros(DEAREST_MICROS):,}, above which it is a mistake; is the unit right?"
        )
    return value


AskedPrice = Annotated[Price, AfterValidator(_likely)]
"""What a lender asks."""


class Money(Inbound):
    """A sum of money."""

    amount: Amount
    currency: Currency = "USD"

    @classmethod
    def of(cls, micros: int) -> "Money":
        return cls.model_construct(amount=micros, currency="USD")


def price(micros: int) -> Price:
    """A ``Price`` from micro-dollars per device-hour."""
    return Price.model_construct(amount=micros, currency="USD", per="device-hour")


_FIRST, _END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _told(value: datetime) -> datetime:
    if not _FIRST <= value < _END:
        raise ValueError("a time between the years 2000 and 2200 is needed")
    return value.astimezone(UTC)


Instant = Annotated[AwareDatetime, AfterValidator(_told)]
"""A time that somebody tells us. Bounded: year 1 in Asia is year 0 in UTC, and whoever keeps it can never read it."""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")


def _written(value: object) -> object:
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC3339.match(value)):
        raise ValueError("a time is a text with its offset, such as 2026-12-01T14:00:00Z (RFC 3339)")
    return value


Time = Annotated[Instant, BeforeValidator(_written)]
"""As people write it (RFC 3339): a number could be seconds or milliseconds, and a time without offset anywhere."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""A DNS label (RFC 1123): clusters, tenants, policies."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]
"""A Kubernetes label value: regions, zones, providers."""
Id = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,4}-[0-9a-z]{8,56}$")]
ShortText = Annotated[str, StringConstraints(max_length=1_024)]
Cel = Annotated[str, StringConstraints(min_length=1, max_length=10_240)]
"""A CEL expression; the limit is Kubernetes' own for device selectors."""
MOST_DEVICES = 1_024
"""In one request, and in one lease."""
Count = Annotated[int, Field(ge=1, le=MOST_DEVICES, strict=True)]
"""How many devices, or workers, one request may ask for."""
Jwk = Annotated[dict[str, Any], Field(max_length=12)]


class Problem(Outbound):
    """A refusal as RFC 9457 has it: ``application/problem+json``."""

    type: str
    """A stable URI reference that names the kind of refusal."""
    title: str
    status: int
    detail: str
    """The sentence for the person who asked: what was wrong, and what to do."""
    instance: str | None = None
    """The request's id, as it stands in the broker's log."""
    errors: list[dict[str, Any]] = []
    """For invalid input: where (a JSON pointer) and what."""
    reasons: list[dict[str, Any]] = []
    """For a request that could not be placed: the reasons, as data."""
