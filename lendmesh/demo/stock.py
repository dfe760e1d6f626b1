"""The first picture of the tour: what every cluster has of each kind, and where each device stands.

What is there and in use comes from the clusters' own objects, what is offered from the broker.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from broker.dra.inventory import ALLOCATED, FREE, Inventory
from broker.wire.agents import ClusterView
from broker.wire.offers import OfferView
from lendmesh import show
from lendmesh.grid import Column, Grid

LONGEST_BAR = 24
OFFERED, HOME, BUSY, OUT = ("█", "green"), ("▒", "yellow"), ("░", "cyan"), ("✕", "red")
MOST_REASONS = 4


@dataclass(frozen=True, slots=True)
class Stock:
    """How the devices of one kind in one cluster stand."""

    model: str
    partition: str
    """The profile, where these are parts of devices; else empty."""
    memory: int | None
    total: int
    free: int
    busy: int
    offered: int

    @property
    def home(self) -> int:
        """Free and not on offer."""
        return max(0, self.free - self.offered)

    @property
    def out(self) -> int:
        """Neither free nor in use: tainted, incomplete, stale, unusable."""
        return self.total - self.free - self.busy


def stocks(inventory: Inventory, offers: Sequence[OfferView]) -> list[Stock]:
    """One for each kind; whole devices before parts of them. ``offers`` are those of this cluster."""
    states: dict[tuple[str, str], Counter[str]] = {}
    memory: dict[tuple[str, str], int | None] = {}
    for device in inventory.devices():
        kind = (device.identity.model, device.identity.partition or "")
        states.setdefault(kind, Counter())[device.state] += 1
        memory[kind] = device.identity.memory_bytes
    offered: Counter[tuple[str, str]] = Counter()
    for offer in offers:
        offered[(offer.kind.model, offer.kind.partition or "")] += offer.devices
    return [
        Stock(
            model=kind[0],
            partition=kind[1],
            memory=memory[kind],
            total=found.total(),
            free=found[FREE],
            busy=found[ALLOCATED],
            offered=offered[kind],
        )
        for kind, found in sorted(states.items())
    ]


def picture(found: Mapping[str, Sequence[Stock]]) -> Grid:
    """A row a kind, with a bar that shows how its devices stand."""
    numbers = ("TOTAL", "IN USE", "FREE", "HOME", "ON OFFER")
    table = Grid(
        "CLUSTER",
        "MODEL",
        Column("MEMORY", right=True, drop=1),
        *(Column(name, right=True) for name in numbers),
        Column("", drop=2),
    )
    for cluster, kinds in found.items():
        above = ""
        for number, stock in enumerate(kinds):
            whole = f"{stock.model} · {stock.partition}" if stock.partition else stock.model
            table.add(
                cluster if number == 0 else "",
                f"  └ {stock.partition}" if stock.partition and stock.model == above else whole,
                show.memory(stock.memory),
                *(_number(count) for count in (stock.total, stock.busy, stock.free, stock.home)),
                Text(str(stock.offered), "bold green" if stock.offered else "dim"),
                bar(stock),
            )
            above = stock.model
    return table


def legend() -> Text:
    """What the bars are made of."""
    words = ((OFFERED, "on offer"), (HOME, "free, stays home"), (BUSY, "in use"))
    line = Text()
    for glyph, word in words:
        line.append(*glyph).append(f" {word}   ", "dim")
    return line


def stays(view: ClusterView) -> str:
    """Why devices of a cluster are not on offer, most first."""
    found = [f"{each['devices']} × {each['reason']}" for each in view.excluded[:MOST_REASONS]]
    if not view.devices.get("total"):
        return f"{view.name} has no devices"
    return f"{view.name}, not on offer: {'; '.join(found)}" if found else f"{view.name} offers all it has"


def bar(stock: Stock) -> Text:
    """A glyph for each device, or for as many as keep the bar short."""
    scale = max(1.0, stock.total / LONGEST_BAR)
    line = Text()
    for (glyph, style), count in (
        (OFFERED, stock.offered),
        (HOME, stock.home),
        (BUSY, stock.busy),
        (OUT, stock.out),
    ):
        line.append(glyph * (max(1, round(count / scale)) if count else 0), style)
    return line


def _number(count: int) -> Text:
    return Text(str(count), "" if count else "dim")
