"""What a use case answers with, where one wire model is not enough."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; ``cursor`` asks for what follows, None when nothing does."""

    items: list[T]
    cursor: str | None = None
    revision: int | None = None
    """Watch from here to hear of every change since this list (first page)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a watch: resume it with ``after=revision``."""

    revision: int
    type: str
    """What happened, e.g. ``lease.active``; several steps of one object may arrive as one."""
    object: Any
    """The object as it is now, as a wire model (``LeaseView``, ``OfferView``, ``RequestView``, ``DesiredLease``)."""
