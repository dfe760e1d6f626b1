"""Burst policies: ``policy list | show | apply | delete``."""

import argparse

from broker.wire.burst import BurstPolicySpec, BurstPolicyView
from lendmesh import show as screen
from lendmesh.cli import OK
from lendmesh.cli.common import checked, client, read_mapping
from lendmesh.grid import Column, Grid


async def policies(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        views = await broker.every(BurstPolicyView, "/v1/burst-policies")
    if arguments.output != "table":
        screen.emit(views, output=arguments.output)
    elif views:
        _table(views)
    else:
        screen.console().print("No burst policies. `lendmesh policy apply --help` says how to make one.")
    return OK


async def show(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        view = await broker.get(BurstPolicyView, f"/v1/burst-policies/{arguments.cluster}/{arguments.name}")
    screen.emit(view, output="yaml" if arguments.output == "table" else arguments.output)
    return OK


async def apply(arguments: argparse.Namespace) -> int:
    loaded = read_mapping(arguments.file)
    spec = checked(BurstPolicySpec, loaded.get("spec", loaded))
    async with client(arguments) as broker:
        view = await broker.put(BurstPolicyView, f"/v1/burst-policies/{arguments.cluster}/{arguments.name}", spec)
    if arguments.output != "table":
        screen.emit(view, output=arguments.output)
    else:
        _table([view])
    return OK


async def delete(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        await broker.call("DELETE", f"/v1/burst-policies/{arguments.cluster}/{arguments.name}")
    print(f"{arguments.cluster}/{arguments.name} is gone; its leases run on to their ends")
    return OK


def _table(views: list[BurstPolicyView]) -> None:
    table = Grid(
        "CLUSTER",
        "POLICY",
        Column("FROM", drop=2),
        Column("TIERS", fold=True),
        Column("BUDGET", right=True),
        Column("COMMITTED", right=True),
        Column("LEASES", right=True),
        Column("MESSAGE", drop=1, fold=True),
    )
    for view in views:
        spend = view.status.spend
        tiers = " → ".join(f"{tier.name} ≤ {screen.money(tier.price_cap.micros)}" for tier in view.spec.tiers)
        table.add(
            view.cluster,
            view.name,
            view.source,
            tiers,
            screen.money(spend.budget) if spend.budget is not None else "–",
            screen.money(spend.committed),
            str(view.status.live_leases),
            view.status.message,
        )
    screen.console().print(table)
