"""The tour: one loan from inventory to return, one that expires, one that can't be, told in tables.

Every line shown is read back from the broker's API or from the clusters' own objects; the tour only asks, like any
user.
"""

import asyncio
import base64
import time
from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from broker.kit.clock import utc_now
from broker.kit.durations import format_duration
from broker.wire.agents import ClusterView
from broker.wire.leases import LeaseState, LeaseView
from broker.wire.offers import OfferView
from broker.wire.requests import CapacityRequest, RequestState, RequestView
from broker.wire.signing import Unverified, verify_lease
from clusteragent.kube.interface import DEVICE_LEASES, RESOURCE_CLAIMS, SECRETS, Kube, Obj
from lendmesh import show
from lendmesh.cli.requests import follow
from lendmesh.client import Client
from lendmesh.demo.federation import Federation
from lendmesh.demo.wishes import Wishes


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
        self.out.print(Rule(f"[bold green]all of it in {time.monotonic() - self.began:.1f} s", style="green"))

    async def inventory(self) -> None:
        self._title("1", "Inventory: what each cluster has, and what it keeps")
        self.out.print(show.clusters(await self.broker.every(ClusterView, "/v1/clusters")))
        self._title("2", "Offers: free devices, less what their owners keep back, with a price")
        self.out.print(show.offers(await self.broker.every(OfferView, "/v1/offers")))

    async def ask(self) -> LeaseView:
        wish = self.wishes.main
        self._title("3", f"{wish.cluster} asks for {wish.devices.count} devices")
        self._wish(wish)
        view = await self._follow(wish)
        if view.state is not RequestState.ACTIVE or view.lease is None:
            show.placement(view, self.out)
            raise TourFailed(f"the request was not placed: {view.message or view.state.value}")
        self.out.print()
        show.placement(view, self.out)
        return await self.broker.get(LeaseView, f"/v1/leases/{view.lease}")

    async def verify(self, lease: LeaseView) -> None:
        self._title("4", "The lease: signed by the broker, verified here with nothing but its key set")
        token = lease.token or ""
        jwks = (await self.broker.call("GET", "/.well-known/jwks.json"))["keys"]
        head, body, signature = token.split(".")
        self.out.print(Text.assemble((head, "cyan"), ".", (body[:120] + "…", "dim"), ".", (signature, "magenta")))
        claims = verify_lease(token, jwks=jwks, now=utc_now())
        self.out.print(
            f"[green]VERIFIED[/] {claims.jti}: {claims.lease.lender} lends {len(claims.lease.devices)} × "
            f"{claims.lease.kind.model} to {claims.lease.borrower} until {lease.expires_at:%H:%M:%S} UTC"
        )
        longer = base64.urlsafe_b64encode(base64.urlsafe_b64decode(body + "==") + b" ").decode().rstrip("=")
        changed = f"{head}.{longer}.{signature}"
        try:
            verify_lease(changed, jwks=jwks, now=utc_now())
        except Unverified as error:
            self.out.print(f"[red]NOT VERIFIED[/] with one byte more: {error}")
        else:
            raise TourFailed("a changed lease verified")
        self.out.print(show.devices(lease))

    async def mirrors(self, lease: LeaseView) -> None:
        self._title("5", "Both clusters hold it as ResourceClaims")
        table = show.plain_table(None, "CLUSTER", "NAMESPACE", "CLAIM", "STATE", "HOLDS", "FOR")
        for name, label in ((lease.lender, "owning"), (lease.borrower, "remote")):
            for claim in await self._claims(name, lease.id):
                results = claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
                reserved = claim.get("status", {}).get("reservedFor", [])
                holds = ", ".join(sorted({f"{result['driver']}/{result['pool']}" for result in results}))
                table.add_row(
                    f"{name} ({label})",
                    claim["metadata"]["namespace"],
                    claim["metadata"]["name"],
                    "allocated,reserved" if results and reserved else "allocated" if results else "pending",
                    f"{len(results)} × {holds}",
                    ", ".join(f"{entry['resource']}/{entry['name']}" for entry in reserved),
                )
        self.out.print(table)
        namespace = self.wishes.main.workload.namespace
        secret = await self.federation.kubes[lease.borrower].get(SECRETS, f"{lease.id}-kubeconfig", namespace)
        size = len(base64.b64decode(secret["data"]["kubeconfig"]))
        self.out.print(
            f"Secret {namespace}/{lease.id}-kubeconfig in {lease.borrower}: {size} bytes, sealed by {lease.lender}'s "
            f"agent to {lease.borrower}'s key; the broker passed it on and could not read it."
        )

    async def give_back(self, lease: LeaseView) -> None:
        self._title("6", "Return: drained, released, free again")
        await self.broker.call("POST", f"/v1/leases/{lease.id}/return")
        ended = await self._until_ended(lease)
        self.out.print(show.leases([ended]))
        await self._nothing_left(ended)

    async def expiry(self) -> None:
        wish = self.wishes.short
        self._title(
            "7", f"Expiry: {format_duration(wish.duration)} of {wish.devices.count} devices, and nobody returns them"
        )
        self._wish(wish)
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
        self._title("8", f"No, because: {wish.devices.count} devices at {cap}")
        self._wish(wish)
        view = await self._follow(wish)
        show.placement(view, self.out)

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _title(self, number: str, text: str) -> None:
        self.out.print()
        self.out.print(Rule(f"[bold]{number} · {text}", align="left", style="blue"))

    def _wish(self, wish: CapacityRequest) -> None:
        words = [
            "lendmesh request",
            f"--cluster {wish.cluster}",
            f"--count {wish.devices.count}",
            f"--duration {format_duration(wish.duration)}",
        ]
        if wish.price_cap:
            words.append(f"--price-cap {show.money(wish.price_cap.micros)[1:]}")
        if wish.devices.driver:
            words.append(f"--driver {wish.devices.driver}")
        words += [f"--region {region}" for region in wish.where.regions]
        if wish.devices.selector:
            words.append(f'--selector "{wish.devices.selector}"')
        self.out.print(Text("$ " + " ".join(words), style="bold"))

    async def _follow(self, wish: CapacityRequest) -> RequestView:
        view = await follow(self.broker, await self.broker.post(RequestView, "/v1/requests", wish), self.out)
        self.federation.check()
        return view

    async def _until_ended(self, lease: LeaseView) -> LeaseView:
        seen = lease.state
        async for _, current in self.broker.watch(LeaseView, "/v1/leases/watch", after=lease.revision):
            if current.id != lease.id:
                continue
            if current.state is not seen:
                seen = current.state
                self.out.print(f"  [dim]{lease.id}[/]  {current.state.value.lower()}")
            if current.state is LeaseState.ENDED:
                return current
        raise TourFailed("the stream of leases ended")

    async def _claims(self, cluster: str, lease: str) -> list[Obj]:
        return await self.federation.kubes[cluster].list(RESOURCE_CLAIMS, labels={"lendmesh.dev/lease": lease})

    async def _nothing_left(self, lease: LeaseView) -> None:
        for name in (lease.lender, lease.borrower):
            left = await _left_behind(self.federation.kubes[name], lease.id)
            self.out.print(
                f"  {name}: "
                + (f"[red]left behind: {', '.join(left)}" if left else "[green]nothing of the lease is left")
            )
            if left:
                raise TourFailed(f"{name} still has {', '.join(left)}")


async def _left_behind(kube: Kube, lease: str) -> Sequence[str]:
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


def panel(text: str) -> Panel:
    """The words at the beginning and the end."""
    return Panel(text, border_style="blue", expand=False, padding=(0, 2))
