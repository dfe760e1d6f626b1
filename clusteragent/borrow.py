"""The borrower's side of one lease: from what is wanted and what is there to what to do next; pure.

A signed lease is mirrored: DeviceLease, remote claims, the way in. At its end (the broker's word, or ``exp − e`` on
this side's own clock) the way in goes first. A person who deletes the DeviceLease returns the lease: claims without it
are the evidence, so they stay until the broker has been told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.wire.agents import LeaseReport
from broker.wire.leases import LeaseBody
from clusteragent import expiry, mirroring, record
from clusteragent.actions import Action, Allocate, Create, Delete, GiveBack, LetGo, Merge, Plan, PutSecret, Say
from clusteragent.cache import uid_of
from clusteragent.expiry import Now
from clusteragent.kube.interface import DEVICE_LEASES, RESOURCE_CLAIMS, SECRETS, Obj
from clusteragent.lend import lent_status
from clusteragent.lender import Wish


@dataclass(frozen=True)
class View:
    """Everything of one lease that can be seen in the cluster."""

    lease: str
    wish: Wish | None
    heard: bool
    """The broker's full list has been heard since the start."""
    namespace: str
    record: record.Record | None
    claims: Mapping[str, Obj]
    unreadable: bool = False

    @property
    def body(self) -> LeaseBody | None:
        if self.wish is not None:
            return self.wish.desired.lease
        return self.record.body if self.record else None


@dataclass
class Memory:
    """What this process has done and need not do again."""

    deleted: set[str] = field(default_factory=set)
    serial: int | None = None
    """Of the credential that is in the Secret."""
    recorded: bool = False
    """The DeviceLease has been here."""
    given_back: bool = False
    said: LeaseReport | None = None
    reason: str = ""
    """Why it ends; once an end has begun it goes on."""
    refused: str = ""
    """Why it can't be mirrored here at all."""


def plan(view: View, memory: Memory, now: Now, *, skew: float, borrows: bool = True) -> Plan:
    """What to do next for this lease."""
    if view.unreadable:
        return Plan()
    if not borrows and view.record is None and not view.claims:
        memory.refused = "this cluster does not borrow"
    memory.recorded |= view.record is not None
    if memory.reason in ("", RETURNED):  # an end that came meanwhile needs no telling the broker
        memory.reason = _ending(view, memory, now, skew=skew) or memory.reason
    if memory.reason:
        return _end(view, memory)
    if view.wish is None or view.wish.claims is None or view.wish.desired.token is None:
        return Plan()
    return Plan(_mirror(view, memory, view.wish, now))


def seconds_left(view: View, now: Now, *, skew: float) -> float | None:
    """When this side stops by itself."""
    claims = view.record.claims if view.record else None
    return None if claims is None else max(0.0, expiry.borrower_seconds(claims, now, skew=skew))


def standing(view: View) -> LeaseReport | None:
    """How the lease stands as far as the cluster alone can tell."""
    if view.body is None or view.record is None or not view.claims:
        return None
    return _report(view.body, view.wish.desired.generation if view.wish else 0, "mirrored")


def _ending(view: View, memory: Memory, now: Now, *, skew: float) -> str:
    if view.wish is not None and view.wish.desired.want == "gone":
        return str(view.wish.desired.ending or "ended")
    claims = view.record.claims if view.record else None
    if view.wish is not None and view.wish.claims is not None:
        claims = view.wish.claims
    if claims is not None and expiry.borrower_seconds(claims, now, skew=skew) <= 0:
        return "expired"
    if memory.refused:
        return memory.refused
    if view.record is None and (view.claims or memory.recorded):
        return RETURNED
    if view.record is not None and view.record.deleting:
        return RETURNED
    if view.wish is None and view.heard and view.record is not None and claims is None:
        return "the broker knows no such lease"
    return ""


RETURNED = "returned: its DeviceLease was deleted"


def _mirror(view: View, memory: Memory, wish: Wish, now: Now) -> tuple[Action, ...]:
    claims, desired, token = wish.claims, wish.desired, wish.desired.token
    if claims is None or token is None:
        return ()
    body = desired.lease
    if view.record is None:
        made = record.make(body, role="borrower", namespace=view.namespace, token=token, hold_until=None)
        return (Create(DEVICE_LEASES, made),)
    actions: list[Action] = []
    if view.record.token != token:
        actions.append(Merge(DEVICE_LEASES, body.id, view.namespace, {"spec": {"token": token}}))
    if view.record.token != token or view.record.phase != "Lent":
        status = lent_status(claims)
        actions.append(Merge(DEVICE_LEASES, body.id, view.namespace, {"status": status}, status=True))
    for part in mirroring.parts(body):
        found = view.claims.get(part.name)
        if found is None:
            actions.append(Create(RESOURCE_CLAIMS, mirroring.claim(body, part, namespace=view.namespace)))
            continue
        status = mirroring.claim_status(claims, part, token=token, lease_uid=view.record.uid, now=now.wall)
        shown = found.get("status", {})
        if not shown.get("allocation") or mirroring.shown_end(shown) != mirroring.shown_end(status):
            actions.append(Allocate(view.namespace, part.name, status))
    if desired.sealed_credential is not None and memory.serial != desired.credential_serial:
        made = mirroring.secret(body, namespace=view.namespace, lease_uid=view.record.uid)
        actions.append(PutSecret(made, desired.sealed_credential, desired.credential_serial))
    if actions or memory.serial is None:  # mirrored means that the borrower can get in
        return tuple(actions)
    return _say(memory, _report(body, desired.generation, "mirrored"))


def _end(view: View, memory: Memory) -> Plan:
    """The way in, then the evidence, then the record."""
    actions: list[Action] = []
    if "secret" not in memory.deleted:
        actions.append(Delete(SECRETS, mirroring.secret_name(view.lease), view.namespace))
    if memory.reason == RETURNED and not memory.given_back:
        actions.append(GiveBack(view.lease))
    if actions:
        return Plan(tuple(actions))
    going = [
        LetGo(view.namespace, name, uid_of(claim))
        for name, claim in view.claims.items()
        if uid_of(claim) not in memory.deleted
    ]
    if view.claims:
        return Plan(tuple(going))
    if view.record is not None:
        gone = view.record.uid in memory.deleted
        return Plan(() if gone else (Delete(DEVICE_LEASES, view.lease, view.namespace, view.record.uid),))
    told: tuple[Action, ...] = ()
    if view.body is not None:
        generation = view.wish.desired.generation if view.wish else 0
        phase = "refused" if memory.refused else "gone"
        told = _say(memory, _report(view.body, generation, phase, memory.reason))
    elif memory.said is None:
        told = (Say(LeaseReport(lease=view.lease, role="borrower", generation=0, phase="gone", reason=memory.reason)),)
    wished = view.wish is not None and view.wish.desired.want != "gone"
    return Plan(told, done=not told and not wished)


def _report(body: LeaseBody, generation: int, phase: str, reason: str = "") -> LeaseReport:
    fence = max(device.fence for device in body.devices)
    made = {"lease": body.id, "role": "borrower", "generation": generation, "phase": phase, "fence": fence}
    return LeaseReport.model_validate({**made, "reason": reason[:1_000]})


def _say(memory: Memory, report: LeaseReport) -> tuple[Action, ...]:
    return () if memory.said == report else (Say(report),)
