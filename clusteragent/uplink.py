"""The broker's API as the agent uses it: a small typed client, and the only module with a URL.

The agent dials out and the broker answers. Whether a call is worth repeating is decided in one place: what the network
spoiled is (``Unreachable``), what the broker refused is not (``Refused``). Repeating is left to the loops, which know
what has become stale meanwhile; a POST carries an Idempotency-Key of its own matter, so that a repeat changes nothing.

Trust in the broker comes from its CA: a file, or the pin at the end of the join token (``broker.kit.pins``). With a pin
alone the certificate chain is fetched once, its last certificate compared with the pin, and only then trusted.
"""

import asyncio
import hashlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
from pydantic import BaseModel, ValidationError

from broker.kit import pins
from broker.wire.agents import BurstPolicyReport, BurstPolicyStatuses, Desired, Heard, Join, Joined
from broker.wire.base import Problem
from broker.wire.leases import DesiredLease
from broker.wire.requests import CapacityRequest, RequestState, RequestView

Model = TypeVar("Model", bound=BaseModel)
JOSE = "application/jose"
UNFINISHED = (RequestState.OPEN, RequestState.PLACED, RequestState.ACTIVE)
SILENCE_S = 40
"""A stream that says nothing for so long, not even a comment, is dead."""
MAX_LINE = 8 * 1024 * 1024
"""Bytes in one line of a stream: a desired lease of 1,024 devices is about 400 kB."""


class Unreachable(Exception):
    """The broker could not be reached, or what answered is no broker. Worth another try."""


class Refused(Exception):
    """The broker said no; asking again the same way would not help."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Uplink(Protocol):
    """What the agent asks of a broker. All raise ``Unreachable`` or ``Refused``."""

    async def join(self, body: Join) -> Joined:
        """Introduce this cluster; the same keys and token get the same answer again."""
        ...

    def credential(self, secret: str) -> None:
        """Speak as this cluster from now on."""
        ...

    async def jwks(self) -> list[Mapping[str, Any]]:
        """The public keys that sign leases."""
        ...

    async def advert(self, jws: str) -> Heard: ...

    async def report(self, jws: str) -> Heard: ...

    async def desired(self) -> Desired:
        """Everything the broker wants of this cluster."""
        ...

    def desired_changes(self, after: int) -> AsyncIterator[DesiredLease]:
        """Changes since that revision, until the connection breaks (``Unreachable``) or the log ends (``Refused``)."""
        ...

    async def burst_policies(self, body: BurstPolicyReport) -> BurstPolicyStatuses: ...

    async def submit(self, body: CapacityRequest, *, key: str) -> RequestView:
        """Ask for capacity; the same key is the same request."""
        ...

    async def request(self, request_id: str) -> RequestView: ...

    async def requests(self) -> tuple[list[RequestView], int]:
        """This cluster's requests that have not ended, and the revision to watch from."""
        ...

    def request_changes(self, after: int) -> AsyncIterator[RequestView]:
        """Requests as they change; ends like ``desired_changes``."""
        ...

    async def cancel(self, request_id: str) -> None:
        """Take a request back; an active lease of it is returned."""
        ...

    async def return_lease(self, lease_id: str) -> None: ...

    async def close(self) -> None: ...


class HttpUplink:
    """An ``Uplink`` over HTTPS, with one kept session."""

    def __init__(self, url: str, *, ca_pem: str | None = None) -> None:
        """``ca_pem``: trust this CA and no other; None: the system's own."""
        self._url = url.rstrip("/")
        tls = ssl.create_default_context(cadata=ca_pem)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=32), timeout=aiohttp.ClientTimeout(total=30, connect=10)
        )

    def credential(self, secret: str) -> None:
        self._session.headers["Authorization"] = f"Bearer {secret}"

    async def join(self, body: Join) -> Joined:
        return await self._post(Joined, "/v1/join", body, key=join_key(body))

    async def jwks(self) -> list[Mapping[str, Any]]:
        found = await self._call("GET", "/.well-known/jwks.json")
        return list(found["keys"])

    async def advert(self, jws: str) -> Heard:
        return Heard.model_validate(await self._call("PUT", "/v1/agent/advert", data=jws, content_type=JOSE))

    async def report(self, jws: str) -> Heard:
        return Heard.model_validate(await self._call("PUT", "/v1/agent/report", data=jws, content_type=JOSE))

    async def desired(self) -> Desired:
        return Desired.model_validate(await self._call("GET", "/v1/agent/desired"))

    async def desired_changes(self, after: int) -> AsyncIterator[DesiredLease]:
        async for change in self._stream(DesiredLease, "/v1/agent/watch", after=after):
            yield change

    async def burst_policies(self, body: BurstPolicyReport) -> BurstPolicyStatuses:
        text = body.model_dump_json()
        return BurstPolicyStatuses.model_validate(await self._call("PUT", "/v1/agent/burst-policies", data=text))

    async def submit(self, body: CapacityRequest, *, key: str) -> RequestView:
        return await self._post(RequestView, "/v1/requests", body, key=key)

    async def request(self, request_id: str) -> RequestView:
        return RequestView.model_validate(await self._call("GET", f"/v1/requests/{quote(request_id, safe='')}"))

    async def requests(self) -> tuple[list[RequestView], int]:
        found: list[RequestView] = []
        revision: int | None = None
        for state in UNFINISHED:
            query = {"limit": "200", "state": state.value}
            while True:
                page = await self._call("GET", "/v1/requests", query=query)
                found += [RequestView.model_validate(item) for item in page["items"]]
                revision = page.get("revision") if revision is None else revision
                if not page.get("cursor"):
                    break
                query["cursor"] = page["cursor"]
        return found, revision or 0

    async def request_changes(self, after: int) -> AsyncIterator[RequestView]:
        async for change in self._stream(RequestView, "/v1/requests/watch", after=after):
            yield change

    async def cancel(self, request_id: str) -> None:
        await self._call("DELETE", f"/v1/requests/{quote(request_id, safe='')}")

    async def return_lease(self, lease_id: str) -> None:
        await self._call("POST", f"/v1/leases/{quote(lease_id, safe='')}/return", key=f"return-{lease_id}")

    async def close(self) -> None:
        await self._session.close()

    async def _post(self, model: type[Model], path: str, body: BaseModel, *, key: str) -> Model:
        text = body.model_dump_json(exclude_none=True)
        return model.model_validate(await self._call("POST", path, data=text, key=key))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        data: str | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Any:
        headers = {"Content-Type": content_type} if data is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            async with self._session.request(
                method, self._url + path, data=data, params=query, headers=headers, allow_redirects=False
            ) as answer:
                await self._check(answer)
                return json.loads(await answer.read() or b"null")
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, json.JSONDecodeError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}: {error}") from error

    async def _stream(self, model: type[Model], path: str, *, after: int | None = None) -> AsyncIterator[Model]:
        """Server-sent events (WHATWG HTML §9.2), each with an object of ``model`` as data; lines of any length."""
        query = {"after": str(after)} if after is not None else {}
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=SILENCE_S)
        headers = {"Accept": "text/event-stream"}
        try:
            async with self._session.get(
                self._url + path, params=query, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                await self._check(answer)
                async for kind, text in _events(answer.content):
                    if kind == "refused":
                        raise Refused(Problem.model_validate_json(text))
                    if kind in ("closing", "slow"):
                        raise Unreachable(f"GET {path}: the broker ended the stream: {kind}")
                    yield model.model_validate_json(text)
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            raise Unreachable(f"GET {path}: {type(error).__name__}: {error}") from error
        raise Unreachable(f"GET {path}: the broker ended the stream")

    async def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status < 300:
            return
        try:
            problem = Problem.model_validate_json(await answer.read())
        except ValidationError:
            raise Unreachable(f"{answer.method} answered {answer.status} and no problem document") from None
        if answer.status >= 500 or answer.status in (408, 429):
            raise Unreachable(problem.detail)
        raise Refused(problem)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str]]:
    """(type, data) of each event; comments are heartbeats and say nothing."""
    kind, data = "message", []
    async for line in _lines(content):
        if line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line:
            if data:
                yield kind, "\n".join(data)
            kind, data = "message", []


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE:
            raise aiohttp.ClientPayloadError("a line of the stream is longer than any message of ours")
        for line in lines:
            yield line.rstrip(b"\r").decode()


def join_key(body: Join) -> str:
    """The Idempotency-Key of a join: the same token and key are the same join, also after a crash in between."""
    return hashlib.sha256(f"{body.token}\n{body.signing_key.get('x')}".encode()).hexdigest()[:32]


async def pinned_ca(url: str, pin: str) -> str:
    """The CA (PEM) at the end of the chain that ``url`` shows, if ``pin`` names it; ``Refused`` when it doesn't.

    Nothing is said to the server here but hello: it is not trusted yet.
    """
    where = urlsplit(url)
    if where.scheme != "https" or where.hostname is None:
        raise Refused(
            _problem("bad-broker-url", f"{url} is not an https URL, so the join token's pin can't be checked")
        )
    try:
        chain = await asyncio.to_thread(_chain, where.hostname, where.port or 443)
    except OSError as error:
        raise Unreachable(f"{url}: {error}") from error
    if not chain or not pins.fits(pin, chain[-1]):
        raise Refused(_problem("wrong-broker", f"{url} is not the broker that the join token is for: its CA differs"))
    return ssl.DER_cert_to_PEM_cert(chain[-1])


def _chain(host: str, port: int) -> list[bytes]:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        tls.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        # Public from Python 3.13 on; before that the same method is on the object inside.
        shown = getattr(wrapped, "get_unverified_chain", None) or wrapped._sslobj.get_unverified_chain  # type: ignore[attr-defined]  # as said
        return [each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in shown()]


def _problem(kind: str, detail: str) -> Problem:
    return Problem(type=f"https://lendmesh.dev/problems/{kind}", title="Refused", status=400, detail=detail)
