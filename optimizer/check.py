"""Whether a plan keeps every promise, by arithmetic that shares nothing with the code that made it.

Plain integers and one pass over the placements; no arrays, no filter, no solver. ``solve`` runs it on every plan
before handing it out, the broker before holding devices, and the tests on everything. What one request may do on one
group is in ``suits``, what all of them take together in ``tally``; this file reads a plan against both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from optimizer.problem import MAX_MONEY, Aim, Ask, Form, Group, Problem
from optimizer.solution import Part, Placement
from optimizer.suits import (
    cost_of,
    duration_of,
    form_at,
    form_of,
    hourly_of,
    loss_of,
    rate_of,
    tier_of,
    units_of,
    unsuitable,
    up,
)
from optimizer.tally import Limits

__all__ = ["cost_of", "loss_of", "overdrawn", "rate_of", "unsuitable", "violations", "wrong"]


def violations(problem: Problem, placements: Mapping[str, Placement]) -> tuple[str, ...]:
    """A sentence for each broken promise; empty for a valid plan."""
    limits = Limits(problem)
    asks = {ask.id: ask for ask in problem.asks}
    found = [
        f"The running lease {ask.id!r} must not be ended; the plan leaves it out."
        for ask in problem.asks
        if ask.running is not None and ask.running.end_micros is None and ask.id not in placements
    ]
    known: dict[str, Placement] = {}
    for name, placement in placements.items():
        if name not in asks:
            found.append(f"Request {name!r} is not part of the problem.")
        elif not placement.parts:
            found.append(f"Request {name!r} is placed, and nowhere.")
        elif strange := [part.group for part in placement.parts if part.group not in limits.groups]:
            found.append(f"Request {name!r} is placed on {strange[0]!r}, which is not part of the problem.")
        else:
            known[name] = placement
            found.extend(_wrong(limits, asks[name], placement))
    found.extend(limits.overdrawn(known))
    return tuple(found)


def wrong(problem: Problem, ask: Ask, placement: Placement) -> tuple[str, ...]:
    """As ``violations``, of one placement whatever else is placed; its groups must be part of the problem."""
    return tuple(_wrong(Limits(problem), ask, placement))


def overdrawn(problem: Problem, placements: Mapping[str, Placement]) -> tuple[str, ...]:
    """As ``violations``, of the limits that several share; requests and groups must be part of the problem."""
    return tuple(Limits(problem).overdrawn(placements))


def _wrong(limits: Limits, ask: Ask, placement: Placement) -> Iterator[str]:
    groups = [limits.groups[part.group] for part in placement.parts]
    if ask.running is not None and not placement.moved:
        problems = _uprooted(limits, ask, groups, placement)
    else:
        problems = _misplaced(limits, ask, groups, placement)
    for what in problems:
        where = " and ".join(repr(group.id) for group in groups)
        yield f"Request {ask.id!r} on group {where}: {what}."


def _misplaced(limits: Limits, ask: Ask, groups: list[Group], placement: Placement) -> Iterator[str]:
    """Of an ordinary option: one that is not a running lease which stays."""
    start, parts = placement.start_s, placement.parts
    form = form_at(ask, placement.form)
    ranks = {form_of(ask, group.id) for group in groups}
    for group in groups:
        for what in unsuitable(ask, group, start_s=start, form=form):
            yield what if len(groups) == 1 else f"on {group.id!r} {what}"
    if start not in limits.starts:
        yield f"{start} s is no start of the problem"
    if ranks != {placement.form} and ranks != {None}:
        yield f"it suits in form {' and '.join(sorted(map(str, ranks)))}, the plan says {placement.form}"
    if len(parts) > 1:
        yield from _scattered(limits, ask, groups, placement)
    if min(part.workers for part in parts) < 1:
        yield "a part has no worker"
    if (workers := sum(part.workers for part in parts)) != form.workers:
        yield f"{workers} workers are not the whole of {form.workers}"
    seconds, fees = duration_of(ask, form), [ask.transfer_micros.get(group.region, 0) for group in groups]
    hourly = [_hourly(form, group, part, start) for group, part in zip(groups, parts, strict=True)]
    for group, part, each, fee in zip(groups, parts, hourly, fees, strict=True):
        yield from _unequal(form, group, part, up(each * seconds, 3600) + fee)
        yield from _seated(limits, ask, form, group, part)
    yield from _misdeclared(form, seconds, sum(hourly) * seconds + 3600 * sum(fees), placement)
    tiers = [tier_of(ask, group) for group in groups]
    if None not in tiers and placement.tier != max(tier or 0 for tier in tiers):
        yield f"it belongs to tier {max(tier or 0 for tier in tiers)}, the plan says {placement.tier}"
    loss = loss_of(ask, *groups, start_s=start, moved=placement.moved, form=form)
    if placement.loss_micros != loss:
        yield f"the loss is {loss} µUSD, the plan says {placement.loss_micros}"
    if limits.aim is Aim.WELFARE and (profit := worth(ask) - placement.cost_micros - loss) < 0:
        yield f"it costs {-profit} µUSD more than it is worth"
    if placement.moved:
        yield from _unmoved(limits, ask, placement)


def _scattered(limits: Limits, ask: Ask, groups: list[Group], placement: Placement) -> Iterator[str]:
    """Of the parts of a split request: each group must do for the whole of it, but for what is free there.

    Quotas over some groups are caps on them, like what is free; together the parts must fit (``tally``).
    """
    if len(groups) > ask.split:
        yield f"it is spread over {len(groups)} groups, at most {ask.split} are allowed"
    if len({group.id for group in groups}) < len(groups):
        yield "it names a group twice"
    if placement.cost_micros > (MAX_MONEY if ask.total_cap_micros is None else ask.total_cap_micros):
        yield f"{placement.cost_micros} µUSD for all parts is above the cap"
    start = placement.start_s
    for group in groups:
        form = form_at(ask, form_of(ask, group.id) or 0)
        cost = cost_of(ask, group, start_s=start)
        devices = units_of(form, group) * group.unit * form.workers
        seconds = duration_of(ask, form)
        for budget in limits.budgets_of(ask, start):
            if cost > (most := limits.money(budget)):
                yield f"all of it on {group.id!r} would cost {cost} µUSD; budget {budget.id!r} has {most}"
        for quota in limits.quotas_of(ask, start, start + seconds):
            if quota.groups is None and devices > (most := limits.devices(quota)):
                yield f"all of it on {group.id!r} would take {devices} devices; quota {quota.id!r} has {most}"
        loss = loss_of(ask, group, start_s=start, moved=placement.moved)
        if limits.aim is Aim.WELFARE and worth(ask) < cost + loss:
            yield f"all of it on {group.id!r} would cost more than it is worth"


def _uprooted(limits: Limits, ask: Ask, groups: list[Group], placement: Placement) -> Iterator[str]:
    """Of a running lease that stays: it is as it was, and nothing else is asked of it."""
    own = form_at(ask, 0)
    stays = limits.kept(ask)
    if (placement.form, placement.start_s) != (0, 0):
        yield f"it stays as it is, from now on; the plan says form {placement.form} from {placement.start_s} s"
    if workers_by_group(placement) != workers_by_group(stays) or len(groups) != len(stays.parts):
        yield "it stays, and is somewhere else than before"
        return
    hourly = [_hourly(own, group, part, 0) for group, part in zip(groups, placement.parts, strict=True)]
    before = {part.group: part for part in stays.parts}
    for group, part, each in zip(groups, placement.parts, hourly, strict=True):
        yield from _unequal(own, group, part, up(each * ask.duration_s, 3600))
        if limits.known(ask, group) and part.nodes != before[part.group].nodes:
            yield "it stays, and is on other nodes than before"
        elif part.nodes:
            yield from _seated(limits, ask, own, group, part)
    yield from _misdeclared(own, ask.duration_s, sum(hourly) * ask.duration_s, placement)
    if placement.tier != stays.tier:
        yield f"it belongs to tier {stays.tier}, the plan says {placement.tier}"
    if placement.loss_micros:
        yield f"the loss of what stays is 0 µUSD, the plan says {placement.loss_micros}"


def _unmoved(limits: Limits, ask: Ask, placement: Placement) -> Iterator[str]:
    if ask.running is None:
        yield "it is not running and cannot be moved"
        return
    if ask.running.move_micros is None:
        yield "it must not be moved"
    stays = limits.kept(ask)
    if placement.form == 0 and workers_by_group(placement) == workers_by_group(stays):
        nodes = {part.group: part.nodes for part in placement.parts}
        if all(
            nodes[part.group] == part.nodes or not limits.known(ask, limits.groups[part.group]) for part in stays.parts
        ):
            yield "it is called moved and is where it was"


def _hourly(form: Form, group: Group, part: Part, start_s: int) -> int:
    return hourly_of(form, group, start_s=start_s, workers=part.workers)


def _unequal(form: Form, group: Group, part: Part, cost: int) -> Iterator[str]:
    units = units_of(form, group) * part.workers
    if (part.units, part.devices) != (units, units * group.unit):
        yield f"{part.units} units of {group.unit} are not the whole of {part.workers} × {form.devices} devices"
    if part.cost_micros != cost:
        yield f"the cost is {cost} µUSD, the plan says {part.cost_micros}"


def _misdeclared(form: Form, seconds: int, amount: int, placement: Placement) -> Iterator[str]:
    """Of what is said about the whole; ``amount`` is 3600 × the µUSD of all parts, before rounding."""
    if placement.duration_s != seconds:
        yield f"it takes {seconds} s, the plan says {placement.duration_s}"
    price = up(amount, form.devices * form.workers * seconds)
    if placement.price_micros != price:
        yield f"the price is {price} µUSD per device-hour, the plan says {placement.price_micros}"


def _seated(limits: Limits, ask: Ask, form: Form, group: Group, part: Part) -> Iterator[str]:
    """Of the nodes that a part names."""
    if not ask.same_node and (len(limits.starts) > 1 or not group.per_node):
        if part.nodes:
            yield "it names nodes where none are asked for"
        return
    if list(part.nodes) != sorted(dict(part.nodes).items()):
        yield "its nodes are not in order, each once"
    if sum(held for _, held in part.nodes) != part.units:
        yield "its nodes do not add up to its units"
    each = units_of(form, group)
    for node, held in part.nodes:
        if not 0 <= node < len(group.per_node) or held < 1:
            yield "it names a node that the group does not have"
        elif ask.same_node and held % each:
            yield f"node {node} has {held} of its units, which is not a number of whole workers"


def worth(ask: Ask) -> int:
    """µUSD that a placement gains before what it costs: its value, and for a running lease not being ended."""
    ended = ask.running.end_micros if ask.running is not None else None
    return (ask.value_micros or 0) + (ended or 0)


def workers_by_group(placement: Placement) -> Counter[str]:
    """Group → workers there."""
    return Counter({part.group: part.workers for part in placement.parts})
