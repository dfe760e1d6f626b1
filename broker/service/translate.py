"""From the wire's words to the domain's: what a capacity request and its burst policy together ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import TypeGuard

from broker.domain.offer import Policy
from broker.domain.placing import Limits, Want
from broker.domain.request import Request
from broker.domain.window import Window
from broker.wire.burst import BurstPolicySpec
from broker.wire.requests import CapacityRequest, Tier, Where

_CONFIDENTIAL = ("none", "prefer", "require")


@lru_cache(maxsize=1_024)
def policy_spec(text: str) -> BurstPolicySpec:
    return BurstPolicySpec.model_validate_json(text)


def budget_of(spec: BurstPolicySpec) -> int | None:
    """µUSD per calendar month; None: no budget of its own."""
    return None if spec.budget is None else spec.budget.amount


def pays(policy: Policy | None) -> TypeGuard[Policy]:
    """Whether it is there and not suspended: without it a request that left its caps to it would have none."""
    return policy is not None and not policy_spec(policy.spec).suspended


def budget_id(cluster: str, policy: str) -> str:
    return f"{cluster}/{policy}"


def want(
    request: Request,
    body: CapacityRequest,
    spec: BurstPolicySpec | None,
    *,
    matched: frozenset[str] | None,
    transfers: Mapping[str, int],
) -> Want:
    """The request as the placing sees it; where a burst policy pays, its limits hold beside the request's own."""
    tiers = body.tiers if spec is None else spec.tiers
    limits = _limits(body.where, body.price_cap.micros if body.price_cap else None)
    confidential, interruptible = body.confidential, body.interruptible
    budget = None
    if spec is not None:
        limits = _both(limits, _limits(spec.where, None))
        confidential = max(confidential, spec.confidential, key=_CONFIDENTIAL.index)
        interruptible = interruptible and spec.interruptible
        if request.policy is not None and spec.budget is not None:
            budget = budget_id(request.cluster, request.policy)
    return Want(
        id=request.id,
        tenant=request.tenant,
        cluster=request.cluster,
        devices=body.devices.count,
        workers=body.devices.workers,
        duration_s=body.duration,
        created_at=request.created_at,
        limits=limits,
        tiers=tuple(_tier(tier) for tier in tiers),
        total_cap_micros=body.total_cap.amount if body.total_cap else None,
        confidential=confidential,
        uninterrupted=not interruptible,
        transfer_micros=transfers,
        same_node=body.devices.same_node,
        priority=body.priority,
        matched=matched,
        budget=budget,
        excluded=request.excluded,
    )


def window(body: CapacityRequest) -> Window:
    """When it may start."""
    return Window(
        duration_s=body.duration, not_before=body.not_before, start_by=body.start_by, finish_by=body.finish_by
    )


def may_start(body: CapacityRequest, at: datetime) -> bool:
    """Whether its window, if it has one, is open."""
    if body.not_before is body.start_by is body.finish_by is None:
        return True  # nearly everybody
    asked = window(body)
    return not asked.early(at) and not asked.over(at)


def _tier(tier: Tier) -> Limits:
    limits = _limits(tier.where, tier.price_cap.micros)
    return Limits(
        name=tier.name,
        price_cap_micros=limits.price_cap_micros,
        clusters=limits.clusters,
        regions=limits.regions,
        jurisdictions=limits.jurisdictions,
        providers=limits.providers,
    )


def _limits(where: Where, cap: int | None) -> Limits:
    return Limits(
        price_cap_micros=cap,
        clusters=_set(where.clusters),
        regions=_set(where.regions),
        jurisdictions=_set(where.jurisdictions),
        providers=_set(where.providers),
    )


def _both(one: Limits, other: Limits) -> Limits:
    return Limits(
        price_cap_micros=one.price_cap_micros,
        clusters=_meet(one.clusters, other.clusters),
        regions=_meet(one.regions, other.regions),
        jurisdictions=_meet(one.jurisdictions, other.jurisdictions),
        providers=_meet(one.providers, other.providers),
    )


def _set(names: Iterable[str]) -> frozenset[str] | None:
    return frozenset(names) or None


def _meet(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other
