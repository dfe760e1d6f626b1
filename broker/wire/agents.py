"""What agents and the broker say to each other. Agents dial out; the broker only ever answers."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from broker.wire.base import Inbound, Instant, Jwk, Name, Outbound, ShortText
from broker.wire.burst import BurstPolicySpec, BurstPolicyStatus
from broker.wire.leases import DesiredLease


class Join(Inbound):
    """A cluster's agent introduces itself with its one-use token."""

    token: Annotated[str, StringConstraints(min_length=16, max_length=256)]
    cluster: Name
    signing_key: Jwk
    """Ed25519: adverts and reports are signed with it."""
    sealing_key: Jwk
    """X25519: what only this agent may read is sealed to it."""
    version: ShortText = ""


class Joined(Outbound):
    """The agent's own credential. Shown once."""

    cluster: str
    tenant: str
    credential: str
    issuer: str
    jwks: dict[str, list[Jwk]]
    server_time: datetime


class LeaseReport(Inbound):
    """How one lease stands in one cluster, as its agent observes it."""

    lease: Annotated[str, StringConstraints(max_length=63)]
    role: Literal["lender", "borrower"]
    generation: Annotated[int, Field(ge=0)]
    phase: Literal["held", "lent", "draining", "released", "conflict", "refused", "mirrored", "gone"]
    """Lender: held → lent → draining → released, or conflict/refused (nothing is held). Borrower: mirrored, gone."""
    fence: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """The highest fence among the lease's devices: an acknowledgement counts for that fence only."""
    devices: Annotated[tuple[Annotated[str, StringConstraints(max_length=400)], ...], Field(max_length=4_096)] = ()
    """conflict: the devices (driver/pool/name) that local work took first."""
    reason: ShortText = ""
    sealed_credential: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    credential_serial: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class Report(Inbound):
    """How the leases of one cluster stand. Signed by its agent."""

    cluster: Name
    sequence: Annotated[int, Field(ge=1, lt=1 << 63)]
    sent_at: Instant
    resync: bool = False
    """This names every lease the agent knows: the first report after a (re)connection."""
    highest_fence: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    leases: Annotated[tuple[LeaseReport, ...], Field(max_length=4_096)] = ()


class Heard(Outbound):
    """The broker's answer to an advert or a report."""

    server_time: datetime
    sequence: int
    applied: bool
    """False: this sequence or a higher one was heard before, and nothing changed."""
    clock_safe: bool = True
    """False: this cluster's clock is off by more than the bound, so it gets no new leases."""
    message: ShortText = ""


class Desired(Outbound):
    """Everything the broker wants of one cluster, as of one revision."""

    revision: int
    server_time: datetime
    leases: list[DesiredLease]


class BurstPolicyReport(Inbound):
    """The BurstPolicies of one cluster, as its objects have them."""

    policies: Annotated[dict[Name, BurstPolicySpec], Field(max_length=64)]


class BurstPolicyStatuses(Outbound):
    """What each policy has spent and may still spend."""

    policies: dict[str, BurstPolicyStatus]


class ClusterView(Outbound):
    """A member of the federation."""

    name: str
    tenant: str
    state: Literal["Ready", "Recovering", "Silent", "ClockUnsafe", "Revoked"]
    message: ShortText = ""
    joined_at: datetime
    last_seen_at: datetime | None = None
    clock_offset_ms: int | None = None
    version: str = ""
    offers: int = 0
    devices: dict[str, int] = {}
    excluded: list[dict[str, str | int]] = []
    lends: int = 0
    """Live leases in which it is the lender."""
    borrows: int = 0
