"""Lists come in pages."""

from typing import Generic, TypeVar

from broker.wire.base import Outbound

T = TypeVar("T", bound=Outbound)


class Listing(Outbound, Generic[T]):
    """One page of a list."""

    items: list[T]
    cursor: str | None = None
    """Ask again with it for the next page; null: this was the last one. Opaque: only the broker reads it."""
    revision: int | None = None
    """Watch from here (``?after=``) to hear of every change since this list; on the first page."""
