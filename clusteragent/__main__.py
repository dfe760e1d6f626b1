"""The agent as a process: settings from the environment, one cluster, until it is told to end.

``python -m clusteragent`` is what the image runs. It ends with 0 when it was asked to (SIGTERM, SIGINT), with 1 when it
died, and with 2 when its settings make no sense.
"""

import asyncio
import os
import signal
import sys
from typing import Any

import structlog
from pydantic import ValidationError

from broker.kit import logs, memory
from clusteragent.agent import Agent
from clusteragent.identity import NoIdentity
from clusteragent.kube.real import NoWayIn, RealKube
from clusteragent.settings import PREFIX, Settings
from clusteragent.uplink import Refused

log = structlog.get_logger("agent")


async def serve(settings: Settings) -> None:
    """Run one agent until SIGTERM or SIGINT; raises what killed it, ``NoWayIn``, ``NoIdentity`` or ``Refused``."""
    memory.few_arenas()
    logs.configure(level=settings.log_level)
    kube = await connect(settings)
    try:
        agent = asyncio.create_task(Agent(settings, kube).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.cancel)
        try:
            await agent
        except asyncio.CancelledError:
            log.info("agent.ended", cluster=settings.cluster)
    finally:
        await kube.close()


async def connect(settings: Settings) -> RealKube:
    """The cluster: by kubeconfig where one is set, else the one this process runs in."""
    if settings.kubeconfig is not None:
        return await RealKube.from_kubeconfig(settings.kubeconfig, context=settings.context)
    return await RealKube.in_cluster()


def loop_factory() -> Any:
    """uvloop where there is one: a busy lender spends less time between calls."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main() -> int:
    try:
        settings = Settings.from_env(os.environ)
    except ValidationError as error:
        for mistake in error.errors():
            name = PREFIX + "_".join(str(part).upper() for part in mistake["loc"])
            print(f"{name}: {mistake['msg']}", file=sys.stderr)
        return 2
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(settings))
    except (NoWayIn, NoIdentity, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
