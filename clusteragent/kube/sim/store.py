"""The objects of one cluster, each change with a number that only rises, and the history that watches read.

Objects in here are never changed, only replaced: whoever reads one may keep it, and must copy it (``copied``) before
changing anything. That makes a change cheap for any number of watchers.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from clusteragent.kube.interface import Gone, Kind, Obj

HISTORY = 1_024
"""Changes of each kind that a watch can go back; an API server keeps about as many, and never more than 5 min."""

KindKey = tuple[str, str]
Id = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""

T = TypeVar("T")


class Change(NamedTuple):
    """One change of one object."""

    version: int
    type: str
    """ADDED, MODIFIED or DELETED."""
    kind: Kind
    obj: Obj
    """As it is now; for DELETED as it was, with the version of its end."""
    old: Obj | None
    """As it was before."""


class Store:
    """All objects of a cluster."""

    def __init__(self) -> None:
        self.version = 0
        self.on_change: list[Callable[[Change], None]] = []
        self.live: dict[str, tuple[Kind, Id]] = {}
        """Objects by uid."""
        self._objects: defaultdict[KindKey, dict[Id, Obj]] = defaultdict(dict)
        self._history: defaultdict[KindKey, deque[Change]] = defaultdict(lambda: deque(maxlen=HISTORY))
        self._forgotten: defaultdict[KindKey, int] = defaultdict(int)
        self._namespaces: defaultdict[str, dict[tuple[Kind, str], None]] = defaultdict(dict)

    def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        return self._objects[_key(kind)].get((namespace or "", name))

    def all(self, kind: Kind, namespace: str | None = None) -> Iterator[Obj]:
        """Objects of a kind in the order of their creation; ``namespace`` None: everywhere."""
        for (place, _), obj in self._objects[_key(kind)].items():
            if namespace is None or place == namespace:
                yield obj

    def inside(self, namespace: str) -> list[tuple[Kind, str]]:
        """Kind and name of everything in a namespace."""
        return list(self._namespaces[namespace]) if namespace in self._namespaces else []

    def put(self, kind: Kind, obj: Obj) -> Obj:
        """Store ``obj`` (it must be the caller's own, and not be touched again) under the next version."""
        self.version += 1
        metadata = obj["metadata"]
        metadata["resourceVersion"] = str(self.version)
        place = id_of(obj)
        objects = self._objects[_key(kind)]
        old = objects.get(place)
        objects[place] = obj
        if old is None:
            self.live[metadata["uid"]] = (kind, place)
            if place[0]:
                self._namespaces[place[0]][kind, place[1]] = None
        self._tell(Change(self.version, "MODIFIED" if old else "ADDED", kind, obj, old))
        return obj

    def remove(self, kind: Kind, obj: Obj) -> None:
        """Remove an object for good."""
        self.version += 1
        place = id_of(obj)
        old = self._objects[_key(kind)].pop(place)
        self.live.pop(old["metadata"]["uid"], None)
        if place[0]:
            self._namespaces[place[0]].pop((kind, place[1]), None)
            if not self._namespaces[place[0]]:
                del self._namespaces[place[0]]
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self._tell(Change(self.version, "DELETED", kind, last, old))

    def since(self, kind: Kind, version: int) -> list[Change]:
        """What has changed after ``version``. ``Gone`` when that is too long ago (or has not been yet)."""
        if version < self._forgotten[_key(kind)] or version > self.version:
            raise Gone(410, "Expired", f"too old resource version: {version} ({self.version})")
        return [change for change in self._history[_key(kind)] if change.version > version]

    def forget(self, kinds: Iterable[Kind] | None = None) -> None:
        """Forget the history, as a compaction does: watches from an older version are ``Gone``."""
        for key in list(self._history) if kinds is None else [_key(kind) for kind in kinds]:
            self._history[key].clear()
            self._forgotten[key] = self.version

    def _tell(self, change: Change) -> None:
        key = _key(change.kind)
        history = self._history[key]
        if len(history) == HISTORY:
            self._forgotten[key] = history[0].version
        history.append(change)
        for listener in self.on_change:
            listener(change)


def copied(value: T) -> T:
    """A copy of JSON that shares nothing with it."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}  # type: ignore[return-value]  # a T again
    if isinstance(value, list):
        return [copied(inner) for inner in value]  # type: ignore[return-value]  # a T again
    return value


def id_of(obj: Obj) -> Id:
    metadata: dict[str, Any] = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _key(kind: Kind) -> KindKey:
    return kind.group, kind.plural
