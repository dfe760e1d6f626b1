"""The words that all parts of a document share: names, amounts, durations, and what a part is."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from broker.kit.durations import parse_duration
from broker.kit.money import from_micros, to_micros
from broker.wire.base import Inbound
from optimizer.ranges import MAX_DEVICES, MAX_PRICE

LONGEST_NAME = 100
ENDLESS = ("inf", "infinity", "infinite", "unlimited", "endless", "none", "∞")
"""What people write where they mean no limit."""


def written(how: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "title": how, "examples": [example]})


def _name(value: object) -> object:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("must be a name")
    if not 0 < len(value) <= LONGEST_NAME:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters")
    if not value.isprintable():
        raise ValueError("a name has printable characters only")
    return value


def _dollars(value: object) -> int:
    if _is_endless(value):
        raise ValueError("an amount is finite; where there is to be no limit, leave the line out")
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be an amount in US dollars, such as 2.40")
    if isinstance(value, int | Decimal):
        return to_micros(Decimal(value))
    return to_micros(value)


def _is_endless(value: object) -> bool:
    if isinstance(value, Decimal):
        return not value.is_finite()
    return isinstance(value, str) and value.lower().lstrip("+-.") in ENDLESS


def _price(value: object) -> int:
    micros = _dollars(value)
    if micros > MAX_PRICE:
        raise ValueError(f"{from_micros(micros)} per device-hour is too much; the most is {from_micros(MAX_PRICE)}")
    return micros


def _seconds(value: object) -> int:
    if value == 0 and not isinstance(value, bool):
        return 0
    if _is_endless(value):
        raise ValueError("a duration is finite; where there is to be no limit, leave the line out")
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        raise ValueError(f"a bare number has no unit; write {value} seconds as {value}s, {value} hours as {value}h")
    if not isinstance(value, str):
        raise ValueError("a duration is written like 90s, 15m, 2h or 1h30m")
    return parse_duration(value)


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        raise ValueError("must be a number, such as 1.5")
    return Decimal(value)


def _thousandths(value: object) -> int:
    number = _number(value) * 1000
    if not 0 <= number <= 1_000_000_000 or number != number.to_integral_value():
        raise ValueError(f"{value} is not between 0 and 1000000 with three decimals at most")
    return int(number)


def _gigabytes(value: object) -> Decimal:
    number = _number(value)
    if not 0 <= number <= 10**9:
        raise ValueError(f"{value} is not between 0 and 1000000000")
    return number


def _several(value: object) -> object:
    return value if isinstance(value, list) else [value]


Name = Annotated[str, BeforeValidator(_name), written("a name", "eu-1")]
Dollars = Annotated[int, BeforeValidator(_dollars), written("an amount, US dollars", '"2.40"')]
"""µUSD in Python."""
Price = Annotated[int, BeforeValidator(_price), written("US dollars per device-hour", '"2.40"')]
"""µUSD in Python."""
Span = Annotated[int, BeforeValidator(_seconds), written("a duration", "6h")]
"""Seconds in Python."""
Moment = Annotated[int, BeforeValidator(_seconds), written("a duration from now", "6h")]
Milli = Annotated[int, BeforeValidator(_thousandths), written("a number", "1.5")]
"""Thousandths in Python."""
Gigabytes = Annotated[Decimal, BeforeValidator(_gigabytes), written("a number", "1.5")]
Names = Annotated[
    tuple[Name, ...], BeforeValidator(_several), Field(min_length=1), written("a name or a list", "[a, b]")
]
Devices = Annotated[int, Field(strict=True, ge=1, le=MAX_DEVICES)]
Flag = StrictBool


class Part(Inbound):
    """What every part of the document has in common."""

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, value: object) -> object:
        """A key without a value is as if it were left out."""
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value
