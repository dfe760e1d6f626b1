"""The ``Kube`` of a simulated cluster: an agent's connection to it, and everything that can go wrong with one.

Each call lets others run before and after it takes effect, as a network would; ``Faults`` makes calls slow or fail, and
loses watches. Watching is the same code as for a real cluster (``watching``), so what a lost watch does to an agent
here, it does there.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clusteragent.kube.interface import SERVICE_ACCOUNTS, Conflict, Event, Kind, NotFound, Obj
from clusteragent.kube.sim.api import Api
from clusteragent.kube.sim.store import Change, copied
from clusteragent.kube.sim.work import Later
from clusteragent.kube.watching import Listing, list_then_watch

T = TypeVar("T")

KUBERNETES = (1, 36)
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """A call on its way. Verbs as in RBAC (get, list, watch, create, update, patch, delete)."""

    verb: str
    kind: Kind
    namespace: str | None = None
    name: str | None = None
    subresource: str = ""


@dataclass
class Faults:
    """What goes wrong between an agent and its API server. Everything is off until it is set."""

    down: bool = False
    """The API server can't be reached."""
    latency_s: Callable[[Call], float] | None = None
    """How long a call takes, in seconds of the cluster."""
    before: Callable[[Call], Awaitable[None]] | None = None
    """Called before a call takes effect: may wait, or raise what the agent shall see."""
    after: Callable[[Call], Awaitable[None]] | None = None
    """Called after a call took effect and before the agent hears of it: raising loses the answer, not the effect."""
    calls: list[Call] = field(default_factory=list)
    """Every call made so far, where ``record`` is set."""
    record: bool = False
    _failing: list[tuple[Exception, str | None, str | None]] = field(default_factory=list)

    def fail_next(self, error: Exception, *, verb: str | None = None, kind: Kind | None = None, times: int = 1) -> None:
        """Have the next ``times`` calls (of this verb, on this kind) raise ``error`` instead of taking effect."""
        self._failing += [(error, verb, kind.plural if kind else None)] * times

    def failure_of(self, call: Call) -> Exception | None:
        if self.down:
            return ConnectionRefusedError("the simulated API server is down")
        for index, (error, verb, plural) in enumerate(self._failing):
            if verb in (None, call.verb) and plural in (None, call.kind.plural):
                del self._failing[index]
                return error
        return None


class SimKube:
    """A connection to a simulated cluster, with its own faults."""

    def __init__(self, api: Api, *, name: str, later: Later) -> None:
        self.faults = Faults()
        self._api, self._store, self._name, self._later = api, api.store, name, later
        self._streams: set[_Stream] = set()
        self._store.on_change.append(self._publish)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Obj:
        return await self._do(Call("get", kind, namespace, name), lambda: copied(self._api.get(kind, name, namespace)))

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Obj]:
        return (await self.listing(kind, namespace, labels)).objects

    def watch(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Event]:
        source = _Watched(self, kind, namespace, dict(labels or {}))
        return list_then_watch(source, what=f"{self._name}/{kind.plural}", wait=self._pause)

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        metadata = obj.get("metadata", {})
        call = Call("create", kind, metadata.get("namespace"), metadata.get("name"))
        return await self._do(call, lambda: copied(self._api.create(kind, obj)))

    async def replace(self, kind: Kind, obj: Obj, *, status: bool = False) -> Obj:
        metadata = obj["metadata"]
        call = Call("update", kind, metadata.get("namespace"), metadata["name"], "status" if status else "")
        return await self._do(call, lambda: copied(self._api.replace(kind, obj, status=status)))

    async def merge(
        self, kind: Kind, name: str, patch: Mapping[str, Any], *, namespace: str | None = None, status: bool = False
    ) -> Obj:
        call = Call("patch", kind, namespace, name, "status" if status else "")
        return await self._do(
            call, lambda: copied(self._api.merge(kind, name, patch, namespace=namespace, status=status))
        )

    async def delete(
        self, kind: Kind, name: str, *, namespace: str | None = None, uid: str | None = None, grace_s: int | None = None
    ) -> None:
        def effect() -> None:
            if uid is not None and self._api.get(kind, name, namespace)["metadata"]["uid"] != uid:
                raise Conflict(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
            self._api.delete(kind, name, namespace=namespace, grace_s=grace_s)

        try:
            await self._do(Call("delete", kind, namespace, name), effect)
        except (NotFound, Conflict):
            return

    async def token(self, namespace: str, service_account: str, *, seconds: int, audience: str | None = None) -> str:
        call = Call("create", SERVICE_ACCOUNTS, namespace, service_account, "token")
        return await self._do(call, lambda: self._api.token(namespace, service_account, seconds=seconds))

    async def version(self) -> tuple[int, int]:
        """The Kubernetes whose rules these are."""
        return KUBERNETES

    @property
    def server(self) -> str:
        return f"https://{self._name}.simulated.invalid:6443"

    @property
    def ca_pem(self) -> str:
        return ""

    async def close(self) -> None:
        if self._publish in self._store.on_change:
            self._store.on_change.remove(self._publish)
        for stream in list(self._streams):
            stream.lose(ConnectionResetError("closed"))

    def drop_watches(self) -> None:
        """Break every open watch, as a lost connection does: each goes on from where it was."""
        for stream in list(self._streams):
            stream.lose(ConnectionResetError("the simulated connection was lost"))

    def expire_watches(self) -> None:
        """Break every open watch and forget the history, so that each is refused (410) and has to list again."""
        self._store.forget()
        self.drop_watches()

    async def listing(self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None) -> Listing:
        def effect() -> Listing:
            found = [copied(obj) for obj in self._store.all(kind, namespace) if _matches(obj, labels)]
            return Listing(found, str(self._store.version))

        return await self._do(Call("list", kind, namespace), effect)

    async def stream(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str], version: str
    ) -> AsyncGenerator[Obj, None]:
        def effect() -> _Stream:
            opened = _Stream(kind, namespace, labels, self._store.since(kind, int(version)))
            self._streams.add(opened)  # in the same instant: nothing may happen between what was missed and what comes
            return opened

        stream = await self._do(Call("watch", kind, namespace), effect)
        try:
            while True:
                for raw in await stream.next():
                    yield raw
        finally:
            self._streams.discard(stream)

    def _publish(self, change: Change) -> None:
        for stream in self._streams:
            stream.push(change)

    async def _do(self, call: Call, effect: Callable[[], T]) -> T:
        if self.faults.record:
            self.faults.calls.append(call)
        delay = self.faults.latency_s(call) if self.faults.latency_s else 0.0
        await self._sleep(delay / 2)
        if self.faults.before:
            await self.faults.before(call)
        if failure := self.faults.failure_of(call):
            raise failure
        result = effect()
        if self.faults.after:
            await self.faults.after(call)
        await self._sleep(delay / 2)
        return result

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        self._later(seconds, woken.set)
        await woken.wait()

    async def _pause(self, failures: int) -> None:
        await self._sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 20)))


class _Stream:
    """One open watch: what it has yet to say."""

    def __init__(self, kind: Kind, namespace: str | None, labels: Mapping[str, str], missed: list[Change]) -> None:
        self._kind, self._namespace, self._labels = kind, namespace, labels
        self._pending: list[Change] = []
        self._lost: Exception | None = None
        self._news = asyncio.Event()
        for change in missed:
            self.push(change)

    def push(self, change: Change) -> None:
        if change.kind.plural == self._kind.plural and change.kind.group == self._kind.group:
            self._pending.append(change)
            self._news.set()

    def lose(self, error: Exception) -> None:
        self._lost = error
        self._news.set()

    async def next(self) -> list[Obj]:
        """The next events, at least one of them, as the API sends them."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._lost:
                raise self._lost
            pending, self._pending = self._pending, []
            events = [raw for raw in map(self._seen, pending) if raw is not None]
            if events:
                return events

    def _seen(self, change: Change) -> Obj | None:
        """The change as this watch sees it: an object that comes to match is ADDED, one that ceases to is DELETED."""
        obj, old = change.obj, change.old
        if self._namespace is not None and obj["metadata"].get("namespace") != self._namespace:
            return None
        before = old is not None and _matches(old, self._labels)
        after = change.type != "DELETED" and _matches(obj, self._labels)
        if not before and not after:
            return None
        kind = "DELETED" if not after else "MODIFIED" if before else "ADDED"
        return {"type": kind, "object": copied(obj)}


class _Watched:
    """One kind, in one namespace or in all, as ``list_then_watch`` wants it."""

    def __init__(self, kube: SimKube, kind: Kind, namespace: str | None, labels: Mapping[str, str]) -> None:
        self._kube, self._kind, self._namespace, self._labels = kube, kind, namespace, labels

    async def listing(self) -> Listing:
        return await self._kube.listing(self._kind, self._namespace, self._labels)

    def stream(self, version: str) -> AsyncGenerator[Obj, None]:
        return self._kube.stream(self._kind, self._namespace, self._labels, version)


def _matches(obj: Obj, labels: Mapping[str, str] | None) -> bool:
    mine = obj["metadata"].get("labels") or {}
    return not labels or all(mine.get(key) == value for key, value in labels.items())
