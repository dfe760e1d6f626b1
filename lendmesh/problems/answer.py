"""From a solution to the answer that programs read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from lendmesh.problems.shape import (
    Answer,
    BindingOut,
    ChangeOut,
    GoalOut,
    Instead,
    NodeUse,
    OfferOut,
    PartOut,
    PlacementOut,
    UnplacedOut,
)
from lendmesh.problems.usage import scarcity, usage
from optimizer.asks import Ask
from optimizer.explain import sentence
from optimizer.problem import Problem
from optimizer.solution import Change, Field, Idle, Limit, Placement, Refusal, Solution, Why

_MONEY_FIELDS = {Field.PRICE_CAP, Field.TOTAL_CAP, Field.TIER_CAP, Field.BUDGET}
_TIME_FIELDS = {Field.DURATION, Field.START_BY, Field.END_BY}
_MONEY_GOALS = {"cost", "welfare"}


def answer(problem: Problem, solution: Solution, *, stopped: bool = False) -> Answer:
    """The solution in words that need no other document."""
    asks = {ask.id: ask for ask in problem.asks}
    return Answer(
        status=solution.status.value,
        stopped=stopped,
        gap=round(solution.gap, 9),
        gap_of=weakest(solution),
        seconds=round(solution.wall_s, 3),
        cost=dollars(solution.cost_micros),
        placements=[_placement(problem, asks[name], each) for name, each in solution.placements.items()],
        unplaced=[
            _unplaced(asks[name], each, ended=name in solution.ended) for name, each in solution.unplaced.items()
        ],
        offers=_offers(problem, solution),
        goals=[
            GoalOut(
                name=goal.name,
                maximise=goal.maximise,
                unit="µUSD" if is_money(goal.name) else "",
                reached=goal.reached,
                bound=goal.bound,
                proof=goal.proof.value,
                gap=round(goal.gap, 9),
            )
            for goal in solution.goals
        ],
        clearing=_clearing(solution),
        fairness=_fairness(solution),
        stats=dict(solution.stats),
    )


def weakest(solution: Solution) -> str:
    """The name of the most important goal that is not proved best, or of the last."""
    return next(
        (goal.name for goal in solution.goals if goal.gap > 0), solution.goals[-1].name if solution.goals else ""
    )


def is_money(goal: str) -> bool:
    """Whether a goal is counted in µUSD."""
    return goal in _MONEY_GOALS


def dollars(micros: int) -> str:
    """Exact."""
    return f"-{from_micros(-micros)}" if micros < 0 else str(from_micros(micros))


def words(why: Why) -> list[str]:
    """``PRICE_CAP`` as ``price-cap``."""
    return [bit.name.lower().replace("_", "-") for bit in why if bit.name]


def counted(removed: Mapping[Why, int]) -> dict[str, int]:
    """The largest first."""
    return {words(bit)[0]: count for bit, count in sorted(removed.items(), key=lambda each: -each[1])}


def value_of(change: Change) -> str | int | bool:
    """What it changes to, as the document would say it."""
    if isinstance(change.to, int) and not isinstance(change.to, bool):
        if change.field in _MONEY_FIELDS:
            return dollars(change.to)
        if change.field in _TIME_FIELDS:
            return format_duration(change.to)
    return change.to


def helpful(change: Change, ask: Ask) -> str:
    """What would help, with durations as people write them, and devices as the request counts them."""
    at = value_of(change)
    return {
        Field.DURATION: f"a duration of {at} instead",
        Field.START_BY: f"a start as late as {at} from now",
        Field.END_BY: f"a deadline {at} from now",
        Field.WORKERS: f"{at} {'worker' if at == 1 else 'workers'} instead",
        Field.DEVICES: f"{at} {'device' if at == 1 else 'devices'}{' a worker' if ask.workers > 1 else ''} instead",
    }.get(change.field) or sentence(change)


def _placement(problem: Problem, ask: Ask, placed: Placement) -> PlacementOut:
    groups = {group.id: group for group in problem.groups}
    return PlacementOut(
        request=ask.id,
        tenant=ask.tenant,
        parts=[
            PartOut(
                offer=part.group,
                cluster=groups[part.group].cluster,
                device=groups[part.group].kind,
                region=groups[part.group].region,
                workers=part.workers,
                units=part.units,
                devices=part.devices,
                cost=dollars(part.cost_micros),
                nodes=[NodeUse(node=node, units=units) for node, units in part.nodes],
            )
            for part in placed.parts
        ],
        devices=placed.devices,
        start=format_duration(placed.start_s),
        duration=format_duration(placed.duration_s),
        form=placed.form,
        price=dollars(placed.price_micros),
        cost=dollars(placed.cost_micros),
        loss=dollars(placed.loss_micros),
        tier=placed.tier,
        running=ask.running is not None,
        moved=placed.moved,
        instead=[
            Instead(
                offer=other.group,
                price=dollars(other.price_micros),
                cost=dollars(other.cost_micros),
                lost=other.lost.value,
                why=words(other.why),
                detail=sentence(other.why) if other.why else sentence(other.lost),
            )
            for other in placed.considered
        ],
        removed=counted(placed.removed),
    )


def _unplaced(ask: Ask, refusal: Refusal, *, ended: bool) -> UnplacedOut:
    return UnplacedOut(
        request=ask.id,
        tenant=ask.tenant,
        devices=ask.total,
        ended=ended,
        offers=refusal.groups,
        eligible=refusal.eligible,
        removed=counted(refusal.removed),
        only=counted(refusal.only),
        binding=[
            BindingOut(limit=each.limit.value, id=each.id, short_by=each.short_by, detail=sentence(each))
            for each in refusal.binding
        ],
        changes=[
            ChangeOut(
                field=each.field.value,
                to=value_of(each),
                id=each.id,
                offer=each.group,
                cost=dollars(each.cost_micros),
                detail=helpful(each, ask),
            )
            for each in refusal.changes
        ],
        outbid=None if refusal.outbid_micros is None else dollars(refusal.outbid_micros),
        detail=sentence(refusal),
    )


def _offers(problem: Problem, solution: Solution) -> list[OfferOut]:
    used, scarce = usage(problem, solution.placements), scarcity(problem, solution)
    priced = any(limit is Limit.GROUP for limit, _ in solution.prices)
    found = []
    for group in problem.groups:
        use, idle = used[group.id], solution.unused.get(group.id)
        clearing = group.price_micros + round(scarce.get(group.id, 0)) if priced else None
        found.append(
            OfferOut(
                offer=group.id,
                cluster=group.cluster,
                device=group.kind,
                supply=use.supply[use.fullest],
                used=use.used[use.fullest],
                price=dollars(group.price_micros),
                clearing_price=None if clearing is None else dollars(clearing),
                over_time=[
                    {"from": format_duration(start), "supply": supply, "used": taken}
                    for start, supply, taken in zip(problem.starts, use.supply, use.used, strict=True)
                ],
                **_idle(idle),
            )
        )
    return found


def _idle(idle: Idle | None) -> dict[str, Any]:
    if idle is None:
        return {"free": None, "asked": None, "suits": None, "removed": {}, "cut": None}
    return {
        "free": idle.free,
        "asked": idle.asks,
        "suits": idle.eligible,
        "removed": counted(idle.removed),
        "cut": None if idle.cut_micros is None else dollars(idle.cut_micros),
    }


def _clearing(solution: Solution) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for (limit, name), price in solution.prices.items():
        found.setdefault(limit.value, {})[name] = round(price, 6)
    return found


def _fairness(solution: Solution) -> dict[str, Any] | None:
    fair = solution.fairness
    if fair is None:
        return None
    return {
        "least": round(fair.least, 6),
        "most": round(fair.most, 6),
        "tenants": {
            tenant: {
                "guaranteed": share.guaranteed,
                "devices": share.devices,
                "entitled": share.entitled,
                "entitled_placed": share.entitled_placed,
                "dominant": round(share.dominant, 6),
                "weighted": round(share.weighted, 6),
            }
            for tenant, share in fair.tenants.items()
        },
        "envy": [{"tenant": each.tenant, "of": each.of, "devices": each.devices} for each in fair.envy],
    }
