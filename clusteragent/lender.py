"""The nouns of the lender's side of a lease: what is wanted, what is seen, what was done, why it ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.wire.agents import LeaseReport
from broker.wire.leases import DesiredLease, LeaseBody, LeaseClaims
from clusteragent import record
from clusteragent.actions import Action, Say
from clusteragent.cache import deleting
from clusteragent.expiry import Receipt
from clusteragent.kube.interface import Obj


@dataclass(frozen=True)
class Wish:
    """What the broker wants of a lease; ``claims`` is what its token says, verified (None: no token, or a bad one)."""

    desired: DesiredLease
    claims: LeaseClaims | None = None


@dataclass(frozen=True)
class Terms:
    """The settings that decide here."""

    skew: float
    drain: float
    keep_pod: bool
    image: str
    role: str
    lends: bool = True
    """False: this cluster only borrows, or its owner has turned lending off."""
    borrows: bool = True
    """False: this cluster only lends."""


@dataclass(frozen=True)
class View:
    """Everything of one lease that can be seen in the cluster."""

    lease: str
    wish: Wish | None
    heard: bool
    """The broker's full list has been heard since the start: a lease without a wish is unknown to it."""
    namespace: Obj | None
    record: record.Record | None
    claims: Mapping[str, Obj]
    pods: Mapping[str, Obj]
    nodes: Mapping[str, Obj]
    unfree: Mapping[str, str]
    """Leased devices that can't be had, and why: local work has them, or other hardware has their name."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Leased devices that can't be had now, and why: tainted, not published, on a node that is not ready."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """CEL that selects a device on its node, for every device that the inventory knows."""
    forbidden: str = ""
    """Why the owner's policies don't allow it; asked before anything is made."""
    stale: str = ""
    """A leased device whose fence is lower than one that was seen here: the lease is older than another's."""
    unreadable: bool = False
    """There is a record, but of a form that this version doesn't know: it is left alone."""

    @property
    def body(self) -> LeaseBody | None:
        if self.wish is not None:
            return self.wish.desired.lease
        return self.record.body if self.record else None

    @property
    def anything(self) -> bool:
        """Something of the lease is in the cluster."""
        return bool(self.claims or self.pods or self.record) or self.standing_namespace

    @property
    def standing_namespace(self) -> bool:
        return self.namespace is not None and not deleting(self.namespace)


@dataclass
class Memory:
    """What this process has done and need not do again. Nothing but repetition is lost with it."""

    created: set[tuple[str, str]] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    fenced: bool = False
    sealed: str | None = None
    serial: int = 0
    renew_at: float | None = None
    """Monotonic: when the borrower's credential is half used up."""
    receipt: Receipt | None = None
    received: int | None = None
    """The generation of the token that the receipt is for."""
    said: LeaseReport | None = None
    owes_rest: bool = False
    """Something was held, so its devices cool down when it is over."""
    since: float | None = None
    """Monotonic: when the hold was first looked at."""
    ending: "Ending | None" = None
    """Once an end has begun it goes on: it is not taken back half-way."""


@dataclass(frozen=True)
class Ending:
    """Why it ends here, and as what it is reported when nothing is left."""

    phase: str
    reason: str
    devices: tuple[str, ...] = ()


def report_of(
    body: LeaseBody, generation: int, phase: str, memory: Memory, ending: Ending | None = None
) -> LeaseReport:
    """How the lease stands, with the way in while there is one, or with the reason for its end."""
    report = LeaseReport.model_validate(
        {
            "lease": body.id,
            "role": "lender",
            "generation": generation,
            "phase": phase,
            "fence": max(device.fence for device in body.devices),
        }
    )
    if ending is not None:
        return report.model_copy(update={"reason": ending.reason, "devices": ending.devices})
    return report.model_copy(update={"sealed_credential": memory.sealed, "credential_serial": memory.serial})


def told(memory: Memory, *phases: str) -> bool:
    """The last report was one of these."""
    return memory.said is not None and memory.said.phase in phases


def say(memory: Memory, report: LeaseReport) -> tuple[Action, ...]:
    """Say it, unless it was the last word already."""
    return () if memory.said == report else (Say(report),)
