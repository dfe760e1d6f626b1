"""Watch streams: server-sent events (HTML Living Standard, «Server-sent events») over a log that can be resumed.

Each event's ``id`` is the revision of the change; whoever comes back with it (``Last-Event-ID``, ``?after=``) gets
exactly what was missed. Since the log keeps everything, nothing is buffered for a slow watcher: the stream reads on
only when the watcher has. One that doesn't read at all for a while is told so in a last event and cut off. A watcher's
credential is looked at again with every heartbeat, and at once when something was revoked through this process.

Besides changes there is only the last event of a stream, without an id and with a problem document as its data:
``closing`` (come back in a moment), ``slow`` (you didn't read; come back with your last id) or ``refused`` (why is in
the document: log in again, or list again because the log doesn't reach back so far).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import web

from broker.domain.errors import Refusal, ShuttingDown
from broker.service.answers import Change
from broker.web.auth import Gate
from broker.web.problems import problem_of, unforeseen
from broker.web.refusals import TooSlowReader

REQUEST_ID = web.RequestKey("request_id", str)
RETRY_MS = 1_000
"""How long a browser waits before it comes back."""
TOGETHER = 64
"""Most changes that leave in one write: what comes at once goes at once, and no more is read than was taken."""
LAST_WORDS_S = 5
"""How long a slow watcher has to take the event that says so, before the connection is cut."""

_log = structlog.get_logger("broker.web.sse")


class Streams:
    """All open watch streams of this process."""

    def __init__(self, gate: Gate, *, heartbeat_s: float, patience_s: float) -> None:
        self._gate = gate
        self._heartbeat_s = heartbeat_s
        self._patience_s = patience_s
        self._nudges: set[asyncio.Event] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._nudges)

    def look_again(self) -> None:
        """Something was revoked: every stream checks its watcher's credential now."""
        for nudge in self._nudges:
            nudge.set()

    def close(self) -> None:
        """End all streams; they say so to their watchers, who come back elsewhere or later."""
        self._closing = True
        self.look_again()

    async def serve(
        self, request: web.Request, changes: AsyncIterator[Change], *, authorization: str | None
    ) -> web.StreamResponse:
        """One stream, until the watcher goes, is too slow, may no longer watch, or the broker ends."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        nudge = asyncio.Event()
        self._nudges.add(nudge)
        ahead = _Ahead(changes)
        try:
            await response.prepare(request)
            await asyncio.sleep(0)  # the changes know where they start before the watcher hears that it watches
            await self._send(response, f"retry: {RETRY_MS}\n: watching\n\n".encode())
            await self._carry(response, ahead, nudge, authorization)
        except ConnectionError:
            pass  # the watcher went; that is how most streams end
        except Exception as error:
            if not isinstance(error, Refusal):
                _log.exception("stream.failed", request_id=request.get(REQUEST_ID))
            await self._last_words(request, response, error)
        finally:
            self._nudges.discard(nudge)
            await ahead.close()
        return response

    async def _carry(
        self, response: web.StreamResponse, ahead: "_Ahead", nudge: asyncio.Event, authorization: str | None
    ) -> None:
        """Changes, and heartbeats between them; ends with an exception, or with the changes."""
        nudged = asyncio.ensure_future(nudge.wait())
        try:
            while not self._closing:
                either: set[asyncio.Future[Any]] = {ahead.some, nudged}
                await asyncio.wait(either, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
                if nudged.done():
                    nudge.clear()
                    nudged = asyncio.ensure_future(nudge.wait())
                    await self._gate.known(authorization)
                elif ahead.some.done():
                    if not (changes := ahead.take()):
                        return
                    events = [event(each.type, _json(each), revision=each.revision) for each in changes]
                    await self._send(response, b"".join(events))
                else:
                    await self._gate.known(authorization)
                    await self._send(response, b": still here\n\n")
            raise ShuttingDown
        finally:
            nudged.cancel()

    async def _send(self, response: web.StreamResponse, data: bytes) -> None:
        """Write, and wait until the watcher has room for more; ``TooSlowReader`` when that takes too long."""
        try:
            async with asyncio.timeout(self._patience_s):
                await response.write(data)
        except TimeoutError:
            raise TooSlowReader(self._patience_s) from None

    async def _last_words(self, request: web.Request, response: web.StreamResponse, cause: Exception) -> None:
        request_id = request.get(REQUEST_ID, "")
        name, problem = "refused", unforeseen(request_id=request_id)
        if isinstance(cause, Refusal):
            name = {ShuttingDown: "closing", TooSlowReader: "slow"}.get(type(cause), "refused")
            problem = problem_of(cause, request_id=request_id)
        with suppress(ConnectionError):
            try:
                async with asyncio.timeout(LAST_WORDS_S):
                    await response.write(event(name, problem.model_dump_json(exclude_defaults=True)))
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()


class _Ahead:
    """Changes, read a little ahead, so that those that come together leave together."""

    def __init__(self, changes: AsyncIterator[Change]) -> None:
        self._changes = changes
        self._read: list[Change] = []
        self._room = asyncio.Event()
        self.some: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when there is something to take."""
        self._reading = asyncio.ensure_future(self._follow())

    def take(self) -> list[Change]:
        """The changes that have come (none: there are no more); raises what the changes raised."""
        if not self._read:
            self._reading.result()
            return []
        taken, self._read = self._read, []
        self._room.set()
        if not self._reading.done():
            self.some = asyncio.get_running_loop().create_future()
        return taken

    async def close(self) -> None:
        """Ask no more."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        if isinstance(self._changes, AsyncGenerator):
            await self._changes.aclose()

    async def _follow(self) -> None:
        try:
            async for change in self._changes:
                self._read.append(change)
                self._tell()
                if len(self._read) >= TOGETHER:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._tell()

    def _tell(self) -> None:
        if not self.some.done():
            self.some.set_result(None)


def event(name: str, data: str, *, revision: int | None = None) -> bytes:
    """One event; ``data`` is JSON on one line."""
    number = "" if revision is None else f"id: {revision}\n"
    return f"{number}event: {name}\ndata: {data}\n\n".encode()


def _json(change: Change) -> str:
    text: str = change.object.model_dump_json()
    return text
