"""The optimizer's answer in the wire's words: the placement with what lost and why, or the reasons there is none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from broker.domain.placing import MOST_DEVICES, Choice, Plan
from broker.domain.window import Window, told
from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.service.market import NODE, Shown
from broker.wire.base import Money, price
from broker.wire.requests import Alternative, NodeShare, PlacementView, Reason
from optimizer.explain import sentence
from optimizer.solution import Binding, Change, Field, Limit, Lost, Refusal, Why

NOT_YET, WINDOW = "not-yet", "window"
_FIELDS = {Field.UNINTERRUPTED: "interruptible"}
"""Named otherwise in a request."""
_MONEY = {Field.PRICE_CAP, Field.TOTAL_CAP, Field.TIER_CAP, Field.BUDGET}


def placement_view(choice: Choice, plan: Plan, shown: Mapping[str, Shown]) -> PlacementView:
    """What the solver chose, and the others it looked at."""
    placement = choice.placement
    alternatives = [
        Alternative(
            offer=other.group,
            cluster=shown[other.group].lot.cluster,
            price=price(other.price_micros),
            reason=slug(other.why) if other.lost is Lost.INELIGIBLE else other.lost.value.replace(" ", "-"),
            detail=_capital(_why(other.why) if other.lost is Lost.INELIGIBLE else sentence(other.lost)),
        )
        for other in placement.considered
        if other.group in shown and Why.TENANT not in other.why  # an offer that isn't open to them isn't there
    ]
    want, tiers = choice.want, choice.want.tiers
    transfer = want.transfer_micros.get(choice.lot.region, 0)
    return PlacementView(
        cluster=choice.lot.cluster,
        offer=choice.lot.id,
        kind=shown[choice.lot.id].offer.kind,
        devices=placement.devices,
        workers=want.workers,
        nodes=_nodes(choice.refs, shown[choice.lot.id], placement.devices // want.workers if want.same_node else None),
        price=price(choice.lot.price_micros),
        cost=Money.of(placement.cost_micros),
        transfer=Money.of(transfer) if transfer else None,
        tier=tiers[placement.tier].name if tiers else None,
        alternatives=alternatives,
        solver=solver(plan),
    )


def solver(plan: Plan) -> dict[str, object]:
    """Objective, bound, gap and time of the solve that decided."""
    solution = plan.solution
    return {
        "status": solution.status.value,
        "objective": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap,
        "wall_ms": round(solution.wall_s * 1000, 1),
        "requests": len(plan.problem.asks),
        "offers": len(plan.problem.groups),
    }


def _nodes(refs: Iterable[str], shown: Shown, worker: int | None) -> list[NodeShare]:
    """How much each node gives; ``worker``: devices of one, where each has its own in one node."""
    counts = Counter(shown.devices[ref][NODE] for ref in refs)
    return [
        NodeShare(node=node, devices=count, workers=None if worker is None else count // worker)
        for node, count in sorted(counts.items(), key=lambda each: each[0] or "")
    ]


def reasons(refusal: Refusal, shown: Mapping[str, Shown], *, workers: int = 1) -> list[Reason]:
    """Why nothing fits, most telling first: what stands in the way, what was removed, what would help."""
    found = [
        Reason(
            reason="lease-size" if each.limit is Limit.QUOTA else each.limit.value.replace(" ", "-"),
            detail=_capital(_binding(each)),
            offers=0,
            change=None,
        )
        for each in refusal.binding
    ]
    found += [
        Reason(reason=slug(why), detail=_capital(_why(why)), offers=count)
        for why, count in sorted(refusal.removed.items(), key=lambda item: -item[1])
    ]
    found += [
        Reason(
            reason="would-fit",
            detail=f"It would be placed with {_changed(change, workers)}.",
            change=_change(change, shown, workers),
        )
        for change in refusal.changes
        if change.field is not Field.QUOTA  # how large a lease may be is nobody's to change
    ]
    return found or [nothing_offered()]


def nothing_offered() -> Reason:
    return Reason(reason="no-offers", detail="Nobody offers anything at the moment.")


def message(refusal: Refusal) -> str:
    """The whole in a few sentences."""
    changes = tuple(change for change in refusal.changes if change.field is not Field.QUOTA)
    return sentence(replace(refusal, changes=changes))[:1_000]


def outside(window: Window, at: datetime, *, before: str) -> tuple[str, str]:
    """Reasons as JSON, and the sentence, for a request whose window isn't open: not yet, or not any more."""
    if window.not_before is not None and window.early(at):
        text = f"It is not to start before {told(window.not_before)}."
        return dump([Reason(reason=NOT_YET, detail=text)]), text
    text = f"It wanted {window.terms()}, and till then nothing was found."
    known = [each for each in json.loads(before) if each["reason"] not in (NOT_YET, WINDOW)]
    return dump([Reason(reason=WINDOW, detail=text), *map(Reason.model_validate, known)]), text


def ended(window: Window, found: str, text: str) -> tuple[str, str]:
    """The last reasons of a request whose latest start has come."""
    said = f"It wanted {window.terms()}, and till then nothing was found."
    known = map(Reason.model_validate, json.loads(found))
    return dump([Reason(reason=WINDOW, detail=said), *known]), f"{said} {text}"[:1_024]


def slug(why: Why) -> str:
    """``Why.PRICE_CAP`` → ``price-cap``; of several, the first."""
    first = next(iter(why), None)
    name = "none" if first is None else first.name or "other"
    return "lease-size" if first is Why.QUOTA else name.lower().replace("_", "-")


def dump(found: list[Reason]) -> str:
    return json.dumps([reason.model_dump(mode="json") for reason in found])


def _why(why: Why) -> str:
    """The broker's only quotas are of what one lease may hold."""
    return sentence(why).replace(sentence(Why.QUOTA), f"its whole units are more than the {MOST_DEVICES:,} of a lease")


def _binding(each: Binding) -> str:
    if each.limit is Limit.QUOTA:
        return f"its whole units are {each.short_by:,} devices more than the {MOST_DEVICES:,} of a lease"
    return sentence(each)


def _changed(change: Change, workers: int) -> str:
    if change.field is Field.DEVICES and workers > 1:
        return f"{change.to} devices for each of its {workers} workers instead"
    if change.field is Field.WORKERS:
        return f"{change.to} {'worker' if change.to == 1 else 'workers'} instead of {workers}"
    if change.field is Field.UNINTERRUPTED:
        return "interruptible offers allowed"
    if change.field is Field.DURATION:
        return f"a duration of {format_duration(int(change.to))} instead"
    return sentence(change)


def _change(change: Change, shown: Mapping[str, Shown], workers: int) -> dict[str, object]:
    value: object = change.to
    if change.field in _MONEY and isinstance(change.to, int):
        value = str(from_micros(change.to))
    elif change.field is Field.DURATION:
        value = format_duration(int(change.to))
    elif change.field is Field.UNINTERRUPTED:
        value = True
    data: dict[str, object] = {
        _FIELDS.get(change.field, change.field.value.replace(" ", "_")): value,
        "offer": change.group,
        "cost": str(from_micros(change.cost_micros)),
    }
    if change.field is Field.DEVICES and workers > 1:
        data["per"] = "worker"
    if change.group in shown:
        data["cluster"] = shown[change.group].lot.cluster
    if change.id:
        data["of"] = change.id
    return data


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


__all__ = ["Binding", "dump", "message", "nothing_offered", "placement_view", "reasons", "slug", "solver"]
