"""What kube-controller-manager does, as far as leases meet it.

* A namespace that is deleted is emptied, then gone.
* What an owner leaves behind is deleted, and what names an owner that isn't there (garbage collection, background).
* Pods that name a claim template get a claim of their own.
* Consumers that are gone or done leave a claim's ``reservedFor``; when the last pod leaves, the allocation is cleared.
  Entries that are no pods are kept, and keep the allocation (Kubernetes ≥ 1.36). A deleted claim stays, allocated,
  until nobody reserves it; then it is deallocated and gone. A claim that is allocated and was never reserved is left
  alone.
"""

from collections import defaultdict
from typing import Any

from clusteragent.kube.interface import NAMESPACES, NODES, PODS, RESOURCE_CLAIMS, Kind, Obj
from clusteragent.kube.sim.api import Api
from clusteragent.kube.sim.rules import RESOURCE_CLAIM_TEMPLATES
from clusteragent.kube.sim.store import Change, Id, copied, id_of
from clusteragent.kube.sim.work import Work

CLAIM_FINALIZER = "resource.kubernetes.io/delete-protection"
POD_CLAIM = "resource.kubernetes.io/pod-claim-name"


class Controllers:
    """All of them; each looks again at what changed, and at nothing else."""

    def __init__(self, api: Api, work: Work) -> None:
        self._api, self._store, self._work = api, api.store, work
        self._dependents: defaultdict[str, set[str]] = defaultdict(set)
        self._claims_of: defaultdict[str, set[Id]] = defaultdict(set)
        """Claims by the uid of whoever has reserved or owns them."""
        self._unequipped: dict[Id, None] = {}
        """Pods that wait for a template, or were put on a node by hand and wait for a claim's allocation."""

    def on_change(self, change: Change) -> None:
        kind, obj = change.kind, change.obj
        metadata = obj["metadata"]
        place = id_of(obj)
        owners = [owner["uid"] for owner in metadata.get("ownerReferences") or ()]
        if change.type == "DELETED":
            for owner in owners:
                self._dependents[owner].discard(metadata["uid"])
            for dependent in sorted(self._dependents.pop(metadata["uid"], ())):
                self._work.add(self._collect, dependent)
            if place[0]:
                self._work.add(self._empty, place[0])
        elif owners:
            for owner in owners:
                self._dependents[owner].add(metadata["uid"])
            self._work.add(self._collect, metadata["uid"])
        if kind == NAMESPACES and metadata.get("deletionTimestamp"):
            self._work.add(self._empty, metadata["name"])
        elif kind == NODES and change.type == "DELETED":
            self._work.add(self._orphan, metadata["name"])
        elif kind == PODS:
            for claim in sorted(self._claims_of.get(metadata["uid"], ())):
                self._work.add(self._tend, claim)
            if change.type == "DELETED":
                self._claims_of.pop(metadata["uid"], None)
                self._unequipped.pop(place, None)
            else:
                self._work.add(self._equip, place)
        elif kind == RESOURCE_CLAIMS:
            users = [one["uid"] for one in (obj.get("status") or {}).get("reservedFor") or ()] + owners
            if change.type == "DELETED":
                for uid in users:
                    self._claims_of[uid].discard(place)
                return
            for uid in users:
                self._claims_of[uid].add(place)
            self._work.add(self._tend, place)
            self._equip_waiting(place[0])
        elif kind == RESOURCE_CLAIM_TEMPLATES:
            self._equip_waiting(place[0])

    def _equip_waiting(self, namespace: str) -> None:
        for pod in self._unequipped:
            if pod[0] == namespace:
                self._work.add(self._equip, pod)

    # -- namespaces, nodes, owners ---------------------------------------------------------------------------------

    def _empty(self, name: str) -> None:
        namespace = self._store.get(NAMESPACES, None, name)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return
        for kind, inner in self._store.inside(name):
            obj = self._store.get(kind, name, inner)
            if obj is not None and not obj["metadata"].get("deletionTimestamp"):
                self._api.delete(kind, inner, namespace=name)
        if not self._store.inside(name):
            self._api.end(NAMESPACES, namespace)

    def _orphan(self, node: str) -> None:
        for pod in list(self._store.all(PODS)):
            if pod["spec"].get("nodeName") == node:
                self._delete(PODS, id_of(pod), grace_s=0)

    def _collect(self, uid: str) -> None:
        """Delete the object with this uid if it names owners and none of them is there."""
        if uid not in self._store.live:
            return
        kind, (namespace, name) = self._store.live[uid]
        obj = self._api.get(kind, name, namespace)
        owners = [owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()]
        if owners and not any(owner in self._store.live for owner in owners):
            self._delete(kind, (namespace, name))

    def _delete(self, kind: Kind, place: Id, *, grace_s: int | None = None) -> None:
        obj = self._store.get(kind, *place)
        if obj is not None and (grace_s == 0 or not obj["metadata"].get("deletionTimestamp")):
            self._api.delete(kind, place[1], namespace=place[0], grace_s=grace_s)

    # -- claims ----------------------------------------------------------------------------------------------------

    def _equip(self, place: Id) -> None:
        """Make the claims a pod asks for by template; reserve its allocated claims when others put it on a node."""
        self._unequipped.pop(place, None)
        pod = self._store.get(PODS, *place)
        if pod is None or pod_done(pod):
            return
        pod = self._make_claims(pod)
        names = claim_names(pod)
        if pod["spec"].get("nodeName"):
            equipped = all([self._reserve(place[0], name, pod) for name in names])
        else:
            equipped = None not in names
        if not equipped:
            self._unequipped[place] = None

    def _make_claims(self, pod: Obj) -> Obj:
        status = {entry["name"]: entry for entry in pod["status"].get("resourceClaimStatuses") or ()}
        missing = [
            entry
            for entry in pod["spec"].get("resourceClaims") or ()
            if entry.get("resourceClaimTemplateName") and entry["name"] not in status
        ]
        if not missing or pod["metadata"].get("deletionTimestamp"):
            return pod
        namespace, name = id_of(pod)
        for entry in missing:
            template = self._store.get(RESOURCE_CLAIM_TEMPLATES, namespace, entry["resourceClaimTemplateName"])
            if template is None:
                return pod
            inner = template["spec"].get("metadata") or {}
            claim = self._api.create(
                RESOURCE_CLAIMS,
                {
                    "metadata": {
                        "generateName": f"{name}-{entry['name']}-",
                        "namespace": namespace,
                        "labels": inner.get("labels") or {},
                        "annotations": {**(inner.get("annotations") or {}), POD_CLAIM: entry["name"]},
                        "ownerReferences": [_owned_by(pod)],
                    },
                    "spec": template["spec"]["spec"],
                },
            )
            status[entry["name"]] = {"name": entry["name"], "resourceClaimName": claim["metadata"]["name"]}
        new = {**pod, "status": {**pod["status"], "resourceClaimStatuses": list(status.values())}}
        return self._api.replace(PODS, new, status=True)

    def _reserve(self, namespace: str, name: str | None, pod: Obj) -> bool:
        """Reserve an allocated claim for a pod; False when that cannot be (yet)."""
        claim = self._store.get(RESOURCE_CLAIMS, namespace, name) if name else None
        if claim is None:
            return False
        if reserved_for(claim, pod):
            return True
        status = claim.get("status") or {}
        if not status.get("allocation") or claim["metadata"].get("deletionTimestamp"):
            return False
        consumers = [*(status.get("reservedFor") or ()), consumer(pod)]
        self._api.replace(RESOURCE_CLAIMS, {**claim, "status": {**status, "reservedFor": consumers}}, status=True)
        return True

    def _tend(self, place: Id) -> None:
        """Let go of a claim what is gone, and of its devices what nobody reserves any more."""
        claim = self._store.get(RESOURCE_CLAIMS, *place)
        if claim is None:
            return
        status = claim.get("status") or {}
        consumers = status.get("reservedFor") or []
        valid = [one for one in consumers if self._lives(place[0], one)]
        guarded = CLAIM_FINALIZER in (claim["metadata"].get("finalizers") or ())
        dying = bool(claim["metadata"].get("deletionTimestamp"))
        if len(valid) != len(consumers) or (dying and not valid and status.get("allocation")):
            new = copied(claim)
            new["status"]["reservedFor"] = valid
            if not valid and guarded:
                new["status"].pop("allocation", None)
            claim = self._api.replace(RESOURCE_CLAIMS, new, status=True)
            status = claim.get("status") or {}
        if valid:
            return
        if dying and guarded and not status.get("allocation"):
            new = copied(claim)
            new["metadata"]["finalizers"].remove(CLAIM_FINALIZER)
            self._api.replace(RESOURCE_CLAIMS, new)
        elif not dying and self._owner_done(place[0], claim):
            self._api.delete(RESOURCE_CLAIMS, place[1], namespace=place[0])

    def _lives(self, namespace: str, one: dict[str, Any]) -> bool:
        if one.get("apiGroup") or one["resource"] != PODS.plural:
            return True
        pod = self._store.get(PODS, namespace, one["name"])
        return pod is not None and pod["metadata"]["uid"] == one["uid"] and not pod_done(pod)

    def _owner_done(self, namespace: str, claim: Obj) -> bool:
        """Whether the claim was made for a pod that has finished."""
        for owner in claim["metadata"].get("ownerReferences") or ():
            if owner.get("controller") and owner["kind"] == PODS.kind:
                pod = self._store.get(PODS, namespace, owner["name"])
                return pod is not None and pod["metadata"]["uid"] == owner["uid"] and pod_done(pod)
        return False


def pod_done(pod: Obj) -> bool:
    """A pod that uses nothing any more: finished, or deleted before it came to a node."""
    if pod["status"].get("phase") in ("Succeeded", "Failed"):
        return True
    return bool(pod["metadata"].get("deletionTimestamp")) and not pod["spec"].get("nodeName")


def claim_names(pod: Obj) -> list[str | None]:
    """The claims a pod uses; None for one that has yet to be made from its template."""
    made = {entry["name"]: entry.get("resourceClaimName") for entry in pod["status"].get("resourceClaimStatuses") or ()}
    return [
        entry.get("resourceClaimName") or made.get(entry["name"]) for entry in pod["spec"].get("resourceClaims") or ()
    ]


def consumer(pod: Obj) -> dict[str, str]:
    """A pod as an entry of ``reservedFor``."""
    return {"resource": PODS.plural, "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}


def reserved_for(claim: Obj, pod: Obj) -> bool:
    """Whether the claim is allocated and reserved for the pod."""
    status = claim.get("status") or {}
    uid = pod["metadata"]["uid"]
    return bool(status.get("allocation")) and any(one["uid"] == uid for one in status.get("reservedFor") or ())


def _owned_by(pod: Obj) -> dict[str, Any]:
    metadata = pod["metadata"]
    return {
        "apiVersion": "v1",
        "kind": PODS.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
