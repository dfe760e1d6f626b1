"""Time and ids come in from outside.

Whoever needs the time takes a ``Clock``, whoever makes an id takes a ``NewId``: tests hand in their own, and a
simulation can run a day in a second. Times are aware, in UTC, and whole microseconds.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
NewId = Callable[[str], str]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: ids must be DNS labels


def utc_now() -> datetime:
    """The wall clock, aware, in UTC."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """An opaque id such as ``lse-06f3…``: 8 characters of time (sortable to about a second), then 80 random bits.

    Ids name Kubernetes objects, so they are lower-case DNS labels (RFC 1123) of at most 63 characters.
    """
    seconds = int(utc_now().timestamp())
    number = (seconds << 80) | secrets.randbits(80)
    digits = []
    for _ in range(24):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}-{''.join(reversed(digits))}"
