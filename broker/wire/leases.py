"""Leases: the signed contract, as it is read and as it is signed."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from broker.wire.base import MOST_DEVICES, Duration, Inbound, Money, Name, Outbound, Price, ShortText
from broker.wire.devices import Confidential, Kind, OfferedDevice, Place
from broker.wire.offers import Terms


class LeaseState(StrEnum):
    """As in ``broker.domain.lease``; the web room maps one to the other."""

    PENDING = "Pending"
    RESERVED = "Reserved"
    PREPARED = "Prepared"
    ACTIVE = "Active"
    DRAINING = "Draining"
    ORPHANED = "Orphaned"
    QUARANTINED = "Quarantined"
    ENDED = "Ended"


class Ending(StrEnum):
    """Why a lease ends or ended."""

    RETURNED = "returned"
    EXPIRED = "expired"
    RECLAIMED = "reclaimed"
    REVOKED = "revoked"
    CANCELLED = "cancelled"
    CONFLICT = "conflict"
    TIMED_OUT = "timed-out"
    LOST = "lost"


class LeasedDevice(OfferedDevice):
    """A device in a lease, with its fence: a number that only rises; whoever shows a lower one is refused."""

    fence: Annotated[int, Field(ge=1, lt=1 << 63)]


class LeaseBody(Inbound):
    """What is leased, to whom, on which terms: the part of a lease that never changes."""

    id: str
    request: str
    lender: Name
    borrower: Name
    tenant: Name
    kind: Kind
    devices: Annotated[tuple[LeasedDevice, ...], Field(min_length=1, max_length=MOST_DEVICES)]
    price: Price
    terms: Terms
    place: Place = Place()
    confidential: Confidential | None = None
    """What was declared when it was leased, where the borrower asked for it: declared, not proved."""
    duration: Duration


class LeaseClaims(Outbound):
    """The payload of the signed lease (RFC 7519 names where there are any)."""

    iss: str
    sub: str
    """The borrower's cluster."""
    aud: list[str]
    """The lender's and the borrower's clusters."""
    jti: str
    """The lease's id."""
    iat: int
    nbf: int
    exp: int
    """Seconds since the epoch. The borrower stops at ``exp − e``, the lender at ``exp + e`` (e: the skew bound)."""
    generation: int
    """Rises with every renewal."""
    lease: LeaseBody


class Mirror(Outbound):
    """Whether both clusters hold the lease as objects."""

    lender: bool = False
    borrower: bool = False


class LeaseView(Outbound):
    """A lease as its parties see it."""

    id: str
    request: str
    state: LeaseState
    generation: int
    revision: int
    lender: str
    borrower: str
    tenant: str
    lender_tenant: str
    kind: Kind
    devices: list[LeasedDevice]
    price: Price
    cost: Money
    """What it costs at worst while it lives, what it did cost once it has ended; ``transfer`` included."""
    transfer: Money | None = None
    """Of that, what bringing the borrower's data there is reckoned to cost; not the lender's to ask. None: nothing."""
    terms: Terms
    place: Place
    confidential: Confidential | None = None
    policy: str | None = None
    created_at: datetime
    active_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    ending: Ending | None = None
    message: ShortText = ""
    mirrored: Mirror = Mirror()
    token: str | None = None
    """The signed lease (JWS); ``lendmesh lease verify`` checks it offline."""


class Renewal(Inbound):
    """A wish for more time."""

    duration: Duration
    """Counted from now; the answer says what was really given."""


class Reclaim(Inbound):
    """A lender wants its devices back before the end."""

    reason: ShortText = ""


class Revocation(Inbound):
    """An administrator ends a lease at once."""

    reason: ShortText


class DesiredLease(Outbound):
    """What one cluster is asked to make so for one lease."""

    id: str
    role: Literal["lender", "borrower"]
    want: Literal["held", "lent", "gone"]
    """Lender: hold the devices; then lend them (the lease is signed); then give them back. Borrower: lent or gone."""
    generation: int
    revision: int
    lease: LeaseBody
    workload_namespace: str = "default"
    """Borrower: where the remote claim belongs."""
    hold_until: AwareDatetime | None = None
    """Lender, while want is held: give up and release when nothing more was heard by then."""
    drain_from: AwareDatetime | None = None
    """Set when the end is known early (a reclaim's notice)."""
    ending: Ending | None = None
    token: str | None = None
    peer_sealing_key: dict[str, str] | None = None
    """Lender: seal the borrower's kubeconfig to this key."""
    sealed_credential: str | None = None
    """Borrower: the kubeconfig, for its agent's eyes only."""
    credential_serial: int = 0
