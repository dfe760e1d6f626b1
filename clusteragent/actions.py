"""What a plan may ask for. Plans are data: they can be compared, counted, printed and carried out by something else.

Every action is a wish that can be made twice: carried out again after a crash it finds its work done. Actions of one
plan don't depend on each other and are carried out side by side; a plan is made anew as soon as one of them is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.wire.agents import LeaseReport
from clusteragent.kube.interface import (
    DEVICE_LEASES,
    NAMESPACES,
    PODS,
    RESOURCE_CLAIMS,
    SERVICE_ACCOUNTS,
    Kind,
    Obj,
)


@dataclass(frozen=True, slots=True)
class Create:
    """An object; when one of its name is there already, that one is it."""

    kind: Kind
    obj: Obj


@dataclass(frozen=True, slots=True)
class Delete:
    """An object, this very one where its uid is known."""

    kind: Kind
    name: str
    namespace: str | None = None
    uid: str | None = None
    grace_s: int | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge patch (RFC 7386) of an object or its status."""

    kind: Kind
    name: str
    namespace: str | None
    patch: Mapping[str, Any]
    status: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Reserve a claim for a lease's DeviceLease, so that its allocation outlives the pod (KEP-4381, ≥ 1.36)."""

    namespace: str
    claim: str
    lease: str
    lease_uid: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """Delete a claim, then take our reservation off it: nothing can use it in between."""

    namespace: str
    claim: str
    uid: str


@dataclass(frozen=True, slots=True)
class Allocate:
    """Write the allocation of a claim on our own proxy devices; never of real ones (kube.md §4.7)."""

    namespace: str
    claim: str
    status: Obj


@dataclass(frozen=True, slots=True)
class PutSecret:
    """The borrower's kubeconfig: opened and written, never kept."""

    obj: Obj
    sealed: str
    serial: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Remember the fences of a lease, durably."""

    fences: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Issue:
    """Make a credential for the borrower, sealed to its agent's key."""

    namespace: str
    seal_to: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Say:
    """Report to the broker how the lease stands."""

    report: LeaseReport


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Tell the broker that the borrower returns the lease."""

    lease: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Let devices cool down before they are offered again."""

    devices: tuple[str, ...]


Action = Create | Delete | Merge | Keep | LetGo | Allocate | PutSecret | Fence | Issue | Say | GiveBack | Rest


def key_of(action: Action) -> tuple[str, ...]:
    """What an action is about: two with the same key are the same wish."""
    match action:
        case Create():
            return "create", action.kind.plural, action.obj["metadata"]["name"]
        case Delete():
            return "delete", action.kind.plural, action.name
        case Merge():
            return "merge", action.kind.plural, action.name, "status" if action.status else "spec"
        case Keep() | LetGo() | Allocate():
            return type(action).__name__, action.claim
        case _:
            return (type(action).__name__,)


def priority_of(action: Action) -> int:
    """Who goes first at the API server: what finishes a lease, then what the scheduler waits for, then the rest."""
    match action:
        case Keep() | LetGo() | Allocate() | PutSecret():
            return 0
        case Merge():
            return 6 if action.status else 1
        case Create():
            return _CREATING.get(action.kind, 4)
        case Delete():
            return 5
        case _:
            return 3


_CREATING = {PODS: 1, SERVICE_ACCOUNTS: 2, RESOURCE_CLAIMS: 2, DEVICE_LEASES: 2, NAMESPACES: 3}
"""Deepest first: a lease that is begun gets its pod before another is begun."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again though nothing changes (aware; None: never)."""

    actions: tuple[Action, ...] = ()
    done: bool = False
    """Nothing of the lease is left here, and everybody has been told."""
