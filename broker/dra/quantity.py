"""Kubernetes quantities ("80Gi", "500m", "1e3"), exact.

Kubernetes keeps a quantity to a billionth and rounds anything finer away from zero, and it caps what it reads at
2^63-1 in either direction (apimachinery, pkg/api/resource). So every quantity is a whole number of billionths here:
one Python int, compared and added exactly, never a float. What comes from outside is bounded in length before it is
looked at, and no exponent, however large, makes a large number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_LENGTH = 64
_NANO = 10**9
_LARGEST = (2**63 - 1) * _NANO
_SHAPE = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,12}))?")
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FAR = 128  # a power of ten beyond which every number of MAX_LENGTH digits is above the cap, or below a billionth


class BadQuantity(ValueError):
    """The text is no Kubernetes quantity."""


@dataclass(frozen=True, order=True, slots=True)
class Quantity:
    """An exact amount, in billionths of the unit (``nanos``)."""

    nanos: int

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos)

    @property
    def whole(self) -> int | None:
        """The amount as an integer, or None when it is not one."""
        return None if self.nanos % _NANO else self.nanos // _NANO

    def __str__(self) -> str:
        return _format(self.nanos)


ZERO = Quantity(0)


@lru_cache(maxsize=4096)
def parse(text: str) -> Quantity:
    """The quantity a text stands for.

    Raises:
        BadQuantity: the text has another shape, or is longer than ``MAX_LENGTH``.
    """
    if len(text) > MAX_LENGTH:
        raise BadQuantity(f"a quantity has at most {MAX_LENGTH} characters")
    match = _SHAPE.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise BadQuantity(f"not a quantity: {text!r}")
    sign, whole, fraction, suffix, exponent = match.groups()
    digits = int((whole or "") + (fraction or "") or "0")
    scale = -len(fraction or "")
    factor = 1
    if suffix in _BINARY:
        factor = 1024 ** _BINARY[suffix]
    else:
        scale += int(exponent) if exponent else _DECIMAL[suffix or ""]
    nanos = _scaled(digits * factor, scale + 9)
    return Quantity(-nanos if sign == "-" else nanos)


def of_int(value: int) -> Quantity:
    """A whole number of units."""
    return Quantity(value * _NANO)


def from_json(value: object) -> Quantity:
    """The quantity of a JSON value: a string, or a bare number as Kubernetes also accepts."""
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return parse(repr(value)) if abs(value) < 10**MAX_LENGTH else parse("")
    raise BadQuantity(f"not a quantity: {type(value).__name__}")


def _scaled(number: int, power: int) -> int:
    """``number * 10**power``, rounded away from zero and capped."""
    if number == 0:
        return 0
    if power >= 0:
        shifted: int = number * 10 ** min(power, _FAR)
        return min(shifted, _LARGEST)
    divisor: int = 10 ** min(-power, _FAR)
    return min(-(-number // divisor), _LARGEST)


@lru_cache(maxsize=4096)
def _format(nanos: int) -> str:
    if nanos % _NANO:
        for suffix, power in (("m", 6), ("u", 3), ("n", 0)):
            if nanos % 10**power == 0:
                return f"{nanos // 10**power}{suffix}"
    units = nanos // _NANO
    for suffix, power in reversed(_BINARY.items()):
        if units and units % 1024**power == 0:
            return f"{units // 1024**power}{suffix}"
    return str(units)
