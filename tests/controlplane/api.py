"""A few calls to a cluster's API server, for the harness and for tests that want to look at it from outside.

Deliberately small and synchronous, and not the client the agent uses: a test that asks through the code under test
proves nothing.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

Object = dict[str, Any]
T = TypeVar("T")

POLL_S = 0.05
IDLE_S = 60.0
"""The API server closes a connection that was idle for 90 s; one that may be closed is not used again."""


class ApiError(RuntimeError):
    """The API server refused; the text is its own message.

    :ivar status: the HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """JSON over TLS to one API server, as one client. Safe to use from several threads."""

    def __init__(self, server: str, *, tls: ssl.SSLContext, token: str | None = None) -> None:
        self.server = server
        self._tls = tls
        self._token = token
        self._idle: list[tuple[float, http.client.HTTPSConnection]] = []
        self._turn = threading.Lock()

    def get(self, path: str, **query: str) -> Object:
        return self.call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def list(self, path: str, **query: str) -> list[Object]:
        return list(self.get(path, **query).get("items") or [])

    def find(self, path: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, body: Object) -> Object:
        return self.call("POST", path, body)

    def replace(self, path: str, body: Object) -> Object:
        return self.call("PUT", path, body)

    def patch(self, path: str, body: Object) -> Object:
        """A JSON merge patch (RFC 7396)."""
        return self.call("PATCH", path, body, content_type="application/merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete; what is not there is as good as deleted."""
        try:
            self.call("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise

    def text(self, path: str) -> str:
        """The body of a path that does not answer in JSON, such as /readyz."""
        return self._exchange("GET", path, None, "application/json").decode()

    def call(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        """:raises ApiError: the server refused. :raises OSError: it does not answer."""
        answer = self._exchange(method, path, None if body is None else json.dumps(body).encode(), content_type)
        told: Object = json.loads(answer)
        return told

    def close(self) -> None:
        with self._turn:
            for _, connection in self._idle:
                connection.close()
            self._idle.clear()

    def _exchange(self, method: str, path: str, body: bytes | None, content_type: str) -> bytes:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        with self._connection() as connection:
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                answer = response.read()
            except BaseException as error:
                connection.close()
                if isinstance(error, http.client.HTTPException):
                    raise ConnectionError(f"{self.server} broke off: {type(error).__name__}") from error
                raise
        if response.status >= 400:
            raise ApiError(response.status, _message(answer))
        return answer

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPSConnection]:
        with self._turn:
            since, connection = self._idle.pop() if self._idle else (0.0, None)
        if connection is not None and time.monotonic() - since > IDLE_S:
            # It opens again by itself.
            connection.close()
        if connection is None:
            host = urlsplit(self.server)
            connection = http.client.HTTPSConnection(host.hostname or "", host.port, timeout=30, context=self._tls)
        try:
            yield connection
        finally:
            with self._turn:
                self._idle.append((time.monotonic(), connection))


def until(look: Callable[[], T], *, what: str, within: float = 30.0, also: Callable[[], None] | None = None) -> T:
    """Look until there is something truthy to see, and return it.

    :param what: what is awaited, for the message.
    :param within: seconds; a bound against waiting forever, never a promise about speed.
    :param also: called between looks; may raise to end the wait early.
    :raises TimeoutError: it did not come.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            if seen := look():
                return seen
            last = seen
        except (OSError, ApiError) as error:
            last = error
        if also is not None:
            also()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {within:g} s; last seen: {last!r}")
        time.sleep(POLL_S)


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace")[:300]
