"""A web room for tests with nothing behind it but a log in memory: enough to see how HTTP is met."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from aiohttp import ClientSession, web

from broker.domain.access import Principal
from broker.domain.errors import TooOld, Unauthenticated
from broker.service.answers import Change, Page
from broker.service.broker import Broker
from broker.settings import Settings
from broker.web import malformed
from broker.web.metrics import Metrics
from broker.web.routing import SERVER
from broker.web.site import make_site, open_site
from broker.wire.access import Me
from broker.wire.requests import CapacityRequest


class Shelf(Broker):
    """Answers what it is told to, and keeps a log that watches read."""

    def __init__(self) -> None:
        self.people = {
            "lmt_reader": Principal(subject="token:reader", tenant="blue", scopes=frozenset({"read", "request"})),
            "lmt_admin": Principal(subject="token:admin", tenant="red", scopes=frozenset({"admin"})),
        }
        self.asked = 0
        self.posted: list[CapacityRequest] = []
        self.failure: Exception | None = None
        self.log: list[Change] = []
        self.oldest = 0
        self.grown = asyncio.Condition()
        self.watchers = 0
        self.left = asyncio.Event()

    async def authenticate(self, secret):
        self.asked += 1
        if secret not in self.people:
            raise Unauthenticated
        return self.people[secret]

    async def ready(self):
        return None

    def jwks(self):
        return {"keys": []}

    async def me(self, p):
        return Me(subject=p.subject, tenant=p.tenant, scopes=sorted(p.scopes))

    async def offers(self, p, **_):
        if self.failure is not None:
            raise self.failure
        return Page(items=[])

    async def offer(self, p, offer_id):
        raise AssertionError(f"nobody asks for {offer_id}")

    async def quote(self, p, body):
        self.posted.append(body)
        raise self.failure or AssertionError("nothing to answer with")

    async def submit(self, p, body, once=None):
        return await self.quote(p, body)

    async def revoke_token(self, p, token_id):
        del self.people[token_id.replace("-", "_")]
        return Me(subject="", tenant="", scopes=[])

    async def write(self, *changes: Change) -> None:
        async with self.grown:
            self.log += changes
            self.grown.notify_all()

    async def changes(self, p, kind, after=None):
        seen = after if after is not None else (self.log[-1].revision if self.log else 0)
        if seen < self.oldest:
            raise TooOld(seen, self.oldest)
        self.watchers += 1
        try:
            while True:
                async with self.grown:
                    while not (news := [change for change in self.log if change.revision > seen]):
                        await self.grown.wait()
                for change in news:
                    yield change
                    seen = change.revision
        finally:
            self.watchers -= 1
            self.left.set()


@asynccontextmanager
async def room(shelf: Broker, **settings: object) -> AsyncIterator[tuple[ClientSession, web.Application]]:
    """The room on a loopback port, and a session whose relative URLs lead there."""
    chosen = Settings.model_construct(**{**Settings().__dict__, **settings})
    numbers = count(1)
    metrics = Metrics()
    app = make_site(metrics=metrics, settings=chosen, new_id=lambda prefix: f"{prefix}-{next(numbers):04}")

    async def house(app):
        async for _ in open_site(app, broker=shelf, metrics=metrics, settings=chosen):
            yield

    app.cleanup_ctx.append(house)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, logger=malformed.LOGGER)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = site._server.sockets[0].getsockname()[:2]
        async with ClientSession(f"http://{host}:{port}") as session:
            yield session, app
    finally:
        await runner.cleanup()


def streams_of(app: web.Application):
    return app[SERVER].streams


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


class Events:
    """A client of a watch: events as they come, comments aside."""

    def __init__(self, answer) -> None:
        self._answer = answer

    async def next(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while True:
            line = (await self._answer.content.readline()).decode()
            if not line:
                raise EOFError
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and "event" in found:
                return found
            if name in ("id", "event", "data"):
                found[name] = value

    async def comment(self) -> str:
        while True:
            line = (await self._answer.content.readline()).decode()
            if not line:
                raise EOFError
            if line.startswith(":"):
                return line[1:].strip()
