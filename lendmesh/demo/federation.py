"""A whole federation in one process: a broker on its embedded default, and an agent for every cluster.

Nothing is short-circuited: agents join with one-use tokens and speak HTTPS with the broker as they would from afar.
"""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from broker import app as broker_app
from broker.settings import read_settings
from broker.wire.access import JoinTokenCreated, JoinTokenRequest
from broker.wire.agents import ClusterView
from clusteragent.agent import Agent
from clusteragent.kube.interface import Kube
from clusteragent.settings import Settings as AgentSettings
from lendmesh.client import Client
from lendmesh.context import Context

PATIENCE_S = 60
SKEW_S = 1
"""All clocks of the demo are one clock, so the bound on their difference can be small and expiry quick to see."""


class NotReady(Exception):
    """A cluster did not join, or its agent died; the text says which and why."""


@dataclass
class Federation:
    """What the tour walks through."""

    directory: Path
    """Of everything it keeps; it goes with it."""
    context: Context
    broker: Client
    kubes: Mapping[str, Kube]
    agents: dict[str, Agent] = field(default_factory=dict)

    def check(self) -> None:
        """Raise what killed an agent, if one died."""
        for name, agent in self.agents.items():
            if agent.failed is not None:
                raise NotReady(f"the agent of {name} died: {agent.failed}") from agent.failed


@asynccontextmanager
async def running(
    kubes: Mapping[str, Kube],
    *,
    tenants: Mapping[str, str],
    lenders: Collection[str],
    port: int,
    identities: bool = False,
    agent: Mapping[str, Any] | None = None,
) -> AsyncIterator[Federation]:
    """A broker and an agent for each of ``kubes``; everything ends, and is removed, on leaving.

    Where somebody has ``port`` already, any free one is taken.

    ``lenders`` are waited for until they offer something. ``identities``: keep the agents' identities in files of the
    demo rather than in the clusters (for real clusters, whose chart need not be installed). ``agent``: further settings
    of every agent.
    """
    directory = Path(tempfile.mkdtemp(prefix="lendmesh-demo-"))
    try:
        async with AsyncExitStack() as stack:
            chosen = {
                "data_dir": directory / "broker",
                "port": port if _is_free(port) else 0,
                "skew": f"{SKEW_S}s",
                "quarantine": "1s",
            }
            settings = read_settings(arguments=chosen, environment={})
            broker = await stack.enter_async_context(broker_app.running(settings))
            token = directory / "broker" / broker_app.ADMIN_TOKEN
            context = Context(broker.url, token.read_text().strip(), str(broker.ca) if broker.ca else None)
            client = await stack.enter_async_context(Client(context))
            federation = Federation(directory=directory, context=context, broker=client, kubes=kubes)
            for name, kube in kubes.items():
                secret = await client.post(
                    JoinTokenCreated, "/v1/join-tokens", JoinTokenRequest(cluster=name, tenant=tenants[name])
                )
                chosen = {
                    "cluster": name,
                    "broker_url": broker.url,
                    "broker_ca_file": broker.ca,
                    "join_token": SecretStr(secret.secret),
                    "identity_file": directory / f"{name}.identity" if identities else None,
                    "skew": SKEW_S,
                    "drain": 5,
                    "cooldown": 0.1,
                    **(agent or {}),
                }
                member = Agent(AgentSettings.model_validate(chosen), kube)
                await member.start()
                stack.push_async_callback(member.stop)
                federation.agents[name] = member
            await _all_ready(federation, lenders)
            yield federation
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def _all_ready(federation: Federation, lenders: Collection[str]) -> None:
    """Until every cluster is Ready, and whoever lends has offers. Raises ``NotReady``."""
    late: list[str] = list(federation.kubes)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while late:
                federation.check()
                views = {view.name: view for view in await federation.broker.every(ClusterView, "/v1/clusters")}
                late = [
                    name
                    for name in federation.kubes
                    if name not in views or views[name].state != "Ready" or (name in lenders and not views[name].offers)
                ]
                if late:
                    await asyncio.sleep(0.02)
    except TimeoutError:
        raise NotReady(f"not ready within {PATIENCE_S} s: {', '.join(late)}") from None
