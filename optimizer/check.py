"""Whether a plan keeps every promise, by arithmetic that shares nothing with the code that made it.

Plain integers and one pass over the placements; no arrays, no filter, no solver. ``solve`` runs it on every plan
before handing it out, the broker before holding devices, and the tests on everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction

from optimizer.problem import MAX_MONEY, Ask, Confidential, Group, Problem, Tier
from optimizer.solution import Placement


def violations(problem: Problem, placements: Mapping[str, Placement]) -> tuple[str, ...]:
    """A sentence for each broken promise; empty for a valid plan."""
    groups = {group.id: group for group in problem.groups}
    asks = {ask.id: ask for ask in problem.asks}
    found: list[str] = []
    units: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    on_node: Counter[tuple[str, int]] = Counter()
    for name, placement in placements.items():
        ask, group = asks.get(name), groups.get(placement.group)
        if ask is None or group is None:
            found.append(f"Request {name!r} on group {placement.group!r}: one of them is not part of the problem.")
            continue
        found.extend(f"Request {name!r} on group {group.id!r}: {what}." for what in _wrong(ask, group, placement))
        units[group.id] += placement.units
        spent.update({budget: placement.cost_micros for budget in set(ask.budgets)})
        taken.update({quota: placement.devices for quota in set(ask.quotas)})
        for node, held in placement.nodes:
            on_node[group.id, node] += held
    for group in problem.groups:
        if units[group.id] > group.count:
            found.append(f"Group {group.id!r} has {group.count} units; the plan takes {units[group.id]}.")
        for node, free in enumerate(group.per_node):
            if on_node[group.id, node] > free:
                found.append(
                    f"Node {node} of group {group.id!r} has {free} units; {on_node[group.id, node]} are taken."
                )
    for row in problem.rows:
        used = sum(weight * units[name] for name, weight in row.members.items())
        if used > row.limit:
            found.append(f"Shared capacity {row.id!r} allows {row.limit}; the plan takes {used}.")
    found.extend(
        f"Budget {budget.id!r} has {budget.remaining_micros} µUSD; the plan needs {spent[budget.id]}."
        for budget in problem.budgets
        if spent[budget.id] > budget.remaining_micros
    )
    found.extend(
        f"Quota {quota.id!r} has {quota.remaining_devices} devices; the plan takes {taken[quota.id]}."
        for quota in problem.quotas
        if taken[quota.id] > quota.remaining_devices
    )
    return tuple(found)


def cost_of(ask: Ask, group: Group) -> int:
    """µUSD, worst case: whole units for the whole duration, rounded up, and transfer."""
    return -(-_hourly(ask, group) * ask.duration_s // 3600) + ask.transfer_micros.get(group.region, 0)


def rate_of(ask: Ask, group: Group) -> Fraction:
    """µUSD per requested device-hour, whole units and transfer included."""
    transfer = ask.transfer_micros.get(group.region, 0)
    return Fraction(_hourly(ask, group), ask.devices) + Fraction(3600 * transfer, ask.devices * ask.duration_s)


def unsuitable(ask: Ask, group: Group) -> Iterator[str]:
    """What forbids this group to this ask whoever else is placed; amounts are not looked at."""
    if group.cluster == ask.cluster:
        yield "it is the borrower's own cluster"
    if ask.matched is not None and group.id not in ask.matched:
        yield "its devices do not match"
    if group.id in ask.avoid:
        yield "it already failed this request"
    admitted = group.allowed_tenants is None or ask.tenant in group.allowed_tenants
    if not admitted and not (group.lender_tenant and group.lender_tenant == ask.tenant):
        yield f"the lender does not admit tenant {ask.tenant!r}"
    for what, value, allowed in (
        ("cluster", group.cluster, ask.clusters),
        ("region", group.region, ask.regions),
        ("provider", group.provider, ask.providers),
    ):
        if allowed is not None and value not in allowed:
            yield f"{what} {value!r} is not allowed"
    if ask.confidential is Confidential.REQUIRE and not group.confidential:
        yield "it does not declare to be confidential"
    if not group.min_duration_s <= ask.duration_s <= group.max_duration_s:
        yield f"the lender does not lend for {ask.duration_s} s"
    yield from _dear(ask, group)


def _dear(ask: Ask, group: Group) -> Iterator[str]:
    cost, tier, rate = cost_of(ask, group), _tier(ask, group), rate_of(ask, group)
    if ask.price_cap_micros is not None and rate > ask.price_cap_micros:
        yield f"{float(rate):.0f} µUSD per device-hour is above the cap of {ask.price_cap_micros}"
    if cost > (MAX_MONEY if ask.total_cap_micros is None else ask.total_cap_micros):
        yield f"{cost} µUSD for the whole is above the cap"
    if tier is None:
        yield "no tier admits it"
        return
    cap = ask.tiers[tier].price_cap_micros if ask.tiers else None
    if cap is not None and rate > cap:
        yield f"{float(rate):.0f} µUSD per device-hour is above its tier's cap of {cap}"


def _wrong(ask: Ask, group: Group, placement: Placement) -> Iterator[str]:
    yield from unsuitable(ask, group)
    units, cost = -(-ask.devices // group.unit), cost_of(ask, group)
    if (placement.units, placement.devices) != (units, units * group.unit):
        yield f"{placement.units} units of {group.unit} are not the whole of {ask.devices} devices"
    if placement.cost_micros != cost:
        yield f"the cost is {cost} µUSD, the plan says {placement.cost_micros}"
    if placement.tier != _tier(ask, group):
        yield f"it belongs to tier {_tier(ask, group)}, the plan says {placement.tier}"
    yield from _seated(ask, group, placement, units)


def _seated(ask: Ask, group: Group, placement: Placement, units: int) -> Iterator[str]:
    if group.per_node and sum(held for _, held in placement.nodes) != units:
        yield "its nodes do not add up to its units"
    for node, held in placement.nodes:
        if not 0 <= node < len(group.per_node) or held < 1:
            yield "it names a node that the group does not have"
        elif held > group.per_node[node]:
            yield f"node {node} has {group.per_node[node]} units, it takes {held}"
    if ask.same_node and len(placement.nodes) != 1:
        yield "it is not on one node"


def _hourly(ask: Ask, group: Group) -> int:
    return group.price_micros * -(-ask.devices // group.unit) * group.unit


def _tier(ask: Ask, group: Group) -> int | None:
    if not ask.tiers:
        return 0
    return next((rank for rank, tier in enumerate(ask.tiers) if _admits(tier, group)), None)


def _admits(tier: Tier, group: Group) -> bool:
    return (
        (tier.clusters is None or group.cluster in tier.clusters)
        and (tier.providers is None or group.provider in tier.providers)
        and (tier.regions is None or group.region in tier.regions)
        and (tier.groups is None or group.id in tier.groups)
    )
