"""What the API server last said: one watch per kind for the whole cluster, shared by everything in the agent.

Readers take objects from here and never change them; writers send their change to the API server and put its answer
back with ``note``, so that the next look sees it before the watch does. Only what somebody reads is kept: managed
fields go, and of pods and nodes, of which there may be thousands, a few fields stay.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from clusteragent.kube.interface import NODES, PODS, RESOURCE_SLICES, Kind, Kube, KubeError, NotFound, Obj
from clusteragent.loops import Backoff

Listener = Callable[[Obj, bool], None]
"""Called with an object, whole, and whether it is there (False: it went)."""
_REMEMBERED = 8_192
"""Deleted objects whose uid is remembered, so that a late answer can't bring one back."""


class Shelf:
    """All objects of one kind, by namespace and name."""

    def __init__(self, kind: Kind, *, labels: Mapping[str, str] | None = None) -> None:
        self.kind, self.labels = kind, labels
        self.synced = asyncio.Event()
        """Set while what is here is one consistent picture: from the end of a listing to the loss of the watch."""
        self._by_namespace: dict[str, dict[str, Obj]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[Listener] = []
        self._seen: set[tuple[str, str]] = set()
        self._noted: set[tuple[str, str]] = set()
        """Noted while a listing was on its way: whether it is older or newer than the listing, nobody can tell."""

    def get(self, name: str, namespace: str | None = None) -> Obj | None:
        return self._by_namespace.get(namespace or "", {}).get(name)

    def within(self, namespace: str) -> Mapping[str, Obj]:
        """The objects of one namespace, by name."""
        return self._by_namespace.get(namespace, {})

    def __iter__(self) -> Iterator[Obj]:
        for objects in list(self._by_namespace.values()):
            yield from list(objects.values())

    def __len__(self) -> int:
        return sum(map(len, self._by_namespace.values()))

    def listen(self, listener: Listener) -> None:
        """Hear of every change, in this task, after it is on the shelf."""
        self._listeners.append(listener)

    def note(self, obj: Obj) -> None:
        """The API server's answer to a change of ours; older news than what is here is dropped."""
        if uid_of(obj) not in self._gone:
            if not self.synced.is_set():
                self._noted.add(_key(obj))
            self._put(obj)

    async def follow(self, kube: Kube) -> None:
        """Keep the shelf as the cluster is; ends only by cancellation."""
        async for event in kube.watch(self.kind, labels=self.labels):
            if event.type == "RELISTING":
                self.synced.clear()
                self._seen.clear()
            elif event.type == "LISTED":
                await self._sweep(kube)
                self.synced.set()
            elif event.obj is None:
                continue
            elif event.type == "DELETED":
                self._drop(event.obj)
            else:
                if not self.synced.is_set():
                    self._seen.add(_key(event.obj))
                self._put(event.obj)

    def _put(self, obj: Obj) -> None:
        namespace, name = _key(obj)
        known = self.get(name, namespace)
        if known is not None and uid_of(known) == uid_of(obj) and _version(known) >= _version(obj) > 0:
            return
        self._by_namespace.setdefault(namespace, {})[name] = trimmed(self.kind, obj)
        self._tell(obj, True)

    def _drop(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        self._gone[uid_of(obj)] = None
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
        namespace = metadata.get("namespace", "")
        objects = self._by_namespace.get(namespace, {})
        known = objects.get(metadata["name"])
        if known is None or uid_of(known) != uid_of(obj):
            return
        del objects[metadata["name"]]
        if not objects:
            self._by_namespace.pop(namespace, None)
        self._tell(known, False)

    async def _sweep(self, kube: Kube) -> None:
        """After a listing: what it didn't name is gone, or is asked for by itself where that can't be known."""
        for obj in self:
            key = _key(obj)
            if key in self._seen:
                continue
            if key in self._noted and await self._is_there(kube, obj):
                continue
            self._drop(obj)
        self._seen.clear()
        self._noted.clear()

    async def _is_there(self, kube: Kube, obj: Obj) -> bool:
        namespace, name = _key(obj)
        backoff = Backoff()
        while True:
            try:
                self._put(await kube.get(self.kind, name, namespace or None))
                return True
            except NotFound:
                return False
            except (KubeError, OSError, TimeoutError):
                await asyncio.sleep(backoff.delay())

    def _tell(self, obj: Obj, here: bool) -> None:
        for listener in self._listeners:
            listener(obj, here)


class Cache:
    """The shelves of one agent."""

    def __init__(self, kinds: Iterable[Kind], *, labels: Mapping[Kind, Mapping[str, str]] | None = None) -> None:
        self._shelves = {kind: Shelf(kind, labels=(labels or {}).get(kind)) for kind in kinds}

    def __getitem__(self, kind: Kind) -> Shelf:
        return self._shelves[kind]

    def __contains__(self, kind: Kind) -> bool:
        return kind in self._shelves

    def note(self, kind: Kind, obj: Obj) -> None:
        """``Shelf.note`` for kinds that are watched; others are nobody's business."""
        if kind in self._shelves:
            self._shelves[kind].note(obj)

    def shelves(self) -> list[Shelf]:
        return list(self._shelves.values())

    async def synced(self) -> None:
        """Wait until every kind has been listed."""
        for shelf in self._shelves.values():
            await shelf.synced.wait()


def _key(obj: Obj) -> tuple[str, str]:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"].get("uid", ""))


def deleting(obj: Obj) -> bool:
    """Somebody has asked for its deletion; it may linger."""
    return obj["metadata"].get("deletionTimestamp") is not None


def _version(obj: Obj) -> int:
    """Resource versions of one kind can be compared as numbers (KEP-5504); 0 when this one is no number."""
    text = obj["metadata"].get("resourceVersion", "")
    return int(text) if isinstance(text, str) and text.isdigit() else 0


def trimmed(kind: Kind, obj: Obj) -> Obj:
    """What of an object is worth its memory."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    if kind == PODS:
        return {"metadata": metadata, "spec": _pod_spec(obj.get("spec", {})), "status": _pod_status(obj)}
    if kind == NODES:
        spec, status = obj.get("spec", {}), obj.get("status", {})
        metadata.pop("annotations", None)
        return {
            "metadata": metadata,
            "spec": {key: spec[key] for key in ("taints", "unschedulable", "providerID") if key in spec},
            "status": {"conditions": status.get("conditions", [])},
        }
    if kind == RESOURCE_SLICES:  # the inventory has made its own of it
        return {"metadata": metadata}
    return {**obj, "metadata": metadata}


def _pod_spec(spec: Mapping[str, Any]) -> Obj:
    kept = ("nodeName", "resourceClaims", "schedulerName", "terminationGracePeriodSeconds")
    return {key: spec[key] for key in kept if key in spec}


def _pod_status(obj: Obj) -> Obj:
    status = obj.get("status", {})
    kept = {key: status[key] for key in ("phase", "resourceClaimStatuses") if key in status}
    kept["conditions"] = [each for each in status.get("conditions", []) if each.get("type") == "PodScheduled"]
    return kept
