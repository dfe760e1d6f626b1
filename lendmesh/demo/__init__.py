"""``lendmesh demo``: a broker, three clusters, a loan and its end, in one process.

Where no Kubernetes is at hand the clusters are simulated ones: the same agents, the same HTTPS, the same objects,
kept in memory with the scheduler's allocation rules. With ``--kubeconfig A --kubeconfig B`` they are real, the borrower
first.
"""

import argparse
import asyncio
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

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
    settings = _write_settings(federation)
    ask = f"--cluster {borrower} --count 1 --duration 1h --price-cap 3.00"
    out.print("\n[bold]Still serving.[/] In another terminal:\n")
    for line in (
        f". {settings}",
        "lendmesh offers",
        f"lendmesh quote   {ask}",
        f"lendmesh request {ask}",
        "lendmesh leases",
        "lendmesh watch requests",
    ):
        out.print(Text(f"  {line}", "bold cyan"))
    out.print(
        f"\nThe API is described at {federation.context.url}/docs. Ctrl-C ends everything and leaves nothing behind."
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


def _write_settings(federation: Federation) -> Path:
    """A file for the shell that says which broker, with which token, trusted by which CA, and where the command is."""
    context = federation.context
    values = {"LENDMESH_URL": context.url, "LENDMESH_CA": context.ca or "", "LENDMESH_TOKEN": context.token}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    path = federation.directory / "env"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path
