"""Where a request went and why, or why it went nowhere and what would help: the broker's reasons, for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from broker.wire.requests import PlacementView, Reason, RequestState, RequestView
from lendmesh.grid import Column, Grid
from lendmesh.show import kind_name, money

MOST = 6
"""So many losing offers are named; the cheapest, since they are what people ask about."""
HELPS = "would-fit"
"""The broker's word for a change that it has checked: with it, the request would be placed."""
ASIDE = {"offer", "cost", "cluster", "of", "per"}
"""What a change says beside the one thing that has to change."""


def placement(view: RequestView, out: Console) -> None:
    """Where the request went and what lost; else the reasons."""
    if view.placement is not None:
        _placed(view.placement, out)
    if view.reasons and view.state is not RequestState.ACTIVE:
        reasons(view.reasons, out)


def _placed(placed: PlacementView, out: Console) -> None:
    tier = f", tier {placed.tier}" if placed.tier else ""
    out.print(
        f"[bold]{placed.devices} × {kind_name(placed.kind)}[/] from [bold]{placed.cluster}[/] at "
        f"[bold]{money(placed.price.micros)}[/] a device-hour{tier}: at most {money(placed.cost.amount)}"
        f"{_proof(placed)}"
    )
    if placed.transfer is not None:
        out.print(f"  {money(placed.transfer.amount)} of that for bringing the data there")
    if placed.workers > 1:
        out.print(f"  for {placed.workers} workers: {_seats(placed)}")
    if not placed.alternatives:
        return
    table = Grid("INSTEAD OF", "CLUSTER", Column("PRICE/H", right=True), Column("BECAUSE", fold=True))
    cheapest = sorted(placed.alternatives, key=lambda other: other.price.micros)
    for other in cheapest[:MOST]:
        table.add(other.offer, other.cluster, money(other.price.micros), other.detail)
    out.print(table)
    if len(cheapest) > MOST:
        out.print(f"[dim]and {len(cheapest) - MOST} more[/]")


def _seats(placed: PlacementView) -> str:
    """``2 on node-1, 2 on node-3``; devices where a worker's need not be on one node."""
    shares = [
        f"{share.devices if share.workers is None else share.workers}"
        f"{' devices' if share.workers is None else ''} {'in no node' if share.node is None else f'on {share.node}'}"
        for share in placed.nodes
    ]
    more = f" and {len(shares) - MOST} nodes more" if len(shares) > MOST else ""
    return ", ".join(shares[:MOST]) + more


def _proof(placed: PlacementView) -> str:
    """What the solver says about its own answer, where it said it."""
    told = placed.solver
    if told.get("status") == "optimal":
        return f"; no plan is better (proved in {told.get('wall_ms')} ms)"
    gap = told.get("gap")
    return f"; at most {gap:.1%} from the best plan" if isinstance(gap, float) else ""


def reasons(found: Sequence[Reason], out: Console) -> None:
    """What would help first, then why not; the single offers that fall short in one line."""
    helping = [reason for reason in found if reason.reason == HELPS and reason.change]
    if helping:
        out.print("[bold]It would fit with[/]")
        for reason in helping:
            out.print(Text.assemble("  ", (_change(reason), "green"), _where(reason)))
    others = [reason for reason in found if reason not in helping]
    short = [reason for reason in others if not reason.offers]
    counted = [reason for reason in others if reason.offers]
    if others:
        out.print("[bold]Why not[/]")
    for reason in counted:
        out.print(Text(f"  {reason.offers:>3} {'offer ' if reason.offers == 1 else 'offers'}  {_lower(reason.detail)}"))
    if len(short) > 1:
        shown = "; ".join(_lower(reason.detail) for reason in short[:3])
        more = f"; and {len(short) - 3} more" if len(short) > 3 else ""
        out.print(Text(f"  closest: {shown}{more}"))
    elif short:
        out.print(Text(f"  {short[0].detail}"))


def _change(reason: Reason) -> str:
    """``price cap $2.40``, ``6 devices instead``; the broker's sentence where it is something else."""
    wanted = {key: value for key, value in (reason.change or {}).items() if key not in ASIDE}
    if len(wanted) != 1:
        return reason.detail
    (key, value), name = next(iter(wanted.items())), next(iter(wanted)).replace("_", " ")
    of = (reason.change or {}).get("of")
    if key in ("price_cap", "total_cap", "tier_cap", "budget"):
        return f"{name}{f' {of}' if of else ''} {'+' if key == 'budget' else ''}${value}"
    if key == "devices":
        return f"{value} devices {'for each worker ' if 'per' in (reason.change or {}) else ''}instead"
    if key == "quota":
        return f"{value} devices more in quota {of}"
    if key == "workers":
        return f"{value} {'worker' if value == 1 else 'workers'} instead"
    if key == "interruptible":
        return "interruptible offers allowed"
    if value is False:
        return {"confidential": "confidential not required", "same_node": "several nodes allowed"}.get(
            key, reason.detail
        )
    return f"{name} {value}"


def _where(reason: Reason) -> str:
    change = reason.change or {}
    at = f" → {change['cluster']}" if "cluster" in change else ""
    return at + (f", ${change['cost']} in all" if "cost" in change else "")


def _lower(sentence: str) -> str:
    return f"{sentence[:1].lower()}{sentence[1:]}".rstrip(".")
