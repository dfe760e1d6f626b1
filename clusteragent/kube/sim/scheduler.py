"""What kube-scheduler does: it alone allocates devices, one pod at a time.

A pod that names unallocated claims gets them all on one node, by the allocator's rules, or none; then the claims carry
the allocation, the pod's reservation and the finalizer, and the pod is bound. Where nothing fits the pod says so in the
words of kube-scheduler, and is tried again when something changes that could help. Pods are tried by priority, then by
age; of the nodes that fit, the one with the fewest pods is taken.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from broker.dra import nodes as node_rules
from broker.dra.model import Node, NodeRule, NodeTerm, Requirement, Taint, Toleration
from broker.dra.taints import untolerated
from clusteragent.kube.interface import (
    DEVICE_CLASSES,
    DEVICE_TAINT_RULES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Obj,
)
from clusteragent.kube.sim.api import Api
from clusteragent.kube.sim.controllers import CLAIM_FINALIZER, claim_names, consumer, reserved_for
from clusteragent.kube.sim.devices import Devices
from clusteragent.kube.sim.store import Change, Id, copied, id_of
from clusteragent.kube.sim.work import Work

NAME = "default-scheduler"
NO_DEVICES = "cannot allocate all claims"
NO_MATCH = "node(s) didn't match Pod's node affinity/selector"
NOT_SCHEDULABLE = "node(s) were unschedulable"
TAINTED = "node(s) had untolerated taint(s)"
ALLOCATED_ELSEWHERE = "resourceclaim not available on the node"

_HELPFUL = (RESOURCE_CLAIMS, RESOURCE_SLICES, DEVICE_CLASSES, DEVICE_TAINT_RULES, NODES)


class Scheduler:
    """The scheduler of a cluster."""

    def __init__(self, api: Api, work: Work) -> None:
        self._api, self._store, self._work = api, api.store, work
        self._devices = Devices()
        self._nodes: dict[str, tuple[Node, list[Taint]]] = {}
        self._pods_on: defaultdict[str, int] = defaultdict(int)
        self._active: dict[Id, None] = {}
        self._unschedulable: dict[Id, None] = {}

    def on_change(self, change: Change) -> None:
        self._devices.on_change(change)
        kind, obj = change.kind, change.obj
        if kind == NODES:
            self._nodes.pop(obj["metadata"]["name"], None)
            if change.type != "DELETED":
                metadata = obj["metadata"]
                self._nodes[metadata["name"]] = (Node(metadata["name"], metadata.get("labels") or {}), _taints(obj))
        elif kind == PODS:
            self._on_pod(change)
        if kind in _HELPFUL or (kind == PODS and change.type == "DELETED"):
            self._active |= self._unschedulable
            self._unschedulable.clear()
        if self._active:
            self._work.add(self._schedule_next, None)

    def _on_pod(self, change: Change) -> None:
        place = id_of(change.obj)
        was_on = (change.old or {"spec": {}})["spec"].get("nodeName")
        is_on = change.obj["spec"].get("nodeName") if change.type != "DELETED" else None
        if was_on != is_on:
            for node, step in ((was_on, -1), (is_on, 1)):
                if node:
                    self._pods_on[node] += step
        if change.type == "DELETED" or not _wants_a_node(change.obj):
            self._active.pop(place, None)
            self._unschedulable.pop(place, None)
        elif place not in self._unschedulable or _asks(change.obj) != _asks(change.old):
            self._unschedulable.pop(place, None)
            self._active[place] = None

    def _schedule_next(self, _: None) -> None:
        """One pod a turn, as one scheduler does: what it takes, the next one sees."""
        if not self._active:
            return
        place = min(self._active, key=self._rank)
        del self._active[place]
        pod = self._store.get(PODS, *place)
        if pod is not None and _wants_a_node(pod):
            self._unschedulable[place] = None
            self._schedule(pod)
        if self._active:
            self._work.add(self._schedule_next, None)

    def _rank(self, place: Id) -> int:
        pod = self._store.get(PODS, *place)
        return -int((pod or {"spec": {}})["spec"].get("priority") or 0)  # min() keeps the first, the oldest, of equals

    def _schedule(self, pod: Obj) -> None:
        namespace = pod["metadata"]["namespace"]
        claims: list[Obj] = []
        for name in claim_names(pod):
            claim = self._store.get(RESOURCE_CLAIMS, namespace, name) if name else None
            if claim is None or claim["metadata"].get("deletionTimestamp"):
                return  # kept out of the queue, without a word, until the claim is there
            claims.append(claim)
        refused: defaultdict[str, int] = defaultdict(int)
        elsewhere: dict[str, Obj] = {}
        for name in sorted(self._nodes, key=lambda name: (self._pods_on[name], name)):
            node, taints = self._nodes[name]
            reason = self._try(pod, claims, node, taints, elsewhere)
            if reason is None:
                return
            refused[reason] += 1
        if not self._set_free(elsewhere.values(), pod):
            self._say_why(pod, refused)

    def _try(
        self, pod: Obj, claims: list[Obj], node: Node, taints: list[Taint], elsewhere: dict[str, Obj]
    ) -> str | None:
        """Put the pod on the node, or say what is against it; note the claims that are allocated ``elsewhere``."""
        reason = _against(pod, node, taints)
        if reason is not None:
            return reason
        allocated = [claim for claim in claims if (claim.get("status") or {}).get("allocation")]
        for claim in allocated:
            if not _reaches(claim, node):
                elsewhere[claim["metadata"]["name"]] = claim
                return ALLOCATED_ELSEWHERE
        new = [claim for claim in claims if not (claim.get("status") or {}).get("allocation")]
        answers = self._devices.allocate(new, node)
        if answers is None:
            return NO_DEVICES
        for claim, allocation in zip(new, answers, strict=True):
            self._allocate(claim, allocation, pod)
        for claim in allocated:
            if not reserved_for(claim, pod):
                status = claim["status"]
                consumers = [*(status.get("reservedFor") or ()), consumer(pod)]
                self._api.replace(
                    RESOURCE_CLAIMS, {**claim, "status": {**status, "reservedFor": consumers}}, status=True
                )
        bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self._api.stamp()}
        self._api.bind(pod, node.name, {**pod["status"], "conditions": [bound]})
        return None

    def _allocate(self, claim: Obj, allocation: dict[str, Any], pod: Obj) -> None:
        guarded = copied(claim)
        finalizers = guarded["metadata"].setdefault("finalizers", [])
        if CLAIM_FINALIZER not in finalizers:
            finalizers.append(CLAIM_FINALIZER)
        guarded = self._api.replace(RESOURCE_CLAIMS, guarded)
        status = {
            "allocation": {**allocation, "allocationTimestamp": self._api.stamp()},
            "reservedFor": [consumer(pod)],
        }
        self._api.replace(RESOURCE_CLAIMS, {**guarded, "status": status}, status=True)

    def _set_free(self, claims: Iterable[Obj], pod: Obj) -> bool:
        """Give back one allocation that nobody else has reserved, so that the pod may be tried elsewhere."""
        for claim in claims:
            status = claim.get("status") or {}
            others = [one for one in status.get("reservedFor") or () if one["uid"] != pod["metadata"]["uid"]]
            if status.get("allocation") and not others:
                self._api.replace(RESOURCE_CLAIMS, {**claim, "status": {}}, status=True)
                return True
        return False

    def _say_why(self, pod: Obj, refused: Mapping[str, int]) -> None:
        total = len(self._nodes)
        if total:
            reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in refused.items()))
            tried = "still not schedulable" if NO_DEVICES in refused else "no new claims to deallocate"
            message = (
                f"0/{total} nodes are available: {reasons}. {tried}, preemption: 0/{total} nodes are available: "
                f"{total} Preemption is not helpful for scheduling."
            )
        else:
            message = "no nodes available to schedule pods"
        before = next((one for one in pod["status"].get("conditions") or () if one["type"] == "PodScheduled"), None)
        if before is None or before.get("message") != message:
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastTransitionTime": (before or {}).get("lastTransitionTime") or self._api.stamp(),
            }
            self._api.replace(PODS, {**pod, "status": {**pod["status"], "conditions": [condition]}}, status=True)


def _wants_a_node(pod: Obj) -> bool:
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not pod["metadata"].get("deletionTimestamp")
        and not spec.get("schedulingGates")
        and spec.get("schedulerName") == NAME
        and pod["status"].get("phase") == "Pending"
    )


def _asks(pod: Obj | None) -> object:
    """What of a pod could make it schedulable by changing."""
    return pod and (pod["spec"], pod["status"].get("resourceClaimStatuses"))


def _against(pod: Obj, node: Node, taints: list[Taint]) -> str | None:
    """What of the pod's own wishes and the node's taints forbids the node."""
    spec = pod["spec"]
    tolerations = [_toleration(raw) for raw in spec.get("tolerations") or ()]
    taint = untolerated(taints, tolerations)
    if taint is not None:
        if taint.key == "node.kubernetes.io/unschedulable":
            return NOT_SCHEDULABLE
        return TAINTED
    labels = spec.get("nodeSelector") or {}
    if any(node.labels.get(key) != value for key, value in labels.items()):
        return NO_MATCH
    needed = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return NO_MATCH if needed is not None and not _selects(needed, node) else None


def _selects(selector: Mapping[str, Any], node: Node) -> bool:
    try:
        return node_rules.matches(NodeRule(terms=tuple(_term(raw) for raw in selector["nodeSelectorTerms"])), node)
    except node_rules.BadNodeSelector:
        return False


def _term(raw: Mapping[str, Any]) -> NodeTerm:
    def lines(key: str) -> tuple[Requirement, ...]:
        return tuple(
            Requirement(one["key"], one["operator"], tuple(one.get("values") or ())) for one in raw.get(key) or ()
        )

    return NodeTerm(expressions=lines("matchExpressions"), fields=lines("matchFields"))


def _reaches(claim: Obj, node: Node) -> bool:
    selector = claim["status"]["allocation"].get("nodeSelector")
    return selector is None or _selects(selector, node)


def _taints(node: Obj) -> list[Taint]:
    spec = node.get("spec") or {}
    taints = [Taint(raw["key"], raw.get("value", ""), raw["effect"]) for raw in spec.get("taints") or ()]
    if spec.get("unschedulable"):
        taints.append(Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"))
    return taints


def _toleration(raw: Mapping[str, Any]) -> Toleration:
    return Toleration(raw.get("key", ""), raw.get("operator") or "Equal", raw.get("value", ""), raw.get("effect", ""))
