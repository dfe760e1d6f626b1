"""``lendmesh demo``: a broker, three clusters, a loan and its end, in one process.

Where no Kubernetes is at hand the clusters are simulated ones: the same agents, the same HTTPS, the same objects,
kept in memory with the scheduler's allocation rules. With ``--kubeconfig A --kubeconfig B`` they are real, the borrower
first.
"""

import argparse
import asyncio
import signal
from contextlib import suppress

from rich.console import Console

from broker.kit import logs
from lendmesh import show
from lendmesh.cli import OK, Failed
from lendmesh.demo.clusters import lending_policy, members, simulate
from lendmesh.demo.federation import Federation, NotReady, running
from lendmesh.demo.tour import Tour, TourFailed, panel
from lendmesh.demo.wishes import simulated


async def command(arguments: argparse.Namespace) -> int:
    """The verb."""
    out = show.console()
    logs.configure(level="ERROR")
    try:
        if arguments.kubeconfig:
            from lendmesh.demo.real import tour_of_real_clusters

            return await tour_of_real_clusters(arguments, out)
        return await _simulated(arguments, out)
    except (TourFailed, NotReady) as failure:
        raise Failed(str(failure)) from failure


async def _simulated(arguments: argparse.Namespace, out: Console) -> int:
    from clusteragent.kube.interface import LENDING_POLICIES

    parts = members()
    out.print(
        panel(
            "[bold]Lendmesh demo[/]: three simulated clusters, an agent each, a broker between\n"
            + "\n".join(f"  [bold]{part.name:<9}[/] {part.about} ({part.region})" for part in parts)
        )
    )
    kubes = {}
    for part in parts:
        cluster = simulate(part)
        cluster.put(LENDING_POLICIES, lending_policy(part))
        kubes[part.name] = cluster.connect()
    names = {part.name: part.tenant for part in parts}
    async with running(kubes, tenants=names, lenders=names, port=arguments.port) as federation:
        await Tour(federation, simulated(), out).walk()
        if not arguments.once:
            await serve_on(federation, out, borrower="cirrus")
    return OK


async def serve_on(federation: Federation, out: Console, *, borrower: str) -> None:
    """Keep everything running until somebody has seen enough."""
    context = federation.context
    out.print(
        panel(
            "Still serving. In another terminal:\n\n"
            f"  [bold]export LENDMESH_URL={context.url} LENDMESH_CA={context.ca} LENDMESH_TOKEN={context.token}[/]\n"
            "  lendmesh offers\n"
            f"  lendmesh quote   --cluster {borrower} --count 4 --duration 1h --price-cap 3.00\n"
            f"  lendmesh request --cluster {borrower} --count 4 --duration 1h --price-cap 3.00\n"
            "  lendmesh leases\n"
            "  lendmesh watch requests\n\n"
            f"The API is described at {context.url}/docs. Ctrl-C ends everything and leaves nothing behind."
        )
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, ended.set)
    while not ended.is_set():
        federation.check()
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 1)
