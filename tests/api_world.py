"""A whole broker on real HTTPS, and callers for it: an administrator, people with tokens, agents that sign."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from broker.app import Running, running
from broker.kit.jose import ADVERT, REPORT, SealingKey, SigningKey
from broker.settings import Settings

_keys = count(1)

H100 = "NVIDIA H100 80GB HBM3"


@dataclass
class Answer:
    """What came back, read whole."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def is_problem(self, status: int, name: str | None = None) -> bool:
        """Whether it is a problem document with this status (and, if given, of this type)."""
        if self.headers["Content-Type"].partition(";")[0] != "application/problem+json":
            return False
        found = self.json
        return (
            self.status == found["status"] == status
            and found["instance"] == self.headers["X-Request-Id"]
            and (name is None or found["type"].endswith("/" + name))
        )


@dataclass
class Caller:
    """Somebody with a credential."""

    session: aiohttp.ClientSession
    url: str
    secret: str | None

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call; a POST gets a new Idempotency-Key unless one is given."""
        async with self.open(method, path, body, key=key, headers=headers) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The same, unread: for streams."""
        sent = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        if method == "POST":
            sent["Idempotency-Key"] = key or f"test-{next(_keys)}"
        data = body
        if isinstance(body, dict | list):
            data = json.dumps(body)
            sent["Content-Type"] = "application/json"
        elif method in ("POST", "PUT"):
            sent["Content-Type"] = "application/json" if body is None else "application/jose"
        return self.session.request(method, self.url + path, data=data, headers={**sent, **(headers or {})})

    async def get(self, path: str) -> Any:
        answer = await self.call("GET", path)
        assert answer.status == 200, answer.text
        return answer.json

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        answer = await self.call("POST", path, body, key=key)
        assert answer.status in (200, 201), answer.text
        return answer.json


@dataclass
class Agent(Caller):
    """A cluster's agent: it can sign."""

    name: str = ""
    signing: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)
    sequences: Any = field(default_factory=lambda: count(1))

    def advert(
        self,
        devices: int,
        *,
        price: str = "2.00",
        cluster: str | None = None,
        terms: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """A signed advert of one offer of ``devices`` H100s, eight a node."""
        now = datetime.now(UTC)
        offer = {
            "name": "h100",
            "policy": "idle",
            "kind": {
                "driver": "gpu.nvidia.com",
                "model": H100,
                "attributes": {"productName": {"string": H100}},
            },
            "price": {"amount": price},
            "terms": terms or {"max_duration": "24h"},
            "place": {"region": "eu-north"},
            "devices": [
                {
                    "driver": "gpu.nvidia.com",
                    "pool": f"node-{n // 8}",
                    "name": f"gpu-{n % 8}",
                    "node": f"node-{n // 8}",
                }
                for n in range(devices)
            ],
        }
        return self.signed(
            {
                "cluster": cluster or self.name,
                "sequence": next(self.sequences),
                "sent_at": now.isoformat(),
                "valid_until": (now + timedelta(seconds=60)).isoformat(),
                "offers": [offer] if devices else [],
                **more,
            },
            typ=ADVERT,
        )

    def report(self, *leases: Mapping[str, Any], **more: Any) -> str:
        """A signed report."""
        return self.signed(
            {
                "cluster": self.name,
                "sequence": next(self.sequences),
                "sent_at": datetime.now(UTC).isoformat(),
                "leases": list(leases),
                **more,
            },
            typ=REPORT,
        )

    def signed(self, message: Mapping[str, Any], *, typ: str) -> str:
        return self.signing.sign(json.dumps(message).encode(), typ=typ)

    async def says(self, path: str, jws: str) -> Any:
        answer = await self.call("PUT", path, jws)
        assert answer.status == 200, answer.text
        return answer.json

    async def is_ready(self) -> None:
        """The first report after joining: nothing is held here, so it may lend."""
        await self.says("/v1/agent/report", self.report(resync=True))


@dataclass
class World:
    """A broker and who calls it."""

    running: Running
    session: aiohttp.ClientSession
    admin: Caller

    def nobody(self) -> Caller:
        return Caller(self.session, self.running.url, None)

    async def person(self, tenant: str, *scopes: str) -> Caller:
        """Somebody with a token of ``tenant``."""
        made = await self.admin.post("/v1/tokens", {"name": "p", "tenant": tenant, "scopes": list(scopes)})
        return Caller(self.session, self.running.url, made["secret"])

    async def agent(self, cluster: str, *, tenant: str) -> Agent:
        """The agent of a cluster that has just joined."""
        token = await self.admin.post("/v1/join-tokens", {"cluster": cluster, "tenant": tenant})
        agent = Agent(self.session, self.running.url, None, name=cluster)
        joined = await agent.post(
            "/v1/join",
            {
                "token": token["secret"],
                "cluster": cluster,
                "signing_key": agent.signing.public_jwk(),
                "sealing_key": agent.sealing.public_jwk(),
            },
        )
        agent.secret = joined["credential"]
        return agent


def settings(directory: Path, **more: Any) -> Settings:
    return Settings(data_dir=directory, port=0, **more)


@asynccontextmanager
async def world(chosen: Settings) -> AsyncIterator[World]:
    """A broker that serves, and an administrator."""
    async with running(chosen) as broker:
        trust = ssl.create_default_context(cafile=broker.ca)
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield World(broker, session, Caller(session, broker.url, broker.admin_token))
