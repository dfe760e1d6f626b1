"""When a pod leaves home: which waiting pods a BurstPolicy covers, what they would need, and why not; pure.

A pod leaves when it has been unschedulable for want of devices longer than its policy's ``after``: a CapacityRequest
object is made for it, in its namespace, and the rest of the way is that of any request. It comes home (the object is
deleted, the lease returned) when the pod is gone or runs here after all. Whatever is decided is said in the policy's
status, above all why not.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broker.kit.durations import format_duration
from broker.wire.burst import BurstPolicySpec, Covers
from clusteragent.cache import deleting, uid_of
from clusteragent.kube.interface import CAPACITY_REQUESTS, Obj
from clusteragent.record import MANAGED_BY

POD_LABEL = "lendmesh.dev/burst-pod"
POLICY_LABEL = "lendmesh.dev/burst-policy"
RETRY_S = 60.0
"""A refused request is tried again so long after, while its pod still waits."""


@dataclass(frozen=True)
class Demand:
    """The devices a pod waits for; ``why_not`` when they can't be asked for elsewhere."""

    count: int = 0
    selector: str = ""
    why_not: str = ""


@dataclass
class Decision:
    """What to do now, what to say, and when to look again (seconds; None: when something changes)."""

    make: list[Obj] = field(default_factory=list)
    end: list[Obj] = field(default_factory=list)
    said: dict[str, dict[str, str]] = field(default_factory=dict)
    """Policy → ``namespace/pod`` → sentence."""
    again_s: float | None = None

    def say(self, policy: str, pod: Obj, sentence: str) -> None:
        metadata = pod["metadata"]
        self.said.setdefault(policy, {})[f"{metadata['namespace']}/{metadata['name']}"] = sentence

    def look_in(self, seconds: float) -> None:
        self.again_s = seconds if self.again_s is None else min(self.again_s, seconds)


Find = Callable[[str, str], Obj | None]
"""Namespace and name to the claim."""


def decide(
    *,
    policies: Mapping[str, BurstPolicySpec],
    pods: Iterable[Obj],
    namespaces: Callable[[str], Obj | None],
    claims: Find,
    classes: Callable[[str], Obj | None],
    requests: Iterable[Obj],
    now: datetime,
) -> Decision:
    """Look at every pod and every request that was made for one."""
    decision = Decision()
    known = {pod_uid: obj for obj in requests if (pod_uid := _label(obj, POD_LABEL)) is not None}
    waiting: set[str] = set()
    for pod in pods:
        if (since := waits_since(pod)) is None:
            continue
        waiting.add(uid_of(pod))
        found = next((name for name in sorted(policies) if covers(policies[name].covers, pod, namespaces)), None)
        if found is None:
            continue
        asked = known.get(uid_of(pod))
        if asked is not None:
            _follow(decision, found, pod, asked, now)
        else:
            demand = demand_of(pod, claims, classes)
            _leave(decision, found, policies[found], pod, demand, (now - since).total_seconds())
    for pod_uid, obj in known.items():
        policy = policies.get(_label(obj, POLICY_LABEL) or "")
        ended = (obj.get("status") or {}).get("state") in ("Refused", "Cancelled", "Closed")
        home = policy is None or policy.return_home or ended
        if pod_uid not in waiting and home and not deleting(obj):
            decision.end.append(obj)
    return decision


def waits_since(pod: Obj) -> datetime | None:
    """Since when the scheduler has found no place for a pod that is to run; None for every other pod."""
    if deleting(pod) or pod.get("spec", {}).get("nodeName") or pod.get("status", {}).get("phase") != "Pending":
        return None
    for condition in pod.get("status", {}).get("conditions") or []:
        told = (condition.get("type"), condition.get("status"), condition.get("reason"))
        if told == ("PodScheduled", "False", "Unschedulable"):
            when = condition.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
            return datetime.fromisoformat(when) if when else None
    return None


def covers(rule: Covers, pod: Obj, namespaces: Callable[[str], Obj | None]) -> bool:
    """Whether a policy speaks of this pod."""
    metadata = pod["metadata"]
    if rule.namespaces and metadata["namespace"] not in rule.namespaces:
        return False
    if not rule.pod_labels.items() <= (metadata.get("labels") or {}).items():
        return False
    if not rule.namespace_labels:
        return True
    namespace = namespaces(metadata["namespace"])
    return (
        namespace is not None and rule.namespace_labels.items() <= (namespace["metadata"].get("labels") or {}).items()
    )


def demand_of(pod: Obj, claims: Find, classes: Callable[[str], Obj | None]) -> Demand:
    """What the pod's claims ask for that they have not got."""
    names = {each["name"]: each.get("resourceClaimName") for each in pod["status"].get("resourceClaimStatuses") or []}
    count, selectors = 0, set()
    for entry in pod.get("spec", {}).get("resourceClaims") or []:
        name = entry.get("resourceClaimName") or names.get(entry["name"])
        claim = claims(pod["metadata"]["namespace"], name) if name else None
        if claim is None:
            return Demand(why_not=f"its claim {entry['name']} doesn't exist yet")
        if claim.get("status", {}).get("allocation"):
            continue
        for request in claim["spec"]["devices"].get("requests") or []:
            exactly = request.get("exactly") or (request.get("firstAvailable") or [None])[0]
            if not isinstance(exactly, dict) or exactly.get("allocationMode", "ExactCount") != "ExactCount":
                return Demand(why_not=f"request {request.get('name')} doesn't say how many devices")
            if exactly.get("adminAccess"):
                return Demand(why_not="it wants administrative access to devices of this cluster")
            selector = _selector(exactly, classes)
            if selector is None:
                return Demand(why_not=f"there is no DeviceClass {exactly.get('deviceClassName')}")
            count += int(exactly.get("count", 1))
            selectors.add(selector)
    if not count:
        return Demand(why_not="it waits for something else than devices")
    if len(selectors) > 1:
        return Demand(why_not="it wants devices of more than one kind, which one request can't ask for yet")
    return Demand(count, selectors.pop())


def request_object(policy: str, spec: BurstPolicySpec, pod: Obj, demand: Demand) -> Obj:
    """The CapacityRequest for a pod; its name follows from the pod's uid, so it can't be made twice."""
    metadata = pod["metadata"]
    devices: dict[str, Any] = {"count": demand.count, "sameNode": True}
    if demand.selector:
        devices["selector"] = demand.selector
    return {
        "apiVersion": CAPACITY_REQUESTS.api_version,
        "kind": CAPACITY_REQUESTS.kind,
        "metadata": {
            "name": f"burst-{uid_of(pod)}",
            "namespace": metadata["namespace"],
            "labels": {POD_LABEL: uid_of(pod), POLICY_LABEL: policy, **MANAGED_BY},
        },
        "spec": {
            "devices": devices,
            "duration": format_duration(spec.max_duration),
            "confidential": spec.confidential,
            "policy": policy,
            "workload": {"kind": "Pod", "name": metadata["name"]},
        },
    }


def _leave(decision: Decision, name: str, spec: BurstPolicySpec, pod: Obj, demand: Demand, waited: float) -> None:
    if spec.suspended:
        decision.say(name, pod, "stays: the policy is suspended")
    elif demand.why_not:
        decision.say(name, pod, f"stays: {demand.why_not}")
    elif waited < spec.after:
        decision.say(name, pod, f"waits: leaves after {format_duration(spec.after)} without devices at home")
        decision.look_in(spec.after - waited)
    else:
        decision.make.append(request_object(name, spec, pod, demand))
        decision.say(name, pod, f"leaves: asks for {demand.count} devices elsewhere")


def _follow(decision: Decision, name: str, pod: Obj, asked: Obj, now: datetime) -> None:
    """A request was made for this pod before: say how it is, and try again when it was refused long enough ago."""
    status = asked.get("status") or {}
    state, why = (
        status.get("state"),
        status.get("message") or "; ".join(str(each.get("detail")) for each in (status.get("reasons") or [])[:2]),
    )
    if state in ("Refused", "Cancelled", "Closed"):
        made = datetime.fromisoformat(asked["metadata"]["creationTimestamp"])
        left = RETRY_S - (now - made).total_seconds()
        decision.say(name, pod, f"stays: {state.lower()}: {why}" if why else f"stays: {state.lower()}")
        if left <= 0 and not deleting(asked):
            decision.end.append(asked)
        else:
            decision.look_in(max(left, 0.0))
    elif status.get("lease"):
        decision.say(name, pod, f"away: lease {status['lease']} ({status.get('step')})")
    else:
        decision.say(name, pod, f"asked: {status.get('step', 'queued')}")


def _selector(exactly: Mapping[str, Any], classes: Callable[[str], Obj | None]) -> str | None:
    """The class's and the request's own selectors as one; None when the class doesn't exist."""
    device_class = classes(str(exactly.get("deviceClassName")))
    if device_class is None:
        return None
    told = [*(device_class.get("spec", {}).get("selectors") or []), *(exactly.get("selectors") or [])]
    expressions = [each["cel"]["expression"].strip() for each in told if each.get("cel")]
    return expressions[0] if len(expressions) == 1 else " && ".join(f"({each})" for each in expressions)


def _label(obj: Obj, name: str) -> str | None:
    found = (obj["metadata"].get("labels") or {}).get(name)
    return str(found) if found else None
