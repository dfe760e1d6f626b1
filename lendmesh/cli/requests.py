"""Asking for devices: ``request``, ``quote``, ``requests``, ``cancel``."""

import argparse
import asyncio
from typing import Any

from rich.console import Console

from broker.wire.requests import CapacityRequest, RequestState, RequestView
from lendmesh import because, show
from lendmesh.cli import NO, OK, Failed
from lendmesh.cli.common import checked, client, read_mapping
from lendmesh.progress import follow

TIMES = ("not_before", "start_by", "finish_by")
OPTIONS = {
    "cluster": "--cluster",
    "devices.count": "--count",
    "devices.workers": "--workers",
    "devices.selector": "--selector",
    "devices.driver": "--driver",
    "duration": "--duration",
    "price_cap.amount": "--price-cap",
    "total_cap.amount": "--total-cap",
    "data.region": "--data-region",
    "data.gb": "--data-gb",
    "priority": "--priority",
    "not_before": "--not-before",
    "start_by": "--start-by",
    "finish_by": "--finish-by",
    "wait": "--wait",
    "policy": "--policy",
    "workload.namespace": "--namespace",
}


def wish(arguments: argparse.Namespace) -> CapacityRequest:
    """The request that file and options together describe."""
    body: dict[str, Any] = read_mapping(arguments.file) if arguments.file else {}
    devices, where = dict(body.get("devices") or {}), dict(body.get("where") or {})
    given = vars(arguments)
    for name in ("count", "workers", "selector", "driver", "same_node"):
        if given[name] is not None:
            devices[name] = given[name]
    for name, option in (
        ("regions", "region"),
        ("jurisdictions", "jurisdiction"),
        ("providers", "provider"),
        ("clusters", "lenders"),
    ):
        if given[option] is not None:
            where[name] = given[option]
    for name in ("cluster", "duration", "confidential", "interruptible", "priority", "wait", "policy", *TIMES):
        if given[name] is not None:
            body[name] = given[name]
    data = {name: given[option] for name, option in (("region", "data_region"), ("gb", "data_gb"))}
    if told := {name: value for name, value in data.items() if value is not None}:
        body["data"] = {**(body.get("data") or {}), **told}
    for name in ("price_cap", "total_cap"):
        if given[name] is not None:
            body[name] = {"amount": given[name]}
    if arguments.namespace is not None:
        body["workload"] = {**(body.get("workload") or {}), "namespace": arguments.namespace}
    body["devices"] = devices
    if where:
        body["where"] = where
    return checked(CapacityRequest, body, options=None if arguments.file else OPTIONS)


async def request(arguments: argparse.Namespace) -> int:
    body = wish(arguments)
    out = show.console(stderr=arguments.output != "table")
    async with client(arguments) as broker:
        view = await broker.post(RequestView, "/v1/requests", body)
        if arguments.no_follow:
            if arguments.output != "table":
                show.emit(view, output=arguments.output)
            else:
                print(view.id)
            return OK
        try:
            view = await follow(broker, view, out)
        except asyncio.CancelledError:
            out.print(
                f"\n{view.id} goes on without you: `lendmesh requests {view.id}` shows it, `lendmesh cancel "
                f"{view.id}` takes it back."
            )
            raise
        if arguments.output != "table":
            show.emit(view, output=arguments.output)
        else:
            because.placement(view, out)
            _next_words(view, out)
    return OK if view.state is RequestState.ACTIVE else NO


def _next_words(view: RequestView, out: Console) -> None:
    if view.state is RequestState.ACTIVE:
        out.print(f"\nYours until you return it: [bold]lendmesh lease show {view.lease}[/]")
        out.print(f"Reach it with:             [bold]lendmesh lease kubeconfig {view.lease} > lease.kubeconfig[/]")
    elif view.message and not view.reasons:
        out.print(view.message)


async def quote(arguments: argparse.Namespace) -> int:
    body = wish(arguments)
    async with client(arguments) as broker:
        view = await broker.post(RequestView, "/v1/quotes", body)
    if arguments.output != "table":
        show.emit(view, output=arguments.output)
    else:
        because.placement(view, show.console())
    return OK if view.placement is not None else NO


async def requests(arguments: argparse.Namespace) -> int:
    out = show.console()
    async with client(arguments) as broker:
        if arguments.id:
            view = await broker.get(RequestView, f"/v1/requests/{arguments.id}")
            if arguments.output != "table":
                show.emit(view, output=arguments.output)
                return OK
            out.print(show.requests([view]))
            because.placement(view, out)
            if view.message:
                out.print(view.message)
            return OK
        views = await broker.every(RequestView, "/v1/requests")
    if arguments.output != "table":
        show.emit(views, output=arguments.output)
    elif views:
        out.print(show.requests(views))
    else:
        out.print("No requests yet. Ask with `lendmesh request --help`.")
    return OK


async def cancel(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        answer = await broker.call("DELETE", f"/v1/requests/{arguments.id}")
    view = RequestView.model_validate(answer) if answer else None
    if view is not None and view.state not in (RequestState.CANCELLED, RequestState.CLOSED) and view.lease is None:
        raise Failed(f"{arguments.id} is {view.state.value}")
    print(
        f"{arguments.id} is taken back" + (f"; its lease {view.lease} is being returned" if view and view.lease else "")
    )
    return OK
