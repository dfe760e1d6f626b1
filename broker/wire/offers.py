"""Offers: what a lender advertises, and what a borrower may look at."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from broker.wire.base import AskedPrice, Duration, Inbound, Instant, Name, Outbound, Price
from broker.wire.devices import Confidential, Excluded, Kind, OfferedDevice, Place

MAX_DEVICES_AN_OFFER = 16_384
MAX_OFFERS = 512


class Terms(Inbound):
    """Under which terms a lender lends; they are part of what is signed."""

    max_duration: Duration
    min_duration: Duration = 60
    reclaim_notice: Duration = 300
    """How long before taking devices back early the lender warns the borrower."""
    minimum_runtime: Duration = 600
    """The lender doesn't take devices back earlier than this after the start."""
    allowed_borrowers: Annotated[tuple[Name, ...], Field(max_length=256)] | None = None
    """Tenants that may borrow; None: everybody in the federation."""

    @property
    def uninterrupted(self) -> int:
        """Seconds from its start for which a lease is surely left alone: a notice can't begin before it."""
        return max(self.minimum_runtime, self.reclaim_notice)


class AdvertisedOffer(Inbound):
    """Free devices of one kind, under one price and one set of terms."""

    name: Name
    """Stable in its cluster: the same kind, price and terms keep their name."""
    policy: Name
    """The LendingPolicy it comes from."""
    kind: Kind
    price: AskedPrice
    terms: Terms
    place: Place = Place()
    confidential: Confidential = Confidential()
    unit: Annotated[int, Field(ge=1, le=1_024)] = 1
    """Devices that can only be lent together (a TPU node lends all its chips or none)."""
    devices: Annotated[tuple[OfferedDevice, ...], Field(max_length=MAX_DEVICES_AN_OFFER)]
    """Exactly what may be lent now: the free devices less what the owner keeps back."""


class InventoryCounts(Inbound):
    """How the cluster's devices stand, for people and metrics."""

    total: Annotated[int, Field(ge=0)] = 0
    free: Annotated[int, Field(ge=0)] = 0
    allocated: Annotated[int, Field(ge=0)] = 0
    lent: Annotated[int, Field(ge=0)] = 0
    kept_back: Annotated[int, Field(ge=0)] = 0
    unusable: Annotated[int, Field(ge=0)] = 0
    excluded: Annotated[tuple[Excluded, ...], Field(max_length=64)] = ()


class Advert(Inbound):
    """Everything one cluster offers now. Signed by its agent; replaces the advert before it."""

    cluster: Name
    sequence: Annotated[int, Field(ge=1, lt=1 << 63)]
    """Rises with every advert of this cluster, across restarts; a lower or equal one changes nothing."""
    sent_at: Instant
    """The agent's wall clock: the broker measures its skew with it."""
    valid_until: Instant
    offers: Annotated[tuple[AdvertisedOffer, ...], Field(max_length=MAX_OFFERS)] = ()
    counts: InventoryCounts = InventoryCounts()


class OfferView(Outbound):
    """An offer as a borrower sees it."""

    id: str
    cluster: str
    name: str
    kind: Kind
    price: Price
    terms: Terms
    place: Place
    confidential: Confidential
    unit: int
    devices: int
    """How many are free to borrow at this moment: advertised and in no live lease."""
    largest_node: int
    """The most of them that sit in one node."""
    valid_until: datetime
    updated_at: datetime
    stale: bool = False
    """The lender is silent or its clock is off: nothing is placed here until it is back."""
