"""What an API server does with a request: versions, uids, finalizers, graceful ends, and the rules of ``rules``.

Synchronous and atomic, as a request at etcd is. The controllers of a simulated cluster use it as real ones use theirs,
so nobody gets past the rules. Everything handed out belongs to the store: copy it before changing it.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from broker.kit.clock import Clock
from clusteragent.kube.interface import (
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    Kind,
    KubeError,
    NotFound,
    Obj,
)
from clusteragent.kube.sim import rules
from clusteragent.kube.sim.store import Store, copied, id_of

SHORTEST_TOKEN_S = 600


class Api:
    """The API server of a simulated cluster. ``new_uid`` makes uids and the random ends of generated names."""

    def __init__(self, store: Store, *, now: Clock, new_uid: Callable[[], str]) -> None:
        self.store = store
        self._now = now
        self._new_uid = new_uid

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Obj:
        """The object, or ``NotFound``."""
        obj = self.store.get(kind, namespace if kind.namespaced else None, name)
        if obj is None:
            raise NotFound(404, "NotFound", f'{_resource(kind)} "{name}" not found')
        return obj

    def create(self, kind: Kind, given: Obj) -> Obj:
        obj = copied(given)
        metadata = obj.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            raise KubeError(500, "", "resourceVersion should not be set on objects to be created")
        if kind.namespaced:
            self._check_namespace(kind, obj)
        else:
            metadata.pop("namespace", None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + self._new_uid()[-5:]
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        rules.defaulted(kind, obj)
        rules.check_new(kind, obj)
        if self.store.get(kind, *id_of(obj)) is not None:
            raise AlreadyExists(409, "AlreadyExists", f'{_resource(kind)} "{metadata["name"]}" already exists')
        for ours in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(ours, None)
        metadata |= {"uid": self._new_uid(), "creationTimestamp": _stamp(self._now())}
        if rules.custom(kind) or kind.plural == PODS.plural:
            metadata["generation"] = 1
        if rules.has_status(kind) and kind.plural != NODES.plural:
            obj.pop("status", None)
        if kind.plural == PODS.plural:
            obj["status"] = {"phase": "Pending"}
        elif kind.plural == NAMESPACES.plural:
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
            obj |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        return self.store.put(kind, obj)

    def replace(self, kind: Kind, given: Obj, *, status: bool = False) -> Obj:
        metadata = given["metadata"]
        old = self.get(kind, metadata["name"], metadata.get("namespace"))
        if rules.custom(kind) and not metadata.get("resourceVersion"):
            raise rules.invalid(
                kind, given, "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
            )
        return self._update(kind, old, copied(given), status=status)

    def merge(
        self, kind: Kind, name: str, patch: Mapping[str, Any], *, namespace: str | None = None, status: bool = False
    ) -> Obj:
        old = self.get(kind, name, namespace)
        merged = copied(_merged(old, patch))
        if id_of(merged) != id_of(old):
            raise Invalid(400, "BadRequest", "the name of the object does not match the name on the URL")
        return self._update(kind, old, merged, status=status)

    def delete(self, kind: Kind, name: str, *, namespace: str | None = None, grace_s: int | None = None) -> None:
        """Delete, or start to: pods end gracefully, finalizers are waited for. ``NotFound`` when there is nothing."""
        old = self.get(kind, name, namespace)
        grace = self._grace(old, grace_s) if kind.plural == PODS.plural else 0
        if not grace and not old["metadata"].get("finalizers") and kind.plural != NAMESPACES.plural:
            self.store.remove(kind, old)
            return
        metadata = old["metadata"]
        if metadata.get("deletionTimestamp") and grace >= metadata["deletionGracePeriodSeconds"]:
            return
        obj = copied(old)
        obj["metadata"] |= {
            "deletionTimestamp": _stamp(self._now() + timedelta(seconds=grace)),
            "deletionGracePeriodSeconds": grace,
        }
        if kind.plural == NAMESPACES.plural:
            obj["status"] = {"phase": "Terminating"}
        self.store.put(kind, obj)

    def end(self, kind: Kind, obj: Obj) -> None:
        """The last step of a deletion, once what held it up is through (a kubelet's, a namespace controller's)."""
        if not obj["metadata"].get("finalizers"):
            self.store.remove(kind, obj)

    def bind(self, pod: Obj, node: str, status: Obj) -> Obj:
        """Put a pod on a node: the scheduler's ``pods/binding``."""
        bound = copied(pod)
        bound["spec"]["nodeName"] = node
        bound["status"] = copied(status)
        return self.store.put(PODS, bound)

    def token(self, namespace: str, service_account: str, *, seconds: int) -> str:
        """A name for the right to act as the account until then; every one is different."""
        if seconds < SHORTEST_TOKEN_S:
            raise Invalid(422, "Invalid", f"spec.expirationSeconds: Invalid value: {seconds}: less than 10 minutes")
        self.get(SERVICE_ACCOUNTS, service_account, namespace)
        end = int(self._now().timestamp()) + seconds
        return f"simulated.{namespace}.{service_account}.{end}.{self._new_uid()}"

    def stamp(self) -> str:
        """Now, as objects have it."""
        return _stamp(self._now())

    def _update(self, kind: Kind, old: Obj, new: Obj, *, status: bool) -> Obj:
        metadata, before = new["metadata"], old["metadata"]
        if metadata.get("uid", before["uid"]) != before["uid"]:
            raise Conflict(409, "Conflict", f"Precondition failed: UID in object meta: {before['uid']}")
        if metadata.get("resourceVersion") not in (None, "", before["resourceVersion"]):
            raise Conflict(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {_resource(kind)} "{before["name"]}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        new["apiVersion"], new["kind"] = kind.api_version, kind.kind
        if status:
            new = {**old, "status": new.get("status") or {}}
            rules.check_status(kind, old, new)
            rules.settle_status(kind, new)
        else:
            for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
                metadata.pop(key, None)
                if key in before:
                    metadata[key] = before[key]
            if rules.has_status(kind):
                new.pop("status", None)
                if "status" in old:
                    new["status"] = old["status"]
            rules.defaulted(kind, new)
            rules.check_change(kind, old, new)
        new["metadata"] = {**new["metadata"], "resourceVersion": before["resourceVersion"]}
        if new == old:
            return old
        if "generation" in before and not status and _essence(new) != _essence(old):
            new["metadata"]["generation"] = before["generation"] + 1
        stored = self.store.put(kind, new)
        if before.get("deletionTimestamp") and not stored["metadata"].get("finalizers") and _ends_now(kind, stored):
            self.store.remove(kind, stored)
        return stored

    def _check_namespace(self, kind: Kind, obj: Obj) -> None:
        name = obj["metadata"].get("namespace")
        if not name:
            raise KubeError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if self.get(NAMESPACES, name)["metadata"].get("deletionTimestamp"):
            raise Forbidden(
                403,
                "Forbidden",
                f'{_resource(kind)} "{obj["metadata"].get("name", "")}" is forbidden: unable to create new content in '
                f"namespace {name} because it is being terminated",
            )

    def _grace(self, pod: Obj, grace_s: int | None) -> int:
        if not pod["spec"].get("nodeName") or pod["status"].get("phase") in ("Succeeded", "Failed"):
            return 0
        return int(pod["spec"]["terminationGracePeriodSeconds"] if grace_s is None else grace_s)


def _ends_now(kind: Kind, obj: Obj) -> bool:
    """Whether a deleted object without finalizers is gone: others than the API server end pods and namespaces."""
    if kind.plural == PODS.plural:
        return not obj["metadata"].get("deletionGracePeriodSeconds")
    return kind.plural != NAMESPACES.plural


def _essence(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _merged(target: Any, patch: Mapping[str, Any]) -> Obj:
    """RFC 7386."""
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = _merged(result.get(key), value)
        else:
            result[key] = value
    return result


def _resource(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
