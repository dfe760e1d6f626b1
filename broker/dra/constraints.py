"""Constraints between the devices of one claim: the same value of an attribute, or different ones.

Values compare by kind as well: the int 1 is not the string "1". A list stands for the set of its values (feature
DRAListTypeAttributes): devices match while one value is common to all, and are distinct while no two share one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from broker.dra.model import Constraint, Device, Request

Values = frozenset[tuple[str, object]]


class Check(Protocol):
    """A constraint while devices are added and, on the way back, removed in the opposite order."""

    def add(self, device: Device) -> bool: ...

    def remove(self) -> None: ...


class BadConstraint(ValueError):
    """A constraint of a kind that is not known here."""


@dataclass
class Match:
    """All devices share a value."""

    attribute: str
    common: list[Values] = field(default_factory=list)

    def add(self, device: Device) -> bool:
        values = _values(device, self.attribute)
        if self.common:
            values &= self.common[-1]
        if not values:
            return False
        self.common.append(values)
        return True

    def remove(self) -> None:
        self.common.pop()


@dataclass
class Distinct:
    """No two devices share a value."""

    attribute: str
    used: list[Values] = field(default_factory=list)

    def add(self, device: Device) -> bool:
        values = _values(device, self.attribute)
        if not values or any(values & earlier for earlier in self.used):
            return False
        self.used.append(values)
        return True

    def remove(self) -> None:
        self.used.pop()


def check_for(constraint: Constraint) -> Check:
    """The running form of a constraint.

    Raises:
        BadConstraint: its kind is not known.
    """
    if constraint.kind == "match":
        return Match(constraint.attribute)
    if constraint.kind == "distinct":
        return Distinct(constraint.attribute)
    raise BadConstraint("empty constraint (of a kind that is not known here)")


def concerns(constraint: Constraint, request: Request, full_name: str) -> bool:
    """Whether a constraint is about a request: all are meant when it names none."""
    return not constraint.requests or request.name in constraint.requests or full_name in constraint.requests


def _values(device: Device, attribute: str) -> Values:
    value = device.attribute(attribute)
    if value is None:
        return frozenset()
    many = value if isinstance(value, tuple) else (value,)
    return frozenset((type(one).__name__, one) for one in many)
