"""Grants without HTTP: the same service, chores, signatures and statements, called instead of asked over a socket.

    python -m tests.bench.direct URL URL GRANTS CLIENTS NODES    # prints a `Load`, then seconds, a line each

The second database, fresh as well, hears the writer's statements again, with nothing around them: that took so many
seconds. A process of its own, so that what it is compared with has no more to carry than it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator

import uvloop

from broker.__main__ import SWITCH_S
from broker.chores import Chores
from broker.domain.access import Once, Principal
from broker.kit import logs
from broker.kit.jose import SigningKey
from broker.service.broker import Broker
from broker.store.engine import Store
from broker.store.migrate import migrate
from broker.wire.access import JoinTokenRequest
from broker.wire.agents import Join, Joined
from broker.wire.leases import DesiredLease
from broker.wire.requests import CapacityRequest
from optimizer.solve import warm
from tests.bench.asking import request_for
from tests.bench.load import Load, Waiting, closed_loop
from tests.bench.standin import Lender
from tests.bench.tape import Tape

TENANT = "research"
BORROWER = "a"
LENDERS = ("b", "c")


class Calls:
    """A cluster's way to the broker where there is no network."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._who: Principal | None = None

    @property
    def who(self) -> Principal:
        assert self._who is not None, "join first"
        return self._who

    async def join(self, body: Join) -> Joined:
        joined = await self._broker.join(body, _once())
        self._who = await self._broker.authenticate(joined.credential)
        return joined

    async def advert(self, jws: str) -> None:
        await self._broker.advert(self.who, jws)

    async def report(self, jws: str) -> None:
        await self._broker.report(self.who, jws)

    async def desired(self) -> AsyncIterator[DesiredLease]:
        known = await self._broker.desired(self.who)
        for lease in known.leases:
            yield lease
        async for change in self._broker.changes(self.who, "desired", known.revision):
            assert isinstance(change.object, DesiredLease)
            yield change.object


async def run(url: str, *, grants: int, clients: int, nodes: int) -> tuple[Load, Tape]:
    """On a fresh database; also what was said to it."""
    await asyncio.to_thread(migrate, url)
    store = await Store.open(url)
    tape = Tape(store._engine)  # no seam for the bench alone
    broker = Broker(store=store, keys=[SigningKey.generate()], issuer="https://127.0.0.1")
    await broker.start()
    try:
        async with Chores(broker).running():
            return await _load(broker, grants=grants, clients=clients, nodes=nodes), tape
    finally:
        await broker.stop()
        await store.close()


async def _load(broker: Broker, *, grants: int, clients: int, nodes: int) -> Load:
    token = await broker.first_token(name="bench", tenant=TENANT, lifetime_s=3_600)
    who = await broker.authenticate(token.secret)
    lenders = [Lender(name, Calls(broker), nodes=nodes) for name in LENDERS]
    for lender in (Lender(BORROWER, Calls(broker), nodes=0), *lenders):
        asked = JoinTokenRequest.model_validate({"cluster": lender.name, "tenant": TENANT})
        await lender.join((await broker.create_join_token(who, asked)).secret)
    waiting = Waiting()
    body = CapacityRequest.model_validate(request_for(8, cluster=BORROWER))

    async def follow() -> None:
        loop = asyncio.get_running_loop()
        async for change in broker.changes(who, "requests"):
            view = change.object
            waiting.hear(loop.time(), view.id, view.step, view.state)

    async def submit() -> str:
        return (await broker.submit(who, body, _once())).id

    tasks = [asyncio.create_task(follow()), *(asyncio.create_task(lender.lend()) for lender in lenders)]
    try:
        return Load.of(await closed_loop(submit, waiting, clients=clients, grants=grants), clients=clients)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _once() -> Once:
    return Once(key=secrets.token_hex(16), fingerprint="bench")


def main() -> None:
    url, other, grants, clients, nodes = sys.argv[1:]
    logs.configure(level="INFO", json=True)
    sys.setswitchinterval(SWITCH_S)  # as the broker's process does
    warm()
    load, tape = uvloop.run(run(url, grants=int(grants), clients=int(clients), nodes=int(nodes)))
    print(load.to_json())
    print(tape.say_again(other))


if __name__ == "__main__":
    main()
