"""A real cluster: the calls of ``Kube`` as requests to an API server.

How a request gets there is ``session``'s business, how a watch lives is ``watching``'s; here is which path and which
body each call is, and in which version resource.k8s.io is spoken.
"""

import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from clusteragent.kube.interface import Conflict, Event, Gone, Kind, NotFound, Obj
from clusteragent.kube.refusals import refusal
from clusteragent.kube.session import NoWayIn, Session, network
from clusteragent.kube.watching import Listing, list_then_watch

__all__ = ["NoWayIn", "RealKube"]

PAGE = 500
"""Objects in one answer of a list; the API server hands out the rest against a token."""

INACTIVITY_S = 90.0
"""A watch is dead when nothing was heard for so long: bookmarks come about every 60 s, in an idle cluster too."""

WATCH_S = (300, 600)
"""How long a watch may last before it is opened anew, drawn at random so that they don't end together."""

VERSIONS = ("v1", "v1beta2", "v1alpha3")
"""Versions of resource.k8s.io with the same JSON, best first (v1: ≥ 1.34; DeviceTaintRule: v1 ≥ 1.37)."""


class RealKube:
    """A ``Kube`` that speaks to an API server. Make one with a class method; close it at the end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._versions: dict[str, str] = {}

    @classmethod
    async def from_kubeconfig(cls, path: Path | str | None = None, *, context: str | None = None) -> "RealKube":
        """The local user's own kubeconfig (default: as kubectl finds it). Raises ``NoWayIn``."""
        return cls(await Session.from_kubeconfig(path, context=context))

    @classmethod
    async def from_text(cls, text: str) -> "RealKube":
        """A kubeconfig that came from somewhere else: data only. Raises ``NoWayIn``."""
        return cls(await Session.from_text(text))

    @classmethod
    async def in_cluster(cls) -> "RealKube":
        """The cluster this process runs in. Raises ``NoWayIn``."""
        return cls(await Session.in_cluster())

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Obj:
        return await self._session.call("GET", await self._path(kind, namespace, name))

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Obj]:
        return (await self._listing(kind, namespace, labels)).objects

    def watch(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Event]:
        return list_then_watch(_Watched(self, kind, namespace, labels), what=kind.plural)

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        path = await self._path(kind, obj["metadata"].get("namespace"))
        return await self._session.call("POST", path, body=self._dressed(kind, obj))

    async def replace(self, kind: Kind, obj: Obj, *, status: bool = False) -> Obj:
        metadata = obj["metadata"]
        path = await self._path(kind, metadata.get("namespace"), metadata["name"], "status" if status else "")
        return await self._session.call("PUT", path, body=self._dressed(kind, obj))

    async def merge(
        self, kind: Kind, name: str, patch: Mapping[str, Any], *, namespace: str | None = None, status: bool = False
    ) -> Obj:
        path = await self._path(kind, namespace, name, "status" if status else "")
        return await self._session.call("PATCH", path, body=dict(patch), content_type="application/merge-patch+json")

    async def delete(
        self, kind: Kind, name: str, *, namespace: str | None = None, uid: str | None = None, grace_s: int | None = None
    ) -> None:
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._session.call("DELETE", await self._path(kind, namespace, name), body=options)
        except (NotFound, Conflict):
            # A conflict: another object has taken the name (its uid differs), or a namespace is being emptied already.
            return

    async def token(self, namespace: str, service_account: str, *, seconds: int, audience: str | None = None) -> str:
        spec: Obj = {"expirationSeconds": seconds, "audiences": [audience] if audience else []}
        answer = await self._session.call(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token",
            body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        return str(answer["status"]["token"])

    async def version(self) -> tuple[int, int]:
        """Major and minor version of the API server (providers write a minor as ``36+``)."""
        told = await self._session.call("GET", "/version")
        major, minor = (int("".join(filter(str.isdigit, str(told[part])))) for part in ("major", "minor"))
        return major, minor

    @property
    def server(self) -> str:
        return self._session.server

    @property
    def ca_pem(self) -> str:
        return self._session.ca_pem

    async def close(self) -> None:
        await self._session.close()

    async def _listing(self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None) -> Listing:
        """Everything, page by page; a listing that took so long that its pages expired starts anew, in one piece."""
        path = await self._path(kind, namespace)
        query = _selecting(labels) | {"limit": str(PAGE)}
        objects: list[Obj] = []
        while True:
            try:
                answer = await self._session.call("GET", path, query=query)
            except Gone:
                if "continue" not in query:
                    raise
                objects, query = [], _selecting(labels)
                continue
            for obj in answer.get("items") or ():  # the items of a list don't say what they are
                obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
                objects.append(obj)
            metadata = answer["metadata"]
            if not metadata.get("continue"):
                return Listing(objects, metadata["resourceVersion"])
            query["continue"] = metadata["continue"]

    async def _path(self, kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
        version = await self._version(kind)
        parts = ["/apis", kind.group, version] if kind.group else ["/api", version]
        if namespace and kind.namespaced:
            parts += ["namespaces", namespace]
        parts.append(kind.plural)
        return "/".join([*parts, *(part for part in (name, subresource) if part)])

    async def _version(self, kind: Kind) -> str:
        """The version to speak: ours, except that older clusters know resource.k8s.io by an older name."""
        if kind.group != "resource.k8s.io":
            return kind.version
        if kind.plural not in self._versions:
            self._versions[kind.plural] = await self._discover(kind)
        return self._versions[kind.plural]

    async def _discover(self, kind: Kind) -> str:
        group = await self._session.call("GET", f"/apis/{kind.group}")
        served = {entry["version"] for entry in group["versions"]}
        for version in VERSIONS:
            if version in served:
                resources = await self._session.call("GET", f"/apis/{kind.group}/{version}")
                if any(resource["name"] == kind.plural for resource in resources["resources"]):
                    return version
        raise NotFound(404, "NotFound", f"this API server does not serve {kind.plural}.{kind.group}")

    def _dressed(self, kind: Kind, obj: Obj) -> Obj:
        version = self._versions.get(kind.plural, kind.version) if kind.group == "resource.k8s.io" else kind.version
        return {**obj, "apiVersion": f"{kind.group}/{version}" if kind.group else version, "kind": kind.kind}


class _Watched:
    """One kind in one namespace, or in all, as ``list_then_watch`` wants it."""

    def __init__(self, kube: RealKube, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None) -> None:
        self._kube, self._kind, self._namespace, self._labels = kube, kind, namespace, labels

    async def listing(self) -> Listing:
        return await self._kube._listing(self._kind, self._namespace, self._labels)

    async def stream(self, version: str) -> AsyncGenerator[Obj, None]:
        query = _selecting(self._labels) | {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_S)),  # noqa: S311 - spreads load, guards nothing
        }
        path = await self._kube._path(self._kind, self._namespace)
        timeout = aiohttp.ClientTimeout(sock_connect=10, sock_read=INACTIVITY_S)
        with network():
            response = await self._kube._session.send("GET", path, query=query, timeout=timeout)
        try:
            if response.status >= 400:
                raise refusal(response.status, await response.read())
            while True:
                with network():
                    line = await response.content.readline()
                if not line:
                    return
                try:
                    raw: Obj = json.loads(line)
                except ValueError:
                    raise ConnectionError("the watch broke off in the middle of an event") from None
                if raw["type"] != "ERROR":
                    raw["object"]["apiVersion"], raw["object"]["kind"] = self._kind.api_version, self._kind.kind
                yield raw
        finally:
            # A watch is left in the middle of its answer: no goodbye, which TLS would have us wait for.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()


def _selecting(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
