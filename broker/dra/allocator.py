"""Can these claims be satisfied on this node, and with which devices? The answer kube-scheduler would give.

Pure: slices, what is taken, and classes come in; allocations, or the reasons why there are none, go out. The reference
is the structured allocator of Kubernetes 1.36 (KEP-4381 with 4815, 5055, 5075, 5007 and the prioritised list). The
pieces: ``pools`` (what may be used at all), ``search`` (the trying), ``counters``, ``capacity``, ``constraints`` and
``taints`` (what forbids a device), ``cel`` (what a request wants).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.dra import pools as pooling
from broker.dra.availability import obstacle
from broker.dra.constraints import BadConstraint, check_for
from broker.dra.counters import Ledger
from broker.dra.model import (
    MAX_DEVICES_PER_CLAIM,
    Allocated,
    Allocation,
    Ask,
    Claim,
    DeviceClass,
    DeviceId,
    Features,
    Node,
    Request,
    Result,
    Slice,
)
from broker.dra.pools import Candidate, NodePool, Published
from broker.dra.quantity import ZERO, Quantity
from broker.dra.search import Pick, Plan, Search, SearchError

DEFAULT_FEATURES = Features()


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """There is no allocation. With ``error`` the claims or the pools are at fault, not the supply."""

    reasons: tuple[str, ...]
    error: bool = False


def allocate(
    *,
    claims: Sequence[Claim],
    node: Node,
    pools: Iterable[Published],
    allocated: Allocated,
    classes: Mapping[str, DeviceClass],
    features: Features = DEFAULT_FEATURES,
    new_share_id: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> list[Allocation] | Unsatisfiable:
    """Allocate all claims together on one node, or none.

    Args:
        claims: not yet allocated claims, in the order in which the pod names them.
        node: where they must be usable.
        pools: all pools of the cluster, of every node (``pools.assemble``).
        allocated: what is taken already (``taken_by``).
        classes: device classes by name.
        features: gates of the scheduler that is mirrored.
        new_share_id: makes the id of a share of a device that several claims may use.

    Returns:
        One allocation per claim, in order, or why there is none.
    """
    views = pooling.on_node(pools, node, features=features)
    ready = [candidate for view in views if view.pool.state == pooling.READY for candidate in view.candidates]
    try:
        search = _prepare(claims, views, ready, allocated, classes, features)
        if not search.run():
            return _why_not(search, views)
    except SearchError as error:
        return Unsatisfiable((str(error),), error=True)
    return [
        Allocation(
            results=tuple(_result(pick, new_share_id) for pick in search.picks[index]),
            node_selector=_node_selector(search.picks[index], node),
            config=tuple(_config(claim, [search.chosen[index, r] for r in range(len(claim.requests))])),
        )
        for index, claim in enumerate(claims)
    ]


def allocate_from_slices(*, slices: Iterable[Slice], **rest: Any) -> list[Allocation] | Unsatisfiable:
    """``allocate`` for a caller that keeps slices and not pools."""
    features = rest.get("features", DEFAULT_FEATURES)
    return allocate(pools=pooling.assemble(slices, features=features).values(), **rest)


def taken_by(claims: Iterable[Claim]) -> Allocated:
    """What the allocations of claims take, whoever they belong to and whether anybody uses them.

    Administrators' access takes nothing. A result with a share takes its part of a device, one without takes the whole
    device; that stays so when the device is published differently later.
    """
    dedicated: set[DeviceId] = set()
    shared: set[DeviceId] = set()
    consumed: dict[DeviceId, dict[str, Quantity]] = {}
    for claim in claims:
        for result in claim.allocation.results if claim.allocation else ():
            if result.admin:
                continue
            if result.share_id is None:
                dedicated.add(result.id)
                continue
            shared.add(result.id)
            sums = consumed.setdefault(result.id, {})
            for name, amount in result.consumed.items():
                sums[name] = sums.get(name, ZERO) + amount
    return Allocated(frozenset(dedicated), frozenset(shared), consumed)


def _prepare(
    claims: Sequence[Claim],
    views: Sequence[NodePool],
    ready: Sequence[Candidate],
    allocated: Allocated,
    classes: Mapping[str, DeviceClass],
    features: Features,
) -> Search:
    """Check what can be checked before searching, and find out how many devices "all" are."""
    try:
        checks = [[check_for(constraint) for constraint in claim.constraints] for claim in claims]
    except BadConstraint as error:
        raise SearchError(str(error)) from None
    plans: list[list[list[Plan]]] = []
    search = Search(claims, plans, checks, ready, allocated, features, {})
    for claim in claims:
        plans.append([])
        least = 0
        for request in claim.requests:
            where = f"claim {claim.full_name}, request {request.name}"
            if request.prioritised and not features.prioritized_list:
                raise SearchError(f"{where}: has alternatives, but the feature is disabled")
            prepared = [_plan(request, ask, where, views, classes, search) for ask in request.asks]
            plans[-1].append(prepared)
            least += min(plan.count for plan in prepared)
        if least > MAX_DEVICES_PER_CLAIM:
            raise SearchError(
                f"claim {claim.full_name}: {least} devices are asked for, at most {MAX_DEVICES_PER_CLAIM} fit a claim"
            )
    return search


def _plan(
    request: Request,
    ask: Ask,
    where: str,
    views: Sequence[NodePool],
    classes: Mapping[str, DeviceClass],
    search: Search,
) -> Plan:
    if ask.capacity is not None and not search.features.consumable_capacity:
        raise SearchError(f"{where}: asks for capacity, but the feature is disabled")
    if None in ask.selectors:
        raise SearchError(f"{where}: a selector is not CEL (of a kind that is not known here)")
    if ask.admin is not None and not search.features.admin_access:
        raise SearchError(f"{where}: asks for admin access, but the feature is disabled")
    if not ask.class_name:
        raise SearchError(f"{where}: names no device class (of a kind that is not known here)")
    device_class = classes.get(ask.class_name)
    if device_class is None:
        raise SearchError(f"{where}: there is no device class {ask.class_name}")
    plan = Plan(request, ask, device_class, ask.count)
    if ask.mode == "ExactCount":
        return plan
    if ask.mode != "All":
        raise SearchError(f"{where}: allocation mode {ask.mode} is not known here")
    everything: list[Candidate] = []
    for view in views:
        if view.pool.state != pooling.READY:
            raise SearchError(f"{where}: all devices are wanted, but pool {view.pool.id} is {view.pool.state}")
        everything += [c for c in view.candidates if search.wanted(plan, c) and search.fits(plan, c)]
    return Plan(request, ask, device_class, len(everything), tuple(everything))


def _why_not(search: Search, views: Sequence[NodePool]) -> Unsatisfiable:
    """In words, for people: what stands in the way of each request, as far as devices were looked at."""
    reasons = [f"pool {v.pool.id} is {v.pool.state}: {v.pool.problem}" for v in views if v.pool.state != pooling.READY]
    ledger = Ledger(search.allocated)
    for claim, requests in zip(search.claims, search.plans, strict=True):
        for plan in (plan for alternatives in requests for plan in alternatives):
            found: Counter[str] = Counter()
            for candidate in search.candidates:
                if search.matched.get((candidate.device.id, id(plan.ask))):
                    against = obstacle(
                        candidate.device,
                        candidate.pool,
                        allocated=search.allocated,
                        ledger=ledger,
                        features=search.features,
                    )
                    found[against[0] if against else "free"] += 1
            told = ", ".join(f"{number} {state}" for state, number in sorted(found.items())) or "none"
            reasons.append(
                f"claim {claim.full_name}, request {plan.full_name}: wants {plan.count}; unused that match: {told}"
            )
    return Unsatisfiable(tuple(reasons), error=any(view.pool.state == pooling.INVALID for view in views))


def _result(pick: Pick, new_share_id: Callable[[], str]) -> Result:
    device, ask = pick.candidate.device, pick.plan.ask
    return Result(
        request=pick.plan.full_name,
        id=device.id,
        admin=True if pick.plan.admin else None,
        share_id=None if pick.consumed is None else new_share_id(),
        consumed=pick.consumed or {},
        raw_tolerations=ask.raw_tolerations,
        binding_conditions=device.binding_conditions,
        binding_failure_conditions=device.binding_failure_conditions,
    )


def _node_selector(picks: Sequence[Pick], node: Node) -> dict[str, Any] | None:
    """Where the allocation can be used: this node once a device is local to it, else what its devices demand."""
    fields: list[dict[str, Any]] = []
    expressions: list[dict[str, Any]] = []
    for pick in picks:
        rule = pick.candidate.rule
        if rule.name or pick.candidate.device.binds_to_node:
            by_name = {"key": "metadata.name", "operator": "In", "values": [node.name]}
            return {"nodeSelectorTerms": [{"matchFields": [by_name]}]}
        for term in (rule.terms or ()) if not rule.everywhere else ():
            for found, requirements in ((fields, term.fields), (expressions, term.expressions)):
                for requirement in requirements:
                    raw: dict[str, Any] = {"key": requirement.key, "operator": requirement.operator}
                    if requirement.values:
                        raw["values"] = list(requirement.values)
                    if raw not in found:
                        found.append(raw)
    if not fields and not expressions:
        return None
    term_raw: dict[str, Any] = {}
    if expressions:
        term_raw["matchExpressions"] = expressions
    if fields:
        term_raw["matchFields"] = fields
    return {"nodeSelectorTerms": [term_raw]}


def _config(claim: Claim, chosen: Sequence[Plan]) -> list[dict[str, Any]]:
    """Parameters for the drivers: those of each class once, then the claim's own; no names means all requests."""
    entries: list[dict[str, Any]] = []
    by_class: dict[str, list[str]] = {}
    for plan in chosen:
        names = by_class.setdefault(plan.device_class.name, [])
        if not names:
            entries += [{"source": "FromClass", "requests": names, **one.raw} for one in plan.device_class.config]
        names.append(plan.full_name)
    entries += [
        {"source": "FromClaim", "requests": list(config.requests), **config.raw}
        for config in claim.config
        if not config.requests or any(_meant(config.requests, plan) for plan in chosen)
    ]
    for entry in entries:
        if not entry["requests"]:
            del entry["requests"]
    return entries


def _meant(requests: Sequence[str], plan: Plan) -> bool:
    return plan.request.name in requests or plan.full_name in requests
