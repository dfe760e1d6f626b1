"""A solution for programs: the shape that ``lendmesh solve --out json`` prints.

Amounts are texts in US dollars, durations as everywhere; every reason is there as data and as a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.wire.base import Outbound
from lendmesh.problems.usage import scarcity, usage
from optimizer.asks import Ask
from optimizer.explain import sentence
from optimizer.problem import Problem
from optimizer.solution import Change, Field, Idle, Limit, Placement, Refusal, Solution, Why

_MONEY_FIELDS = {Field.PRICE_CAP, Field.TOTAL_CAP, Field.TIER_CAP, Field.BUDGET}
_TIME_FIELDS = {Field.DURATION, Field.START_BY, Field.END_BY}
_MONEY_GOALS = {"cost", "welfare"}


class NodeUse(Outbound):
    """Units on one node."""

    node: int
    """Which of the offer's `nodes`, from 0."""
    units: int


class PartOut(Outbound):
    """What one offer gives."""

    offer: str
    cluster: str
    device: str
    region: str
    workers: int
    units: int
    devices: int
    """Lent and paid: units × devices in a unit."""
    cost: str
    """At the worst, transfer included."""
    nodes: list[NodeUse]
    """Where the offer says what its nodes hold."""


class Instead(Outbound):
    """An offer that was looked at and not chosen."""

    offer: str
    price: str
    cost: str
    lost: str
    """`taken`, `costlier`, `ineligible` and so on."""
    why: list[str]
    """The predicates that removed it."""
    detail: str
    """The same, in words."""


class PlacementOut(Outbound):
    """Where a request goes."""

    request: str
    tenant: str
    parts: list[PartOut]
    devices: int
    start: str
    """From now."""
    duration: str
    """Shorter than asked on faster devices."""
    form: int
    """0 is the request's own, 1 the first under `or`."""
    price: str
    """Per requested device-hour, whole units and transfer included."""
    cost: str
    loss: str
    """What counts beside the cost and is not paid: expected reclaims, waiting, being moved."""
    tier: int
    """From 0."""
    running: bool
    moved: bool
    instead: list[Instead]
    removed: dict[str, int]
    """Predicate → how many offers it removed."""


class BindingOut(Outbound):
    """A limit in the way."""

    limit: str
    """`group` (an offer), `node`, `shared`, `budget` or `quota`."""
    id: str
    short_by: int
    """Units, devices or millionths of a dollar."""
    detail: str


class ChangeOut(Outbound):
    """The smallest change of one thing that would place the request."""

    field: str
    to: str | int | bool
    id: str
    offer: str
    """Where it would go."""
    cost: str
    detail: str


class UnplacedOut(Outbound):
    """Why a request is not placed."""

    request: str
    tenant: str
    devices: int
    ended: bool
    """It ran, and the plan ends it."""
    offers: int
    """How many were looked at."""
    eligible: int
    """How many would suit alone."""
    removed: dict[str, int]
    """Predicate → how many offers it removed, alone or with others."""
    only: dict[str, int]
    """Predicate → how many it alone removed."""
    binding: list[BindingOut]
    changes: list[ChangeOut]
    outbid: str | None
    """By how much its best choice misses the clearing prices."""
    detail: str


class OfferOut(Outbound):
    """How much of an offer is used, and what it is worth."""

    offer: str
    cluster: str
    device: str
    supply: int
    """Units, in the bucket of time in which it is fullest."""
    used: int
    price: str
    clearing_price: str | None
    """Price and scarcity per device-hour; null where the solver needed no prices."""
    over_time: list[dict[str, int | str]]
    """`from`, `supply` and `used` for each of the document's `starts`."""
    free: int | None
    """Units nobody takes now; null where none are left."""
    asked: int | None
    """How many requests looked at it."""
    suits: int | None
    """How many of them it would suit."""
    removed: dict[str, int]
    """Predicate → how many requests it removed."""
    cut: str | None
    """How far its price is above what an unplaced request would pay."""


class GoalOut(Outbound):
    """One goal, in order of importance."""

    name: str
    maximise: bool
    unit: str
    """`µUSD`, or nothing for counts."""
    reached: int
    bound: int
    """No plan as good in all goals before passes this."""
    gap: float
    """0 is proved best."""


class Answer(Outbound):
    """The whole answer."""

    status: str
    """`optimal` or `feasible`."""
    stopped: bool
    """It was stopped before its time."""
    gap: float
    """Of the most important goal that is not proved best."""
    gap_of: str
    seconds: float
    cost: str
    placements: list[PlacementOut]
    unplaced: list[UnplacedOut]
    offers: list[OfferOut]
    goals: list[GoalOut]
    clearing: dict[str, dict[str, float]]
    """Limit → id → µUSD per unit, per device, or per µUSD of a budget."""
    fairness: dict[str, Any] | None
    stats: dict[str, float | int | str]


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
                detail=sentence(each),
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
