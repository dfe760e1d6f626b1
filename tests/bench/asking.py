"""A user of the broker, as the bench plays it: asks over HTTPS with a token, and follows it on a stream.

Times are this client's own (`time.perf_counter`): what a user would see with a stopwatch, network and TLS included.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

Object = dict[str, Any]
STEPS = ("queued", "solving", "reserved", "held", "active", "mirrored", "ended")


class Refused(RuntimeError):
    """The broker said no; the text is its sentence."""


class Asker:
    """A session with a broker. Use it with `async with`."""

    def __init__(self, *, url: str, token: str, ca: Path, connections: int = 100) -> None:
        self._url, self._token, self._ca, self._connections = url, token, ca, connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        tls = ssl.create_default_context(cafile=self._ca)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=self._connections),
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=aiohttp.ClientTimeout(total=60),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use the asker with `async with`"
        return self._session

    async def get(self, path: str) -> Any:
        return await self._call("GET", path)

    async def post(self, path: str, body: Object | None = None) -> Any:
        return await self._call("POST", path, body)

    async def put(self, path: str, body: Object) -> Any:
        return await self._call("PUT", path, body)

    async def put_signed(self, path: str, jws: str) -> Any:
        """An agent's signed message."""
        return await self._call("PUT", path, signed=jws)

    async def _call(self, method: str, path: str, body: Object | None = None, *, signed: str | None = None) -> Any:
        headers = {"Idempotency-Key": secrets.token_hex(16)} if method == "POST" else {}
        data = signed
        if signed is not None:
            headers["Content-Type"] = "application/jose"
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body), "application/json"
        async with self.session.request(method, self._url + path, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Refused(f"{method} {path}: {answer.status}: {text[:400]}")
            return json.loads(text) if text else None

    def follow(self, path: str, hear: Callable[[float, Object], None]) -> Following:
        """Hand every object of a watch stream to `hear`, with the moment it arrived."""
        return Following(self, self._url + path, hear)


class Following:
    """A watch stream that is read in the background. Use it with `async with`: it is open when that begins."""

    def __init__(self, asker: Asker, url: str, hear: Callable[[float, Object], None]) -> None:
        self._asker, self._url, self._hear = asker, url, hear
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._why: BaseException | None = None

    async def __aenter__(self) -> Self:
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._read(opened))
        await opened
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, true: Callable[[], bool], *, within: float, what: str) -> None:
        """Wait until what was heard makes `true` so.

        :raises TimeoutError: it did not, within so many seconds.
        """
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(lambda: true() or self._task is None or self._task.done())
        except TimeoutError:
            raise TimeoutError(f"not heard within {within:.0f} s: {what}") from None
        if not true():
            raise RuntimeError(f"the stream ended before {what}") from self._why

    async def _read(self, opened: asyncio.Future[None]) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        try:
            async with self._asker.session.get(self._url, timeout=timeout) as answer:
                if answer.status != 200:
                    raise Refused(f"{self._url}: {answer.status}: {(await answer.text())[:400]}")
                rest = b""
                async for chunk in answer.content.iter_any():
                    now = time.perf_counter()
                    if not opened.done():
                        opened.set_result(None)  # its first words: it watches
                    *events, rest = (rest + chunk).split(b"\n\n")
                    for data in filter(None, map(_data, events)):
                        self._hear(now, json.loads(data))
                    if events:
                        async with self._changed:
                            self._changed.notify_all()
        except BaseException as error:
            self._why = error
            if not opened.done():
                opened.set_exception(error)
            raise
        finally:
            async with self._changed:
                self._changed.notify_all()


def _data(event: bytes) -> bytes | None:
    """The object in an event; None for a comment and for the stream's own last words."""
    lines = event.split(b"\n")
    if not any(line.startswith(b"id:") for line in lines):
        return None
    return next((line[5:] for line in lines if line.startswith(b"data:")), None)


class Progress:
    """How far each request has come, and when that was first heard."""

    def __init__(self) -> None:
        self.at: dict[str, dict[str, float]] = defaultdict(dict)
        """Request → step → when."""
        self.last: dict[str, Object] = {}
        """Request → as it was told last."""

    def hear(self, now: float, request: Object) -> None:
        self.last[request["id"]] = request
        self.at[request["id"]].setdefault(request["step"], now)

    def reached(self, request_id: str, step: str) -> bool:
        """It came to this step.

        :raises Refused: it never will.
        """
        if (told := self.last.get(request_id)) is not None and told["state"] in ("Refused", "Cancelled"):
            raise Refused(f"{request_id}: {told['message'] or told['reasons']}")
        return step in self.at.get(request_id, {})


def request_for(devices: int, *, cluster: str, duration: str = "1h", price_cap: str = "5.00") -> Object:
    """The body of a request as a user would write it, with a CEL selector as in a ResourceClaim."""
    selector = "device.attributes['gpu.nvidia.com'].productName.contains('H100')"
    return {
        "cluster": cluster,
        "devices": {"count": devices, "selector": selector, "same_node": True},
        "duration": duration,
        "price_cap": {"amount": price_cap},
    }
