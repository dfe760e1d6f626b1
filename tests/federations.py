"""The demo's federation as a process of its own, so that tests can run the command as a user would: from outside.

`python -m tests.federations` serves until its stdin is closed; its first line says how to reach the broker.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from broker.kit import logs
from clusteragent.kube.interface import LENDING_POLICIES
from lendmesh.context import Context
from lendmesh.demo.clusters import lending_policy, members, simulate
from lendmesh.demo.federation import running
from tests.e2e.world import ROOT


@contextmanager
def demo_federation() -> Iterator[Context]:
    """A broker with the demo's three simulated clusters; how to reach it as its administrator."""
    argv = [sys.executable, "-m", "tests.federations"]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdin is not None
        assert serving.stdout is not None
        try:
            yield Context(**json.loads(serving.stdout.readline()))
        finally:
            serving.stdin.close()
            serving.wait(60)


async def _serve() -> None:
    kubes, tenants = {}, {}
    for part in members():
        cluster = simulate(part)
        cluster.put(LENDING_POLICIES, lending_policy(part))
        kubes[part.name], tenants[part.name] = cluster.connect(), part.tenant
    async with running(kubes, tenants=tenants, lenders=tenants, port=0) as federation:
        print(json.dumps(asdict(federation.context)), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    logs.configure(level="ERROR")
    asyncio.run(_serve())
