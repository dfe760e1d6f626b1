"""The optimizer's answer in the wire's words: the placement with what lost and why, or the reasons there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping

from broker.domain.placing import Choice, Plan
from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.service.market import Shown
from broker.wire.base import Money, price
from broker.wire.requests import Alternative, PlacementView, Reason
from optimizer.explain import sentence
from optimizer.solution import Binding, Change, Field, Lost, Refusal, Why

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
            detail=_capital(sentence(other.why) if other.lost is Lost.INELIGIBLE else sentence(other.lost)),
        )
        for other in placement.considered
        if other.group in shown and Why.TENANT not in other.why  # an offer that isn't open to them isn't there
    ]
    tiers = choice.want.tiers
    return PlacementView(
        cluster=choice.lot.cluster,
        offer=choice.lot.id,
        kind=shown[choice.lot.id].offer.kind,
        devices=placement.devices,
        price=price(choice.lot.price_micros),
        cost=Money.of(placement.cost_micros),
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


def reasons(refusal: Refusal, shown: Mapping[str, Shown]) -> list[Reason]:
    """Why nothing fits, most telling first: what stands in the way, what was removed, what would help."""
    found = [
        Reason(reason=each.limit.value.replace(" ", "-"), detail=_capital(sentence(each)), offers=0, change=None)
        for each in refusal.binding
    ]
    found += [
        Reason(reason=slug(why), detail=_capital(sentence(why)), offers=count)
        for why, count in sorted(refusal.removed.items(), key=lambda item: -item[1])
    ]
    found += [
        Reason(
            reason="would-fit",
            detail=f"It would be placed with {_changed(change)}.",
            change=_change(change, shown),
        )
        for change in refusal.changes
    ]
    return found or [nothing_offered()]


def nothing_offered() -> Reason:
    return Reason(reason="no-offers", detail="Nobody offers anything at the moment.")


def message(refusal: Refusal) -> str:
    """The whole in a few sentences."""
    return sentence(refusal)[:1_000]


def slug(why: Why) -> str:
    """``Why.PRICE_CAP`` → ``price-cap``; of several, the first."""
    first = next(iter(why), None)
    name = "none" if first is None else first.name or "other"
    return name.lower().replace("_", "-")


def dump(found: list[Reason]) -> str:
    return json.dumps([reason.model_dump(mode="json") for reason in found])


def _changed(change: Change) -> str:
    if change.field is Field.DURATION:
        return f"a duration of {format_duration(int(change.to))} instead"
    return sentence(change)


def _change(change: Change, shown: Mapping[str, Shown]) -> dict[str, object]:
    value: object = change.to
    if change.field in _MONEY and isinstance(change.to, int):
        value = str(from_micros(change.to))
    elif change.field is Field.DURATION:
        value = format_duration(int(change.to))
    told: dict[str, object] = {
        change.field.value.replace(" ", "_"): value,
        "offer": change.group,
        "cost": str(from_micros(change.cost_micros)),
    }
    if change.group in shown:
        told["cluster"] = shown[change.group].lot.cluster
    if change.id:
        told["of"] = change.id
    return told


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


__all__ = ["Binding", "dump", "message", "nothing_offered", "placement_view", "reasons", "slug", "solver"]
