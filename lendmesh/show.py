"""How things look on a screen: tables where people would rather look than read, JSON or YAML for programs."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.wire.agents import ClusterView
from broker.wire.devices import Kind, Place
from broker.wire.leases import LeaseBody, LeaseState, LeaseView
from broker.wire.offers import OfferView
from broker.wire.requests import RequestView
from lendmesh.grid import Column, Grid

COLOURS = {
    "Active": "green",
    "Ready": "green",
    "Prepared": "cyan",
    "Reserved": "cyan",
    "Placed": "cyan",
    "Open": "cyan",
    "Pending": "cyan",
    "Draining": "yellow",
    "Orphaned": "red",
    "Quarantined": "red",
    "Refused": "red",
    "Silent": "red",
    "ClockUnsafe": "red",
    "Revoked": "red",
    "Recovering": "yellow",
    "Ended": "dim",
    "Closed": "dim",
    "Cancelled": "dim",
}
ENDLESS = 1_000
"""The width of what is no screen: a file or another program gets whole lines."""


def console(*, stderr: bool = False) -> Console:
    """A console that folds and leaves out nothing when its output is a file."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else ENDLESS, highlight=False, emoji=False)


def emit(items: BaseModel | Sequence[BaseModel] | dict[str, Any], *, output: str) -> None:
    """JSON or YAML on stdout, for programs."""
    if isinstance(items, dict):
        plain: Any = items
    elif isinstance(items, BaseModel):
        plain = items.model_dump(mode="json")
    else:
        plain = [item.model_dump(mode="json") for item in items]
    if output == "json":
        print(json.dumps(plain, indent=2))
    else:
        print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), end="")


def coloured(word: str) -> Text:
    """A state in its colour."""
    return Text(str(word), style=COLOURS.get(str(word), ""))


def money(micros: int) -> str:
    """Dollars, two decimals or as many as there are."""
    return f"${from_micros(micros):,}"


def when(time: datetime | None, *, now: datetime | None = None) -> str:
    """How far away a time is: ``in 1h30m``, ``5m ago``."""
    if time is None:
        return "–"
    seconds = int((time - (now or datetime.now(UTC))).total_seconds())
    grain = next(grain for least, grain in ((2 * 86_400, 86_400), (3_600, 60), (0, 1)) if abs(seconds) >= least)
    far = format_duration(abs(seconds) // grain * grain)
    if seconds == 0:
        return "now"
    return f"in {far}" if seconds > 0 else f"{far} ago"


def memory(amount: int | None) -> str:
    """Bytes as people say them."""
    return f"{amount / 2**30:.0f}Gi" if amount else "–"


def kind_name(kind: Kind) -> str:
    """The model, and the profile where the device is a part of it."""
    return f"{kind.model} · {kind.partition}" if kind.partition else kind.model


def where_it_is(place: Place) -> str:
    """The region, and under whose law it is where its owner says so."""
    return f"{place.region or '–'} ({place.jurisdiction})" if place.jurisdiction else place.region or "–"


def offers(views: Sequence[OfferView], *, title: str | None = None) -> Grid:
    table = Grid(
        "OFFER",
        "CLUSTER",
        Column("MODEL", fold=True),
        Column("MEMORY", right=True, drop=3),
        Column("FREE", right=True),
        Column("A NODE", right=True, drop=4),
        Column("PRICE/H", right=True),
        Column("REGION", drop=2),
        Column("MAX", drop=5),
        Column("CONFIDENTIAL", drop=6),
        Column("VALID", drop=7),
        title=title,
    )
    for offer in views:
        secret = offer.confidential
        table.add(
            offer.id,
            offer.cluster,
            kind_name(offer.kind),
            memory(offer.kind.memory_bytes),
            str(offer.devices),
            str(offer.largest_node),
            money(offer.price.micros),
            where_it_is(offer.place),
            format_duration(offer.terms.max_duration),
            f"declared: {secret.tee}" if secret.declared else "–",
            Text("stale", style="red") if offer.stale else when(offer.valid_until),
        )
    return table


def requests(views: Sequence[RequestView], *, title: str | None = None) -> Grid:
    table = Grid(
        "REQUEST",
        Column("CLUSTER", drop=4),
        Column("DEVICES", right=True),
        Column("FOR", drop=3),
        "STATE",
        Column("STEP", drop=5),
        Column("FROM", drop=2),
        Column("PRICE/H", right=True, drop=2),
        Column("LEASE", drop=1),
        Column("AGE", drop=6),
        title=title,
    )
    for view in views:
        placed, asked = view.placement, view.request.devices
        table.add(
            view.id,
            view.cluster,
            str(asked.count) if asked.workers == 1 else f"{asked.workers} × {asked.count}",
            format_duration(view.request.duration),
            coloured(view.state.value),
            view.step.value,
            placed.cluster if placed else "–",
            money(placed.price.micros) if placed else "–",
            view.lease or "–",
            when(view.created_at),
        )
    return table


def leases(views: Sequence[LeaseView], *, title: str | None = None) -> Grid:
    table = Grid(
        "LEASE",
        "LENDER",
        "BORROWER",
        Column("DEVICES", right=True),
        Column("MODEL", drop=6),
        "STATE",
        Column("PRICE/H", right=True, drop=5),
        Column("COST", right=True, drop=3),
        Column("EXPIRES", drop=1),
        Column("MIRRORED", drop=4),
        Column("ENDING", drop=2),
        title=title,
    )
    for lease in views:
        sides = [
            side for side, done in (("lender", lease.mirrored.lender), ("borrower", lease.mirrored.borrower)) if done
        ]
        table.add(
            lease.id,
            lease.lender,
            lease.borrower,
            str(len(lease.devices)),
            kind_name(lease.kind),
            coloured(lease.state.value),
            money(lease.price.micros),
            money(lease.cost.amount),
            when(lease.expires_at) if lease.state is not LeaseState.ENDED else "–",
            " + ".join(sides) or "–",
            lease.ending.value if lease.ending else "–",
        )
    return table


def clusters(views: Sequence[ClusterView], *, title: str | None = None) -> Grid:
    numbers = ("TOTAL", "FREE", "KEPT BACK", "LENT")
    table = Grid(
        "CLUSTER",
        Column("TENANT", drop=2),
        "STATE",
        *(Column(name, right=True) for name in numbers),
        Column("OFFERS", right=True, drop=3),
        Column("LENDS", right=True, drop=4),
        Column("BORROWS", right=True, drop=4),
        Column("SEEN", drop=5),
        Column("MESSAGE", drop=1, fold=True),
        title=title,
    )
    for view in views:
        counts = view.devices
        table.add(
            view.name,
            view.tenant,
            coloured(view.state),
            *(str(counts.get(key, 0)) for key in ("total", "free", "kept_back", "lent")),
            str(view.offers),
            str(view.lends),
            str(view.borrows),
            when(view.last_seen_at),
            view.message,
        )
    return table


def devices(lease: LeaseView | LeaseBody, *, title: str | None = None) -> Grid:
    table = Grid("DEVICE", Column("NODE", drop=1), Column("KEY", drop=2), Column("FENCE", right=True), title=title)
    for device in lease.devices:
        table.add(
            f"{device.driver}/{device.pool}/{device.name}", device.node or "–", device.key or "–", str(device.fence)
        )
    return table
