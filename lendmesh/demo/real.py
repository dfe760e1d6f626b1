"""The tour on real clusters: the user's own, by their kubeconfigs, the borrower first.

The agents run here, beside the broker, with the rights of these kubeconfigs; what they need in the clusters is made
first and removed at the end (``furniture``). However the tour ends, leases end before it does.
"""

import argparse
import asyncio
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from broker.wire.agents import ClusterView
from broker.wire.leases import LeaseState, LeaseView
from broker.wire.offers import OfferView
from clusteragent.kube.real import RealKube
from lendmesh.cli import MISUSED, OK, Failed
from lendmesh.cli.common import cluster
from lendmesh.client import Refused, Unreachable
from lendmesh.demo.federation import Federation, NotReady, running
from lendmesh.demo.furniture import Furnished
from lendmesh.demo.tour import Tour, panel
from lendmesh.demo.wishes import real

TENANT = "demo"
OFFERS_WITHIN_S = 30
LEASES_END_WITHIN_S = 60
MOST_DEVICES = 8
"""What the tour borrows at most: enough to see, and no more of other people's clusters."""


async def tour_of_real_clusters(arguments: argparse.Namespace, out: Console) -> int:
    """Furnish, tour, serve on where wanted, and leave the clusters as they were."""
    from lendmesh.demo import serve_on

    task = asyncio.current_task()
    if task is not None:
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with AsyncExitStack() as stack:
        kubes = await _open(arguments.kubeconfig, stack)
        names = list(kubes)
        borrower, lenders = names[0], names[1:]
        out.print(
            panel(
                f"[bold]Lendmesh demo[/] on your own clusters: [bold]{borrower}[/] borrows, "
                f"[bold]{', '.join(lenders)}[/] {'lends' if len(lenders) == 1 else 'lend'}\n"
                + "\n".join(f"  [bold]{name}[/] {kube.server}" for name, kube in kubes.items())
                + "\nWhat the demo makes in them is labelled as its own, and goes with it."
            )
        )
        for name, kube in kubes.items():
            furnished = Furnished(name, kube)
            stack.push_async_callback(_clear, furnished, out)
            await furnished.furnish(lends=name != borrower)
        agent = {"placeholder_image": arguments.placeholder_image} if arguments.placeholder_image else {}
        tenants = dict.fromkeys(names, TENANT)
        async with (
            running(
                kubes, tenants=tenants, lenders=(), port=arguments.port, identities=True, agent=agent
            ) as federation,
            _leases_end(federation, out),
        ):
            offer = await _first_offer(federation, lenders)
            await Tour(federation, real(borrower=borrower, offer=offer, most=MOST_DEVICES), out).walk()
            if not arguments.once:
                await serve_on(federation, out, borrower=borrower)
    return OK


async def _open(paths: Sequence[str], stack: AsyncExitStack) -> dict[str, RealKube]:
    if len(paths) < 2:
        raise Failed(
            "one cluster has nobody to borrow from: give --kubeconfig twice or more, the borrower first", code=MISUSED
        )
    kubes: dict[str, RealKube] = {}
    for path in paths:
        kube = await cluster(path)
        stack.push_async_callback(kube.close)
        twin = next((name for name, other in kubes.items() if other.server == kube.server), None)
        if twin is not None:
            raise Failed(f"{path} is the same cluster as {twin} ({kube.server}); the demo needs two", code=MISUSED)
        kubes[_name(path, taken=kubes)] = kube
    for name, kube in kubes.items():
        try:
            await kube.version()
        except Exception as trouble:
            raise Failed(f"{name} can't be reached at {kube.server}: {trouble}") from trouble
    return kubes


def _name(path: str, *, taken: dict[str, Any]) -> str:
    """As the kubeconfig calls the cluster, in the letters a member's name may have; numbered where two are alike."""
    with open(path, encoding="utf-8") as file:
        config = yaml.safe_load(file)
    current = config.get("current-context")
    context: dict[str, Any] = next(
        (each["context"] for each in config.get("contexts", ()) if each.get("name") == current), {}
    )
    letters = re.sub(r"[^a-z0-9]+", "-", str(context.get("cluster") or current or "cluster").lower()).strip("-")
    stem = letters[:40].strip("-") or "cluster"
    return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, 1_000))) if name not in taken)


async def _first_offer(federation: Federation, lenders: Sequence[str]) -> OfferView:
    """The largest offer, as soon as there is one. Raises ``NotReady`` with what the lenders say about their devices."""
    offers: list[OfferView] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(OFFERS_WITHIN_S):
            while not offers:
                federation.check()
                found = await federation.broker.every(OfferView, "/v1/offers")
                offers = [offer for offer in found if offer.cluster in lenders and offer.devices]
                await asyncio.sleep(0.05)
    if offers:
        return max(offers, key=lambda offer: offer.devices)
    views = await federation.broker.every(ClusterView, "/v1/clusters")
    raise NotReady("nothing is on offer. " + " ".join(_idle(view) for view in views if view.name in lenders))


def _idle(view: ClusterView) -> str:
    if not view.devices.get("total"):
        return f"In {view.name} no driver publishes devices (ResourceSlices); install a DRA driver there."
    why = "; ".join(f"{each['devices']} × {each['reason']}" for each in view.excluded)
    return f"{view.name} has {view.devices['total']} devices, and lends none: {why}."


@asynccontextmanager
async def _leases_end(federation: Federation, out: Console) -> AsyncIterator[None]:
    """Whatever is still lent when the demo ends is returned while there are agents to do it."""
    try:
        yield
    finally:
        with suppress(Refused, Unreachable, TimeoutError):
            async with asyncio.timeout(LEASES_END_WITHIN_S):
                await _end_leases(federation, out)


async def _end_leases(federation: Federation, out: Console) -> None:
    asked: set[str] = set()
    while live := [
        lease for lease in await federation.broker.every(LeaseView, "/v1/leases") if lease.state is not LeaseState.ENDED
    ]:
        for lease in live:
            if lease.id not in asked:
                asked.add(lease.id)
                out.print(Text(f"returning {lease.id}", "dim"))
                with suppress(Refused):
                    await federation.broker.call("POST", f"/v1/leases/{lease.id}/return")
        await asyncio.sleep(0.1)


async def _clear(furnished: Furnished, out: Console) -> None:
    left = await furnished.clear()
    if left:
        out.print(Text(f"{furnished.name} is still removing {', '.join(left)}", "yellow"))
    else:
        out.print(Text(f"✔ {furnished.name} is as it was", "green"))
