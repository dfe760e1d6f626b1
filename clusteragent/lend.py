"""The lender's side of one lease: from what is wanted and what is there to what to do next; pure.

Hold, lend, give back. The plan looks at the cluster each time as if for the first time, so an agent that died anywhere
goes on where it was; ``Memory`` is only what would be asked for twice otherwise. A hold is the scheduler's doing: a
device that local work took first is a *conflict*, and everything is undone before it is reported. An end is one path
whatever its cause: no more rights, pods gone gracefully, claims gone, then ``released``, then the namespace.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from broker.wire.agents import LeaseReport
from broker.wire.leases import DesiredLease, LeaseBody, LeaseClaims
from clusteragent import expiry, holding, record
from clusteragent.actions import Action, Create, Delete, Fence, Issue, Keep, Merge, Plan
from clusteragent.cache import deleting, uid_of
from clusteragent.expiry import Now
from clusteragent.giveback import clear_away, give_back
from clusteragent.kube.interface import (
    DEVICE_LEASES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    Obj,
)
from clusteragent.lender import Ending, Memory, Terms, View, Wish, report_of, say

PATIENCE_S = 10.0
"""A device that is not to be had for a reason that may pass is waited for so long before it is given up."""


def plan(view: View, memory: Memory, now: Now, terms: Terms) -> Plan:
    """What to do next for this lease. ``memory.ending`` is set when an end begins."""
    body = view.body
    if view.unreadable:
        return Plan()
    if body is None:
        return clear_away(view, memory, terms)
    memory.owes_rest |= bool(view.claims)
    if memory.ending is None:
        memory.ending = _ending(view, memory, now, terms, body)
    if memory.ending is not None:
        return give_back(view, memory, memory.ending, body, terms)
    if view.wish is None:
        return Plan()  # no word from the broker yet: honour what is known, begin nothing
    if view.wish.desired.want == "held":
        return Plan(_hold(view, memory, view.wish.desired, body, terms))
    return Plan(_lend(view, memory, view.wish, body, now, terms))


def seconds_left(view: View, memory: Memory, now: Now, terms: Terms) -> float | None:
    """When to look again though nothing changes: at the end, at the end of patience, or for a new credential."""
    moments: list[float] = []
    claims = view.record.claims if view.record else None
    if claims is not None and memory.receipt is not None:
        moments.append(expiry.lender_seconds(claims, memory.receipt, now, skew=terms.skew))
    elif (until := _hold_until(view)) is not None:
        moments.append((until - now.wall).total_seconds())
    if view.missing and memory.since is not None and now.monotonic < memory.since + PATIENCE_S:
        moments.append(memory.since + PATIENCE_S - now.monotonic)
    if memory.renew_at is not None:
        moments.append(memory.renew_at - now.monotonic)
    return max(0.0, min(moments)) if moments and memory.ending is None else None


def stands(view: View, terms: Terms) -> bool:
    """The cluster holds every device of the lease for it."""
    body = view.body
    return body is not None and all(_has(view, body, chunk, terms) for chunk in holding.chunks(body))


def standing(view: View, terms: Terms) -> LeaseReport | None:
    """How the lease stands as far as the cluster alone can tell; None while it is only being made."""
    body = view.body
    if body is None or view.record is None:
        return None
    generation = view.wish.desired.generation if view.wish else 0
    if not stands(view, terms):
        return report_of(body, generation, "draining", Memory()) if view.record.phase == "Draining" else None
    return report_of(body, generation, "lent" if view.record.token else "held", Memory())


# --- why it ends -----------------------------------------------------------------------------------------------------
def _ending(view: View, memory: Memory, now: Now, terms: Terms, body: LeaseBody) -> Ending | None:
    desired = view.wish.desired if view.wish else None
    claims = view.record.claims if view.record else None
    if desired is not None and desired.want == "gone":
        return Ending("released", str(desired.ending or "ended"))
    if view.stale:
        return Ending("released" if view.claims else "refused", f"{view.stale} was granted again since: an older fence")
    if claims and memory.receipt and expiry.lender_seconds(claims, memory.receipt, now, skew=terms.skew) <= 0:
        return Ending("released", "expired")
    if view.namespace is not None and deleting(view.namespace):
        return Ending("released", "the lease's namespace was deleted in the lender's cluster")
    if desired is None:
        unknown = view.heard and claims is None
        return Ending("released", "the broker knows no such hold") if unknown else _too_late(view, now, claims, terms)
    if desired.want == "lent":
        if view.record is None or not stands(view, terms):
            return Ending("released", "the hold was lost in the lender's cluster")
        return None
    if not view.anything and (view.forbidden or not terms.lends):
        return Ending("refused", view.forbidden or "this cluster does not lend")
    memory.since = now.monotonic if memory.since is None else memory.since
    lost = {**view.unfree, **(view.missing if now.monotonic - memory.since >= PATIENCE_S else {})}
    return _too_late(view, now, claims, terms) or _conflict(view, body, lost)


def _too_late(view: View, now: Now, claims: LeaseClaims | None, terms: Terms) -> Ending | None:
    until = _hold_until(view)
    if claims is not None or until is None or now.wall < until:
        return None
    if stands(view, terms):
        return Ending("released", "the lease was never signed")
    told = [sentence for each in view.pods.values() if (sentence := holding.unschedulable(each))]
    return Ending("refused", f"the scheduler didn't give the devices in time: {told[0]}" if told else "held too late")


def _conflict(view: View, body: LeaseBody, unfree: Mapping[str, str]) -> Ending | None:
    """Local work was first. Before anything is made the inventory is enough; later the scheduler must say no too."""
    for chunk in holding.chunks(body):
        claim, pod = view.claims.get(chunk.claim), view.pods.get(chunk.pod)
        got = holding.allocated_to(claim) if claim is not None else None
        if got is not None and got != {holding.ref(device) for device in chunk.devices}:
            return Ending(
                "refused", f"the scheduler gave other devices than the leased: {', '.join(sorted(got))}"[:500]
            )
        waiting = claim is None or (pod is not None and holding.unschedulable(pod) is not None)
        if got is None and waiting:
            lost = [name for device in chunk.devices if (name := holding.ref(device)) in unfree]
            if lost:
                why = "; ".join(f"{name}: {unfree[name]}" for name in lost)
                return Ending("conflict", why[:1_000], tuple(lost))
    return None


def _hold_until(view: View) -> datetime | None:
    if view.wish is not None and view.wish.desired.hold_until is not None:
        return view.wish.desired.hold_until
    return view.record.hold_until if view.record and view.record.token is None else None


# --- hold ------------------------------------------------------------------------------------------------------------
def _hold(view: View, memory: Memory, desired: DesiredLease, body: LeaseBody, terms: Terms) -> tuple[Action, ...]:
    actions: list[Action] = []
    if not memory.fenced:
        actions.append(Fence({holding.ref(device): device.fence for device in body.devices}))
    if view.namespace is None:
        return (*actions, Create(NAMESPACES, holding.namespace(body.id)))
    actions += _furnish(view, memory, desired, body, terms)
    for chunk in holding.chunks(body):
        actions += _claim(view, memory, body, chunk, terms)
    actions += _credential(memory, desired, body)
    if memory.fenced and stands(view, terms):
        actions += say(memory, report_of(body, desired.generation, "held", memory))
    return tuple(actions)


def _furnish(view: View, memory: Memory, desired: DesiredLease, body: LeaseBody, terms: Terms) -> Sequence[Action]:
    """What the namespace needs before a borrower may come in: no credential is made without it.

    The quota is last: it counts claims of ours as well.
    """
    namespace = holding.namespace_of(body.id)
    actions: list[Action] = []
    if view.record is None:
        made = record.make(body, role="lender", namespace=namespace, token=None, hold_until=desired.hold_until)
        actions.append(Create(DEVICE_LEASES, made))
    for kind, obj in (
        (SERVICE_ACCOUNTS, holding.account(body)),
        (ROLE_BINDINGS, holding.binding(body, role=terms.role)),
        (NETWORK_POLICIES, holding.isolation(body)),
        (RESOURCE_QUOTAS, holding.quota(body)),
    ):
        counted = kind != RESOURCE_QUOTAS or all(chunk.claim in view.claims for chunk in holding.chunks(body))
        if (kind.plural, obj["metadata"]["name"]) not in memory.created and counted:
            actions.append(Create(kind, obj))
    return actions


def _claim(view: View, memory: Memory, body: LeaseBody, chunk: holding.Chunk, terms: Terms) -> Sequence[Action]:
    """One claim, from nothing to kept; each look does the next thing."""
    namespace = holding.namespace_of(body.id)
    claim, pod = view.claims.get(chunk.claim), view.pods.get(chunk.pod)
    if claim is None:
        if not all(holding.ref(device) in view.pins for device in chunk.devices):
            return ()
        return (Create(RESOURCE_CLAIMS, holding.claim(body, chunk, pins=view.pins)),)
    if _has(view, body, chunk, terms):
        if pod is None or terms.keep_pod or deleting(pod) or uid_of(pod) in memory.deleted:
            return ()
        return (Delete(PODS, chunk.pod, namespace, uid_of(pod)),)
    if pod is None:
        if (SERVICE_ACCOUNTS.plural, holding.ACCOUNT) not in memory.created:
            return ()
        node = view.nodes.get(chunk.node or "")
        return (Create(PODS, holding.pod(body, chunk, image=terms.image, node=node)),)
    if pod.get("status", {}).get("phase") in ("Failed", "Succeeded") and uid_of(pod) not in memory.deleted:
        return (Delete(PODS, chunk.pod, namespace, uid_of(pod)),)  # evicted: the next look makes another
    if holding.allocated_to(claim) is not None and not terms.keep_pod and view.record is not None:
        return (Keep(namespace, chunk.claim, body.id, view.record.uid),)
    return ()


def _has(view: View, body: LeaseBody, chunk: holding.Chunk, terms: Terms) -> bool:
    """The claim has exactly its devices, and something that keeps them."""
    claim = view.claims.get(chunk.claim)
    if claim is None or holding.allocated_to(claim) != {holding.ref(device) for device in chunk.devices}:
        return False
    return holding.kept(claim, body.id) or (terms.keep_pod and chunk.pod in view.pods)


# --- lend ------------------------------------------------------------------------------------------------------------
def _lend(view: View, memory: Memory, wish: Wish, body: LeaseBody, now: Now, terms: Terms) -> tuple[Action, ...]:
    desired, kept = wish.desired, view.record
    if kept is None or wish.claims is None:
        return ()  # a token that doesn't verify activates nothing; the hold ends by itself
    known = kept.claims
    if known is not None and known.generation > wish.claims.generation:
        return ()  # an older word than the one that is kept
    actions: list[Action] = [*_furnish(view, memory, desired, body, terms)]
    namespace = holding.namespace_of(body.id)
    if kept.token != desired.token:
        patch = {"spec": {"token": desired.token, "holdUntil": None}}
        actions.append(Merge(DEVICE_LEASES, body.id, namespace, patch))
    if kept.token != desired.token or kept.phase != "Lent":
        actions.append(Merge(DEVICE_LEASES, body.id, namespace, {"status": lent_status(wish.claims)}, status=True))
    for chunk in holding.chunks(body):
        actions += _claim(view, memory, body, chunk, terms)
    if memory.renew_at is not None and now.monotonic >= memory.renew_at:
        memory.sealed = None
    actions += _credential(memory, desired, body)
    if kept.token != desired.token:
        return tuple(actions)
    return (*actions, *say(memory, report_of(body, desired.generation, "lent", memory)))


def lent_status(claims: LeaseClaims) -> Obj:
    """The status of a DeviceLease that is in force."""
    ends = datetime.fromtimestamp(claims.exp, tz=UTC)
    began = datetime.fromtimestamp(claims.iat, tz=UTC)
    return {
        "phase": "Lent",
        "generation": claims.generation,
        "expiresAt": record.stamp(ends),
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Signed",
                "message": "the lease is signed and in force",
                "lastTransitionTime": record.stamp(began),
            }
        ],
    }


FURNITURE = {
    (SERVICE_ACCOUNTS.plural, holding.ACCOUNT),
    (ROLE_BINDINGS.plural, holding.ACCOUNT),
    (NETWORK_POLICIES.plural, holding.ISOLATION),
    (RESOURCE_QUOTAS.plural, holding.QUOTA),
}


def _credential(memory: Memory, desired: DesiredLease, body: LeaseBody) -> Sequence[Action]:
    """The borrower's way in, as soon as it is fenced in."""
    if memory.sealed is None and desired.peer_sealing_key and memory.created >= FURNITURE:
        return (Issue(holding.namespace_of(body.id), dict(desired.peer_sealing_key)),)
    return ()
