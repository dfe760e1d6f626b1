"""Reading untrusted JSON: every value is checked for its kind and its size before it is used.

A driver, or whoever can write its objects, may publish anything. ``Malformed`` says where an object is wrong and what
is wrong there; it is the only exception that reading raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from broker.dra import quantity
from broker.dra.quantity import Quantity

T = TypeVar("T")
MAX_NAME = 253
_NOTHING: Mapping[str, Any] = {}


class Malformed(ValueError):
    """An object that cannot be what it says it is; the message names the place and the reason."""


def table(raw: object, where: str, *, most: int = 1024) -> Mapping[str, Any]:
    """A JSON object with text keys (absent counts as empty)."""
    if raw is None:
        return _NOTHING
    if not isinstance(raw, Mapping):
        raise Malformed(f"{where}: expected an object, got {type(raw).__name__}")
    if len(raw) > most:
        raise Malformed(f"{where}: {len(raw)} entries, at most {most} are read")
    if not all(isinstance(key, str) and len(key) <= 2 * MAX_NAME for key in raw):
        raise Malformed(f"{where}: a key is no text, or too long")
    return raw


def items(raw: object, where: str, *, most: int = 1024) -> list[Any]:
    """A JSON array (absent counts as empty)."""
    if raw is None:
        return []
    if not isinstance(raw, list | tuple):
        raise Malformed(f"{where}: expected a list, got {type(raw).__name__}")
    if len(raw) > most:
        raise Malformed(f"{where}: {len(raw)} entries, at most {most} are read")
    return list(raw)


def text(raw: object, where: str, *, most: int = MAX_NAME, needed: bool = False) -> str:
    """A string (absent counts as empty, unless ``needed``)."""
    if raw is None and not needed:
        return ""
    if not isinstance(raw, str):
        raise Malformed(f"{where}: expected a string, got {type(raw).__name__}")
    if len(raw) > most:
        raise Malformed(f"{where}: {len(raw)} characters, at most {most} are read")
    if needed and not raw:
        raise Malformed(f"{where}: is empty")
    if not raw.isascii() and any("\ud800" <= character <= "\udfff" for character in raw):
        raise Malformed(f"{where}: is not valid Unicode")
    return raw


def integer(raw: object, where: str) -> int:
    """A 64-bit integer (absent counts as 0)."""
    if raw is None:
        return 0
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise Malformed(f"{where}: expected an integer, got {type(raw).__name__}")
    if not -(2**63) <= raw < 2**63:
        raise Malformed(f"{where}: does not fit 64 bits")
    return raw


def boolean(raw: object, where: str) -> bool:
    """True or false (absent counts as false)."""
    if raw is None:
        return False
    if not isinstance(raw, bool):
        raise Malformed(f"{where}: expected true or false, got {type(raw).__name__}")
    return raw


def amount(raw: object, where: str) -> Quantity:
    """A quantity of zero or more."""
    try:
        read = quantity.from_json(raw)
    except quantity.BadQuantity as error:
        raise Malformed(f"{where}: {error}") from None
    if read < quantity.ZERO:
        raise Malformed(f"{where}: is negative")
    return read


def optional_amount(raw: object, where: str) -> Quantity | None:
    return None if raw is None else amount(raw, where)


def texts(raw: object, where: str, *, most: int = 1024) -> tuple[str, ...]:
    return tuple(text(item, where, needed=True) for item in items(raw, where, most=most))


def each(raw: object, where: str, read: Callable[[Any, str], T], *, most: int = 1024) -> tuple[T, ...]:
    """Every entry of a list, read with its place in the name."""
    return tuple(read(item, f"{where}[{index}]") for index, item in enumerate(items(raw, where, most=most)))
