"""A session with an API server: who we are, TLS, one call and its answer, in plain JSON.

The only module that knows kubernetes_asyncio. It lends us what is tedious and well worn: reading a kubeconfig, the
in-cluster token that is read again as it rotates, TLS. Its models are left aside: an agent handles thousands of objects
and reads a few fields of each, so bytes become dictionaries and nothing else.

Refusals become ``KubeError``s, and all network trouble is an ``OSError``, so that nobody above needs to know aiohttp.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import yaml
from kubernetes_asyncio import config as kubeconfig
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.client.rest import RESTClientObject

from clusteragent.kube.foreign import only_data
from clusteragent.kube.interface import Obj
from clusteragent.kube.refusals import refusal

CALL_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
"""The API server itself gives up on a call after 60 s."""

TRIES_WHEN_BUSY = 5
LONGEST_RETRY_AFTER_S = 10.0


class NoWayIn(Exception):
    """There is no usable configuration for a cluster; the text says what is wrong with it."""


@contextmanager
def network() -> Iterator[None]:
    """Whatever breaks on the way to the API server, inside, is an ``OSError`` outside."""
    try:
        yield
    except aiohttp.ClientError as trouble:
        if isinstance(trouble, OSError):
            raise
        raise ConnectionError(f"{type(trouble).__name__}: {trouble}") from trouble


class Session:
    """One kept session. Make it with a class method, inside a running event loop; close it at the end."""

    def __init__(
        self, configuration: Configuration, *, reload: Callable[[], Awaitable[Configuration]] | None = None
    ) -> None:
        configuration.disable_strict_ssl_verification = True  # kubectl isn't strict about extensions of CAs either
        self._configuration = configuration
        self._reload = reload
        self._rest = RESTClientObject(configuration)
        self.server = str(configuration.host)
        self.ca_pem = Path(configuration.ssl_ca_cert).read_text() if configuration.ssl_ca_cert else ""

    @classmethod
    async def from_kubeconfig(cls, path: Path | str | None = None, *, context: str | None = None) -> "Session":
        """The local user's own kubeconfig (default: as kubectl finds it), with whatever plugin it names to log in.

        Raises ``NoWayIn``.
        """

        async def load() -> Configuration:
            configuration = Configuration()
            try:
                await kubeconfig.load_kube_config(
                    config_file=str(path) if path else None,
                    context=context,
                    client_configuration=configuration,
                    persist_config=False,
                )
            except (kubeconfig.ConfigException, OSError, AttributeError, AssertionError, yaml.YAMLError) as trouble:
                raise NoWayIn(f"cannot use the kubeconfig {path or 'of this user'}: {trouble}") from trouble
            return configuration

        return cls(await load(), reload=load)

    @classmethod
    async def from_text(cls, text: str) -> "Session":
        """A kubeconfig that came from somewhere else, such as a lender: it may name no program, no file and no proxy.

        Raises ``NoWayIn``.
        """
        try:
            parsed = yaml.safe_load(text)
            only_data(parsed)
            configuration = Configuration()
            await kubeconfig.load_kube_config_from_dict(parsed, client_configuration=configuration)
        except (kubeconfig.ConfigException, OSError, AssertionError, TypeError, ValueError, yaml.YAMLError) as trouble:
            raise NoWayIn(f"cannot use this kubeconfig: {trouble}") from trouble
        return cls(configuration)

    @classmethod
    async def in_cluster(cls) -> "Session":
        """The cluster this process runs in, as its service account; the token is read again as it rotates.

        Raises ``NoWayIn``.
        """
        configuration = Configuration()
        try:
            kubeconfig.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # theirs
        except (kubeconfig.ConfigException, OSError) as trouble:
            raise NoWayIn(f"this process does not run in a cluster: {trouble}") from trouble
        return cls(configuration)

    async def close(self) -> None:
        await self._rest.close()
        await asyncio.sleep(0)  # aborted connections are gone with the loop's next turn

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Obj | None = None,
        content_type: str = "application/json",
    ) -> Obj:
        """One call and its answer; waits and asks again where the server says it is busy (429: it did nothing)."""
        for further_tries in reversed(range(TRIES_WHEN_BUSY)):
            with network():
                response = await self.send(method, path, query=query, body=body, content_type=content_type)
                async with response:
                    answer = await response.read()
            if response.status < 400:
                told: Obj = json.loads(answer)
                if "apiVersion" in told and told["apiVersion"].startswith("resource.k8s.io/"):
                    told["apiVersion"] = "resource.k8s.io/v1"
                return told
            if response.status == 429 and further_tries:
                await asyncio.sleep(_retry_after(response))
                continue
            break
        raise refusal(response.status, answer)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Obj | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout = CALL_TIMEOUT,
    ) -> aiohttp.ClientResponse:
        """The response, its body unread. A credential that has run out is fetched anew, once."""
        response = await self._send_once(method, path, query, body, content_type, timeout)
        if response.status == 401 and self._reload is not None:
            response.release()
            self._configuration.api_key.update((await self._reload()).api_key)
            response = await self._send_once(method, path, query, body, content_type, timeout)
        return response

    async def _send_once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Obj | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "lendmesh-agent"}
        if token := await self._configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token.strip()
        response: aiohttp.ClientResponse = await self._rest.request(
            method,
            self.server + path,
            query_params=dict(query or {}),
            headers=headers,
            body=body,
            _preload_content=False,  # with it, bodies (tokens among them) would go to the library's debug log
            _request_timeout=timeout,
        )
        return response


def _retry_after(response: aiohttp.ClientResponse) -> float:
    told = response.headers.get("Retry-After", "")
    return min(LONGEST_RETRY_AFTER_S, float(told) if told.isdigit() else 1.0) * random.uniform(0.8, 1.2)  # noqa: S311
