"""The broker's REST API as the command uses it: a thin, typed client.

Refusals arrive as RFC 9457 problems and leave as ``Refused``, whose text is the broker's sentence. POSTs carry an
Idempotency-Key and are repeated with the same key when the network fails, so that nothing happens twice.
"""

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from broker.wire.base import Problem
from lendmesh.context import Context

Model = TypeVar("Model", bound=BaseModel)
TRIES = 3
"""How often a call is tried when the network, not the broker, says no."""


class Refused(Exception):
    """The broker said no, and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class BadCA(Exception):
    """The CA file can't be used; the text says why."""


class Unreachable(Exception):
    """The broker could not be reached, or didn't speak like one."""


class Client:
    """A session with one broker; use it with ``async with``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        try:
            tls = ssl.create_default_context(cafile=self._context.ca)
        except OSError as error:
            raise BadCA(f"the CA file {self._context.ca} can't be used: {error.strerror or error}") from error
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            headers={"Authorization": f"Bearer {self._context.token}"},
            timeout=aiohttp.ClientTimeout(total=60, connect=10),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(
        self, method: str, path: str, *, body: BaseModel | None = None, query: Mapping[str, str] | None = None
    ) -> Any:
        """The answer as JSON (None when there is no body)."""
        headers = {"Idempotency-Key": secrets.token_hex(16)} if method == "POST" else {}
        data = body.model_dump_json(exclude_unset=True) if body is not None else None
        if data is not None:
            headers["Content-Type"] = "application/json"
        for attempt in range(1, TRIES + 1):
            try:
                return await self._once(method, path, data, query, headers)
            except (aiohttp.ClientConnectionError, TimeoutError) as error:
                if attempt == TRIES or isinstance(error, aiohttp.ClientConnectorCertificateError):
                    raise Unreachable(self._explain(error)) from error
                await asyncio.sleep(0.2 * attempt)
        raise AssertionError("unreachable")

    async def get(self, model: type[Model], path: str) -> Model:
        return model.model_validate(await self.call("GET", path))

    async def post(self, model: type[Model], path: str, body: BaseModel | None = None) -> Model:
        return model.model_validate(await self.call("POST", path, body=body))

    async def put(self, model: type[Model], path: str, body: BaseModel) -> Model:
        return model.model_validate(await self.call("PUT", path, body=body))

    async def every(self, model: type[Model], path: str, wanted: Mapping[str, str] | None = None) -> list[Model]:
        """All items of a list, page after page; ``wanted`` is its filter."""
        items: list[Model] = []
        query = dict(wanted or {})
        while True:
            page = await self.call("GET", path, query=query)
            items += [model.model_validate(item) for item in page["items"]]
            if not page.get("cursor"):
                return items
            query["cursor"] = page["cursor"]

    async def watch(
        self, model: type[Model], path: str, *, after: int | None = None
    ) -> AsyncIterator[tuple[str, Model]]:
        """Changes as they happen: (type, object), resumed after every interruption."""
        last = str(after) if after is not None else None
        while True:
            headers = {"Accept": "text/event-stream"}
            if last is not None:
                headers["Last-Event-ID"] = last
            try:
                async with self._open.get(
                    self._context.url + path, headers=headers, timeout=aiohttp.ClientTimeout(sock_read=40)
                ) as answer:
                    if answer.status != 200:
                        raise await self._refusal(answer)
                    kind, data = "message", ""
                    async for raw in answer.content:
                        line = raw.decode().rstrip("\r\n")
                        if line.startswith("id:"):
                            last = line[3:].strip()
                        elif line.startswith("event:"):
                            kind = line[6:].strip()
                        elif line.startswith("data:"):
                            data += line[5:].strip()
                        elif not line:
                            if data and (change := _object(model, data)) is not None:
                                yield kind, change
                            kind, data = "message", ""
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.5)

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client with `async with`")
        return self._session

    async def _once(
        self, method: str, path: str, data: str | None, query: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Any:
        async with self._open.request(
            method, self._context.url + path, data=data, params=query, headers=headers
        ) as answer:
            if answer.status >= 400:
                raise await self._refusal(answer)
            if answer.status == 204:
                return None
            return await answer.json()

    async def _refusal(self, answer: aiohttp.ClientResponse) -> Exception:
        try:
            return Refused(Problem.model_validate_json(await answer.read()))
        except ValidationError:
            return Unreachable(
                f"{self._context.url} answered {answer.status} without a problem document; is it a Lendmesh broker?"
            )

    def _explain(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return (
                f"{self._context.url} shows a certificate that is not trusted; give the broker's CA with --ca "
                f"(its data directory has it as ca.pem): {error.certificate_error}"
            )
        return f"the broker at {self._context.url} can't be reached: {error}. Is it running, and is the URL right?"


def _object(model: type[Model], data: str) -> Model | None:
    try:
        return model.model_validate(json.loads(data))
    except (ValueError, ValidationError):
        return None
