"""The tour: one loan from inventory to return, one that expires, one that can't be, told in tables.

Every line shown is read back from the broker's API or from the clusters' own objects; the tour only asks, like any
user.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from broker.kit.clock import utc_now
from broker.kit.durations import format_duration
from broker.wire.agents import ClusterView
from broker.wire.leases import LeaseState, LeaseView
from broker.wire.offers import OfferView
from broker.wire.requests import CapacityRequest, RequestState, RequestView
from broker.wire.signing import Unverified, verify_lease
from clusteragent.kube.interface import DEVICE_LEASES, RESOURCE_CLAIMS, SECRETS, Kube, Obj
from lendmesh import because, show
from lendmesh.cli.devices import read, together
from lendmesh.client import Client
from lendmesh.demo import stock
from lendmesh.demo.federation import Federation
from lendmesh.demo.wishes import Wishes
from lendmesh.grid import Column, Grid
from lendmesh.progress import follow

WIDEST = 110
"""Columns of a heading's line."""


class TourFailed(Exception):
    """Something didn't go as promised; the text says what."""


class Tour:
    """Walks through a federation and tells what is there."""

    def __init__(self, federation: Federation, wishes: Wishes, out: Console) -> None:
        self.federation, self.wishes, self.out = federation, wishes, out
        self.broker: Client = federation.broker
        self.began = time.monotonic()

    async def walk(self) -> None:
        await self.inventory()
        lease = await self.ask()
        await self.verify(lease)
        await self.mirrors(lease)
        await self.give_back(lease)
        await self.expiry()
        await self.refusal()
        self.out.print(f"\n[bold green]✔ All of it in {time.monotonic() - self.began:.1f} s.[/]")

    async def inventory(self) -> None:
        views = await self.broker.every(ClusterView, "/v1/clusters")
        offers = await self.broker.every(OfferView, "/v1/offers")
        self._title(1, "Inventory", "what each cluster has, and what it lends of it")
        found = {
            view.name: stock.stocks(
                await read(self.federation.kubes[view.name]), [offer for offer in offers if offer.cluster == view.name]
            )
            for view in views
        }
        self.out.print(stock.picture(found))
        self.out.print(stock.legend())
        for view in views:
            self.out.print(Text(stock.stays(view), "dim"))
        self._title(2, "Offers", "free devices, less what their owners keep back, with a price")
        self.out.print(show.offers(sorted(offers, key=lambda offer: (offer.cluster, -offer.price.micros))))

    async def ask(self) -> LeaseView:
        wish = self.wishes.main
        self._title(3, "Placement", f"{wish.cluster} asks for {_devices(wish)}")
        view = await self._follow(wish)
        if view.state is not RequestState.ACTIVE or view.lease is None:
            because.placement(view, self.out)
            raise TourFailed(f"the request was not placed: {view.message or view.state.value}")
        self.out.print()
        because.placement(view, self.out)
        return await self.broker.get(LeaseView, f"/v1/leases/{view.lease}")

    async def verify(self, lease: LeaseView) -> None:
        self._title(4, "The lease", "signed by the broker, verified here by its public keys alone")
        token = lease.token or ""
        jwks = (await self.broker.call("GET", "/.well-known/jwks.json"))["keys"]
        head, body, signature = token.split(".")
        room = max(12, (min(self.out.width, WIDEST) - 8) // 3)
        parts = ((head, "cyan"), (body, "blue"), (signature, "magenta"))
        shown = [(part if len(part) <= room else f"{part[: room - 1]}…", style) for part, style in parts]
        self.out.print(Text(".").join(Text(part, style) for part, style in shown))
        claims = verify_lease(token, jwks=jwks, now=utc_now())
        self.out.print(
            f"[green]✔ verified[/]      {claims.jti}: {claims.lease.lender} lends {len(claims.lease.devices)} × "
            f"{claims.lease.kind.model} to {claims.lease.borrower} until {lease.expires_at:%H:%M:%S} UTC"
        )
        longer = base64.urlsafe_b64encode(base64.urlsafe_b64decode(body + "==") + b" ").decode().rstrip("=")
        changed = f"{head}.{longer}.{signature}"
        try:
            verify_lease(changed, jwks=jwks, now=utc_now())
        except Unverified as error:
            self.out.print(f"[red]✘ not verified[/]  with one byte more: {error}")
        else:
            raise TourFailed("a changed lease verified")
        self.out.print(self._leased(lease))

    async def mirrors(self, lease: LeaseView) -> None:
        self._title(5, "Two claims", "both clusters hold the lease as ResourceClaims")
        table = Grid(
            "CLUSTER",
            Column("NAMESPACE", drop=3),
            "CLAIM",
            Column("STATE", drop=1),
            "HOLDS",
            Column("RESERVED FOR", drop=2),
        )
        for name, label in ((lease.lender, "owning"), (lease.borrower, "remote")):
            for claim in await self._claims(name, lease.id):
                results = claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
                reserved = claim.get("status", {}).get("reservedFor", [])
                holds = ", ".join(sorted({f"{result['driver']}/{result['pool']}" for result in results}))
                table.add(
                    f"{name} ({label})",
                    claim["metadata"]["namespace"],
                    claim["metadata"]["name"],
                    "allocated, reserved" if results and reserved else "allocated" if results else "pending",
                    f"{len(results)} × {holds}",
                    ", ".join(f"{entry['resource']}/{entry['name']}" for entry in reserved),
                )
        self.out.print(table)
        namespace = self.wishes.main.workload.namespace
        secret = await self.federation.kubes[lease.borrower].get(SECRETS, f"{lease.id}-kubeconfig", namespace)
        size = len(base64.b64decode(secret["data"]["kubeconfig"]))
        self.out.print(
            f"And {lease.borrower} has a way in: Secret {namespace}/{lease.id}-kubeconfig, {size} bytes.\n"
            f"{lease.lender}'s agent sealed it to {lease.borrower}'s key; the broker passed it on unread."
        )

    async def give_back(self, lease: LeaseView) -> None:
        self._title(6, "Return", "drained, released, free again")
        self.out.print(f"[bold]$ lendmesh lease return {lease.id}[/]")
        await self.broker.call("POST", f"/v1/leases/{lease.id}/return")
        ended = await self._until_ended(lease)
        self.out.print(show.leases([ended]))
        await self._nothing_left(ended)

    async def expiry(self) -> None:
        wish = self.wishes.short
        self._title(7, "Expiry", f"{format_duration(wish.duration)} of {_devices(wish)}, and nobody gives back")
        view = await self._follow(wish)
        if view.lease is None:
            raise TourFailed(f"the request was not placed: {view.message}")
        lease = await self.broker.get(LeaseView, f"/v1/leases/{view.lease}")
        self.out.print(f"Both agents know that it ends at {lease.expires_at:%H:%M:%S}; they need nobody to tell them.")
        ended = await self._until_ended(lease)
        self.out.print(show.leases([ended]))
        await self._nothing_left(ended)

    async def refusal(self) -> None:
        wish = self.wishes.impossible
        cap = show.money(wish.price_cap.micros) if wish.price_cap else "any price"
        self._title(8, "No, because", f"{_devices(wish)} at {cap}")
        view = await self._follow(wish)
        if view.state is not RequestState.REFUSED:
            raise TourFailed(f"what can't be was not refused: {view.state.value}")
        because.placement(view, self.out)

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _title(self, number: int, what: str, about: str) -> None:
        line = Text.assemble(("━━ ", "blue"), (f"{number} · {what}", "bold"), (f"  {about} ", "dim"))
        line.append("━" * max(0, min(self.out.width, WIDEST) - line.cell_len), "blue")
        self.out.print()
        self.out.print(line)

    def _wish(self, wish: CapacityRequest) -> None:
        words = [
            f"$ lendmesh request --cluster {wish.cluster} --count {wish.devices.count} "
            f"--duration {format_duration(wish.duration)}"
        ]
        if wish.price_cap:
            words[0] += f" --price-cap {show.money(wish.price_cap.micros)[1:]}"
        more = [f"--driver {wish.devices.driver}"] if wish.devices.driver else []
        more += [f"--region {region}" for region in wish.where.regions]
        if more:
            words.append(" ".join(more))
        if wish.devices.selector:
            words.append(f'--selector "{wish.devices.selector}"')
        self.out.print(Text(" \\\n    ".join(words), style="bold"))

    def _leased(self, lease: LeaseView) -> Grid:
        """The devices of a lease, neighbours together: with which fence they were lent."""
        table = Grid("NODE", Column("DRIVER", drop=1), Column("DEVICES", fold=True), Column("FENCE", right=True))
        for (node, driver, fence), found in groupby(
            lease.devices, lambda device: (device.node or "–", device.driver, device.fence)
        ):
            table.add(node, driver, together([device.name for device in found]), str(fence))
        return table

    async def _follow(self, wish: CapacityRequest) -> RequestView:
        self._wish(wish)
        view = await follow(self.broker, await self.broker.post(RequestView, "/v1/requests", wish), self.out)
        self.federation.check()
        return view

    async def _until_ended(self, lease: LeaseView) -> LeaseView:
        began, line = time.monotonic(), [lease.state]
        with self.out.status(Text(f"{lease.id} is {lease.state.value}"), spinner="dots") as status:
            async for _, current in self.broker.watch(LeaseView, "/v1/leases/watch", after=lease.revision):
                if current.id != lease.id:
                    continue
                if current.state is not line[-1]:
                    line.append(current.state)
                    status.update(Text(f"{lease.id} is {current.state.value}"))
                if current.state is LeaseState.ENDED:
                    break
            else:
                raise TourFailed("the stream of leases ended")
        states = Text(" → ").join(show.coloured(state.value) for state in line)
        self.out.print(Text.assemble((f"  {lease.id}  ", "dim"), states, f"  after {time.monotonic() - began:.1f} s"))
        return current

    async def _claims(self, cluster: str, lease: str) -> list[Obj]:
        return await self.federation.kubes[cluster].list(RESOURCE_CLAIMS, labels={"lendmesh.dev/lease": lease})

    async def _nothing_left(self, lease: LeaseView) -> None:
        for name in (lease.lender, lease.borrower):
            left = await left_behind(self.federation.kubes[name], lease.id)
            if left:
                raise TourFailed(f"{name} still has {', '.join(left)}")
        self.out.print(f"[green]✔ nothing of the lease is left[/] in {lease.lender} or {lease.borrower}")


async def left_behind(kube: Kube, lease: str) -> Sequence[str]:
    """Objects of a lease that are still there once everything that ends with it has had its time."""
    left: list[str] = []
    for _ in range(400):
        left = []
        for kind in (RESOURCE_CLAIMS, DEVICE_LEASES, SECRETS):
            found = await kube.list(kind, labels={"lendmesh.dev/lease": lease})
            left += [f"{kind.kind} {obj['metadata']['namespace']}/{obj['metadata']['name']}" for obj in found]
        if not left:
            break
        await asyncio.sleep(0.05)
    return left


def _devices(wish: CapacityRequest) -> str:
    return f"{wish.devices.count} device{'s' if wish.devices.count != 1 else ''}"


def panel(text: str) -> Panel:
    """The words at the beginning and the end."""
    return Panel(text, border_style="blue", expand=False, padding=(0, 2))
