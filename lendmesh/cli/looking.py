"""Looking around: ``offers``, ``leases``, ``clusters``, ``watch``."""

import argparse

from broker.wire.agents import ClusterView
from broker.wire.leases import LeaseView
from broker.wire.offers import OfferView
from broker.wire.requests import RequestView
from lendmesh import show
from lendmesh.cli import OK
from lendmesh.cli.common import client


async def offers(arguments: argparse.Namespace) -> int:
    query = {key: value for key in ("model", "region") if (value := getattr(arguments, key))}
    async with client(arguments) as broker:
        views = await broker.every(OfferView, "/v1/offers", query)
    if arguments.output != "table":
        show.emit(views, output=arguments.output)
    elif views:
        show.console().print(show.offers(views))
    else:
        show.console().print("Nothing is on offer now. `lendmesh clusters` shows who is there and what is kept back.")
    return OK


async def leases(arguments: argparse.Namespace) -> int:
    query = {"state": arguments.state} if arguments.state else {}
    async with client(arguments) as broker:
        views = await broker.every(LeaseView, "/v1/leases", query)
    if arguments.output != "table":
        show.emit(views, output=arguments.output)
    elif views:
        show.console().print(show.leases(views))
    else:
        show.console().print("No leases. Ask for devices with `lendmesh request --help`.")
    return OK


async def clusters(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        views = await broker.every(ClusterView, "/v1/clusters")
    if arguments.output != "table":
        show.emit(views, output=arguments.output)
    elif views:
        show.console().print(show.clusters(views))
    else:
        show.console().print("No clusters yet. Let one join: `lendmesh cluster join-token NAME --tenant TENANT`.")
    return OK


async def watch(arguments: argparse.Namespace) -> int:
    out = show.console()
    async with client(arguments) as broker:
        if arguments.what == "leases":
            async for kind, lease in broker.watch(LeaseView, "/v1/leases/watch"):
                out.print(
                    f"[dim]{kind:>8}[/] {lease.id} {lease.lender} → {lease.borrower} {len(lease.devices)} ×",
                    lease.kind.model,
                    show.coloured(lease.state.value),
                )
        elif arguments.what == "requests":
            async for kind, request in broker.watch(RequestView, "/v1/requests/watch"):
                out.print(
                    f"[dim]{kind:>8}[/] {request.id} {request.cluster} {request.step.value}",
                    show.coloured(request.state.value),
                    request.message,
                )
        else:
            async for kind, offer in broker.watch(OfferView, "/v1/offers/watch"):
                out.print(
                    f"[dim]{kind:>8}[/] {offer.id} {offer.cluster} {offer.devices} × {offer.kind.model} "
                    f"at {show.money(offer.price.micros)}"
                )
    return OK
