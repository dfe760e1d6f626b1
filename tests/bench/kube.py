"""Calls to an API server, raw and many at once, so that the bench's client is never what is measured.

As the administrator, whom the API server's fair queuing lets through at once. Requests in parallel over as many
connections; a watch that hands over each object with the moment it arrived.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.controlplane.cluster import Cluster

Object = dict[str, Any]
PARALLEL = 64
MERGE = "application/merge-patch+json"


class Kube:
    """One API server. Made by `kube_of`."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session, self._server = session, server

    async def create(self, path: str, body: Object) -> Object:
        return await self._call("POST", path, body)

    async def merge(self, path: str, patch: Object) -> Object:
        """A JSON merge patch (RFC 7396)."""
        return await self._call("PATCH", path, patch, content_type=MERGE)

    async def delete(self, path: str) -> None:
        await self._call("DELETE", path)

    async def list(self, path: str) -> Object:
        return await self._call("GET", path)

    async def watch(self, path: str, *, since: str) -> AsyncIterator[tuple[float, str, Object]]:
        """(when it arrived, by `time.perf_counter`; type; object), until the connection ends."""
        query = {"watch": "1", "resourceVersion": since}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(self._server + path, params=query, timeout=timeout) as answer:
            answer.raise_for_status()
            rest = b""
            async for chunk in answer.content.iter_any():
                now = time.perf_counter()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield now, event["type"], event["object"]

    async def _call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(method, self._server + path, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status}: {text[:300]}")
            found: Object = json.loads(text)
            return found


@asynccontextmanager
async def kube_of(cluster: Cluster) -> AsyncIterator[Kube]:
    """A client of this cluster's API server, as its administrator."""
    connector = aiohttp.TCPConnector(ssl=_tls(cluster.kubeconfig), limit=PARALLEL)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Kube(session, cluster.server)


class Seen:
    """A watch in the background that remembers what was first true when."""

    def __init__(self, kube: Kube, path: str, *, key: Callable[[str, Object], str | None]) -> None:
        """`key`: from an event's type and object, the name of what is now true; None: nothing of interest."""
        self._kube, self._path, self._key = kube, path, key
        self.at: dict[str, float] = {}
        """When each name was first told, by `time.perf_counter`."""
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._why: BaseException | None = None

    async def __aenter__(self) -> Seen:
        since = (await self._kube.list(self._path))["metadata"]["resourceVersion"]
        self._task = asyncio.create_task(self._read(since))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def count(self, wanted: int, *, within: float) -> None:
        """Wait until so many names were told. :raises TimeoutError: they were not, within so many seconds."""
        await self._until(lambda: len(self.at) >= wanted, within)

    async def name(self, name: str, *, within: float) -> float:
        """Wait for one name; when it was told."""
        await self._until(lambda: name in self.at, within)
        return self.at[name]

    async def _until(self, enough: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(lambda: enough() or self._ended())
        if not enough():
            raise RuntimeError(f"the watch of {self._path} ended") from self._why

    def _ended(self) -> bool:
        return self._task is None or self._task.done()

    async def _read(self, since: str) -> None:
        try:
            while True:  # an API server may end any watch at any time; it goes on where it was
                async for at, type_, obj in self._kube.watch(self._path, since=since):
                    if type_ == "ERROR":
                        raise RuntimeError(f"the watch of {self._path}: {obj.get('message')}")
                    since = obj["metadata"]["resourceVersion"]
                    name = self._key(type_, obj)
                    if name is not None and name not in self.at:
                        async with self._changed:
                            self.at[name] = at
                            self._changed.notify_all()
        except BaseException as error:
            self._why = error
            raise
        finally:
            async with self._changed:
                self._changed.notify_all()


def _tls(kubeconfig: Path) -> ssl.SSLContext:
    """From the first cluster and user of a kubeconfig whose certificates stand in it."""
    kept = yaml.safe_load(kubeconfig.read_text())
    cluster, user = kept["clusters"][0]["cluster"], kept["users"][0]["user"]
    tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(base64.b64decode(user["client-certificate-data"]))
        pair.write(base64.b64decode(user["client-key-data"]))
        pair.flush()
        tls.load_cert_chain(pair.name)
    return tls
