"""How things look on a screen: tables where people would rather look than read, JSON or YAML for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.wire.agents import ClusterView
from broker.wire.leases import LeaseState, LeaseView
from broker.wire.offers import OfferView
from broker.wire.requests import Reason, RequestState, RequestView

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


def console(*, stderr: bool = False) -> Console:
    """A console that wraps nothing away when its output is a file."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 160, highlight=False)


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
    far = format_duration(abs(seconds) if abs(seconds) < 3_600 else abs(seconds) // 60 * 60)
    if seconds == 0:
        return "now"
    return f"in {far}" if seconds > 0 else f"{far} ago"


def plain_table(title: str | None, *columns: str, right: Iterable[str] = ()) -> Table:
    """The one table style of this command."""
    numbers = set(right)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", header_style="bold", overflow="fold")
    return table


def offers(views: Sequence[OfferView], *, title: str | None = None) -> Table:
    table = plain_table(
        title,
        "OFFER",
        "CLUSTER",
        "MODEL",
        "MEMORY",
        "FREE",
        "A NODE",
        "PRICE/H",
        "REGION",
        "MAX",
        "CONFIDENTIAL",
        "VALID",
        right=("FREE", "A NODE", "PRICE/H", "MEMORY"),
    )
    for offer in views:
        memory = f"{offer.kind.memory_bytes / 2**30:.0f}Gi" if offer.kind.memory_bytes else "–"
        model = f"{offer.kind.model} · {offer.kind.partition}" if offer.kind.partition else offer.kind.model
        secret = offer.confidential
        table.add_row(
            offer.id,
            offer.cluster,
            model,
            memory,
            str(offer.devices),
            str(offer.largest_node),
            money(offer.price.micros),
            offer.place.region or "–",
            format_duration(offer.terms.max_duration),
            f"{secret.tee}+{secret.gpu} (declared)" if secret.declared else "–",
            Text("stale", style="red") if offer.stale else when(offer.valid_until),
        )
    return table


def requests(views: Sequence[RequestView], *, title: str | None = None) -> Table:
    table = plain_table(
        title,
        "REQUEST",
        "CLUSTER",
        "DEVICES",
        "FOR",
        "STATE",
        "STEP",
        "FROM",
        "PRICE/H",
        "LEASE",
        "AGE",
        right=("DEVICES", "PRICE/H"),
    )
    for view in views:
        placed = view.placement
        table.add_row(
            view.id,
            view.cluster,
            str(view.request.devices.count),
            format_duration(view.request.duration),
            coloured(view.state.value),
            view.step.value,
            placed.cluster if placed else "–",
            money(placed.price.micros) if placed else "–",
            view.lease or "–",
            when(view.created_at),
        )
    return table


def leases(views: Sequence[LeaseView], *, title: str | None = None) -> Table:
    table = plain_table(
        title,
        "LEASE",
        "LENDER",
        "BORROWER",
        "DEVICES",
        "MODEL",
        "STATE",
        "PRICE/H",
        "COST",
        "EXPIRES",
        "MIRRORED",
        "ENDING",
        right=("DEVICES", "PRICE/H", "COST"),
    )
    for lease in views:
        sides = [
            side for side, done in (("lender", lease.mirrored.lender), ("borrower", lease.mirrored.borrower)) if done
        ]
        table.add_row(
            lease.id,
            lease.lender,
            lease.borrower,
            str(len(lease.devices)),
            lease.kind.model,
            coloured(lease.state.value),
            money(lease.price.micros),
            money(lease.cost.amount),
            when(lease.expires_at) if lease.state is not LeaseState.ENDED else "–",
            " + ".join(sides) or "–",
            lease.ending.value if lease.ending else "–",
        )
    return table


def clusters(views: Sequence[ClusterView], *, title: str | None = None) -> Table:
    table = plain_table(
        title,
        "CLUSTER",
        "TENANT",
        "STATE",
        "TOTAL",
        "FREE",
        "KEPT BACK",
        "LENT",
        "OFFERS",
        "LENDS",
        "BORROWS",
        "SEEN",
        "MESSAGE",
        right=("TOTAL", "FREE", "KEPT BACK", "LENT", "OFFERS", "LENDS", "BORROWS"),
    )
    for view in views:
        counts = view.devices
        table.add_row(
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


def devices(lease: LeaseView, *, title: str | None = None) -> Table:
    table = plain_table(title, "DEVICE", "NODE", "KEY", "FENCE", right=("FENCE",))
    for device in lease.devices:
        table.add_row(
            f"{device.driver}/{device.pool}/{device.name}", device.node or "–", device.key or "–", str(device.fence)
        )
    return table


def placement(view: RequestView, out: Console) -> None:
    """Where the request went and why, or why it went nowhere."""
    if view.placement is not None:
        placed = view.placement
        tier = f", tier {placed.tier}" if placed.tier else ""
        out.print(
            f"[bold]{placed.devices} × {placed.kind.model}[/] from [bold]{placed.cluster}[/] at "
            f"{money(placed.price.micros)} a device-hour{tier}: at most {money(placed.cost.amount)}"
        )
        if placed.alternatives:
            table = plain_table(None, "INSTEAD OF", "CLUSTER", "PRICE/H", "BECAUSE", right=("PRICE/H",))
            for other in placed.alternatives:
                table.add_row(other.offer, other.cluster, money(other.price.micros), other.detail)
            out.print(table)
    if view.reasons and view.state is not RequestState.ACTIVE:
        reasons(view.reasons, out)


def reasons(found: Sequence[Reason], out: Console) -> None:
    """Why not, and what would have to change."""
    table = plain_table(None, "WHY NOT", "OFFERS", "IT WOULD FIT WITH", right=("OFFERS",))
    for reason in found:
        change = ", ".join(f"{key}: {value}" for key, value in (reason.change or {}).items())
        table.add_row(reason.detail, str(reason.offers) if reason.offers else "–", change or "–")
    out.print(table)
