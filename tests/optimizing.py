"""Small problems for the optimizer's tests: makers with defaults, a strategy, and a brute force to compare with."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import ceil

from hypothesis import strategies as st

from optimizer.check import cost_of, loss_of, unsuitable, violations
from optimizer.problem import Ask, Budget, CapacityRow, Confidential, Group, Problem, Quota, Tier
from optimizer.solution import Part, Placement, Solution
from optimizer.solve import solve
from optimizer.suits import duration_of, form_at, form_of, tier_of

HOUR = 3600
DOLLAR = 1_000_000


def group(name: str, count: int = 8, **terms: object) -> Group:
    """Devices of cluster c-NAME at one dollar, unless said otherwise."""
    given: dict[str, object] = {"cluster": f"c-{name}", "kind": "h100", "price_micros": DOLLAR, "region": "eu"}
    return Group(**{"id": name, "count": count, **given, **terms})  # type: ignore[arg-type]  # tests name any field


def ask(name: str, devices: int = 1, **wishes: object) -> Ask:
    """A request of tenant t for one hour, unless said otherwise."""
    given: dict[str, object] = {"tenant": "t", "cluster": "home", "duration_s": HOUR}
    return Ask(**{"id": name, "devices": devices, **given, **wishes})  # type: ignore[arg-type]  # as above


def answer(problem: Problem, **how: object) -> Solution:
    """The solution, checked; with a limit that small problems never reach."""
    found = solve(problem, **{"time_limit_s": 20.0, **how})  # type: ignore[arg-type]  # as above
    assert violations(problem, found.placements) == ()
    assert set(found.placements) | set(found.unplaced) == {ask.id for ask in problem.asks}
    assert not set(found.placements) & set(found.unplaced)
    assert all(goal.reached <= goal.bound if goal.maximise else goal.reached >= goal.bound for goal in found.goals)
    return found


def where(solution: Solution) -> dict[str, str]:
    """Ask → group."""
    return {name: placement.group for name, placement in solution.placements.items()}


def value(problem: Problem, chosen: dict[str, str]) -> tuple[int, ...]:
    """The goals of a choice as a tuple that compares as plans do; written down a second time, from the words of
    ``optimizer.goals`` and nothing of its code."""
    asks = {ask.id: ask for ask in problem.asks}
    groups = {group.id: group for group in problem.groups}
    goals: list[int] = []
    for level in sorted({ask.priority for ask in problem.asks}, reverse=True):
        peers = [ask for ask in problem.asks if ask.priority == level]
        turns = sorted({ask.created for ask in peers})
        served = [ask for ask in peers if ask.id in chosen]
        goals.append(sum(ask.counts_for for ask in served))
        goals.append(sum(ask.counts_for * (len(turns) - turns.index(ask.created)) for ask in served))
    pairs = [(asks[name], groups[at]) for name, at in chosen.items()]
    goals.append(-sum(tier_of(ask, group) or 0 for ask, group in pairs))
    goals.append(-sum(ask.confidential is Confidential.PREFER and not group.confidential for ask, group in pairs))
    goals.append(-sum(cost_of(ask, group) for ask, group in pairs))
    goals.append(-sum(group.count + -ask.devices // group.unit for ask, group in pairs))
    return tuple(goals)


def best_by_force(problem: Problem) -> tuple[int, ...]:
    """The value of the best of all plans, found by trying each."""
    choices = [
        [None, *(group.id for group in problem.groups if not any(unsuitable(ask, group)))] for ask in problem.asks
    ]
    best = value(problem, {})
    for picks in product(*choices):
        chosen = {ask.id: pick for ask, pick in zip(problem.asks, picks, strict=True) if pick is not None}
        found = value(problem, chosen)
        if found > best and possible(problem, chosen):
            best = found
    return best


def possible(problem: Problem, chosen: dict[str, str]) -> bool:
    """Whether a choice keeps every limit that several share."""
    groups = {group.id: group for group in problem.groups}
    used: dict[str, int] = {}
    pieces: dict[str, list[int]] = {}
    money: dict[str, int] = {}
    devices: dict[str, int] = {}
    for ask in problem.asks:
        if ask.id not in chosen:
            continue
        at = groups[chosen[ask.id]]
        units = -(-ask.devices // at.unit)
        used[at.id] = used.get(at.id, 0) + units
        if ask.same_node:
            pieces.setdefault(at.id, []).append(units)
        for name in ask.budgets:
            money[name] = money.get(name, 0) + cost_of(ask, at)
        for name in ask.quotas:
            devices[name] = devices.get(name, 0) + units * at.unit
    return (
        all(units <= groups[name].count for name, units in used.items())
        and all(_packs(sizes, list(groups[name].per_node)) for name, sizes in pieces.items())
        and all(sum(w * used.get(name, 0) for name, w in row.members.items()) <= row.limit for row in problem.rows)
        and all(money.get(budget.id, 0) <= budget.remaining_micros for budget in problem.budgets)
        and all(devices.get(quota.id, 0) <= quota.remaining_devices for quota in problem.quotas)
    )


def _packs(sizes: list[int], free: list[int]) -> bool:
    if not sizes:
        return True
    for at, room in enumerate(free):
        if room >= sizes[0]:
            free[at] -= sizes[0]
            if _packs(sizes[1:], free):
                return True
            free[at] += sizes[0]
    return False


@st.composite
def problems(draw: st.DrawFn, most_asks: int = 5, most_groups: int = 4) -> Problem:
    """Small and quarrelsome: little capacity, few regions, every kind of limit now and then."""
    groups = []
    for at in range(draw(st.integers(1, most_groups))):
        nodes = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
        groups.append(
            group(
                f"g{at}",
                draw(st.integers(0, sum(nodes))) if nodes else draw(st.integers(0, 9)),
                cluster=f"c{draw(st.integers(0, 2))}",
                price_micros=draw(st.integers(0, 4)) * 777_777,
                unit=draw(st.sampled_from([1, 1, 1, 4])),
                region=draw(st.sampled_from(["eu", "us"])),
                max_duration_s=draw(st.sampled_from([1800, 100_000])),
                confidential=draw(st.booleans()),
                uninterrupted_s=draw(st.sampled_from([None, None, 0, 1800])),
                per_node=nodes,
            )
        )
    few = st.booleans().flatmap(lambda yes: st.just(()) if yes else st.sampled_from([("b0",), ("b0", "b1")]))
    asks = [
        ask(
            f"a{at}",
            draw(st.integers(1, 6)),
            cluster=draw(st.sampled_from(["home", "c0"])),
            duration_s=draw(st.sampled_from([1000, 3600, 7200])),
            priority=draw(st.integers(0, 2)),
            created=draw(st.integers(0, 3)),
            regions=draw(st.sampled_from([None, None, frozenset({"eu"})])),
            price_cap_micros=draw(st.sampled_from([None, 1_600_000, 2_400_000])),
            total_cap_micros=draw(st.sampled_from([None, None, 9_000_000])),
            transfer_micros=draw(st.sampled_from([{}, {}, {"us": 500_000}])),
            confidential=draw(st.sampled_from(list(Confidential))),
            uninterrupted=draw(st.sampled_from([False, False, True])),
            same_node=draw(st.booleans()),
            budgets=draw(few),
            quotas=draw(st.sampled_from([(), ("q",)])),
            weight=draw(st.sampled_from([None, None, 3])),
            tiers=draw(
                st.sampled_from(
                    [
                        (),
                        (
                            Tier(clusters=frozenset({"c1"})),
                            Tier(name="far", clusters=frozenset({"c0", "c1", "c2"}), price_cap_micros=2_000_000),
                        ),
                    ]
                )
            ),
        )
        for at in range(draw(st.integers(1, most_asks)))
    ]
    members = {each.id: draw(st.integers(0, 2)) for each in groups}
    rows = (CapacityRow(id="kept", limit=draw(st.integers(0, 12)), members=members),) if draw(st.booleans()) else ()
    return Problem(
        groups=tuple(groups),
        asks=tuple(asks),
        budgets=tuple(Budget(id=name, remaining_micros=draw(st.integers(0, 30)) * DOLLAR) for name in ("b0", "b1")),
        quotas=(Quota(id="q", remaining_devices=draw(st.integers(0, 12))),),
        rows=rows,
    )


def with_ask(problem: Problem, changed: Ask) -> Problem:
    """The same problem with one ask replaced."""
    return replace(problem, asks=tuple(changed if each.id == changed.id else each for each in problem.asks))


Nodes = tuple[tuple[int, int], ...]


def as_placed(ask: Ask, group: Group, nodes: Nodes = (), **how: object) -> Placement:
    """All of a request on one group, with arithmetic that is right."""
    form = form_at(ask, form_of(ask, group.id) or 0)
    return spread(ask, (group, form.workers, nodes), **how)  # type: ignore[arg-type]  # start_s and moved


def spread(ask: Ask, *places: tuple[Group, int, Nodes], start_s: int = 0, moved: bool = False) -> Placement:
    """A request on some groups, with so many workers and these nodes on each, with arithmetic that is right."""
    rank = form_of(ask, places[0][0].id) or 0
    form = form_at(ask, rank)
    seconds = duration_of(ask, form)
    parts = []
    for group, workers, nodes in places:
        units = -(-form.devices // group.unit) * workers
        cost = cost_of(ask, group, start_s=start_s, workers=workers)
        parts.append(
            Part(
                group=group.id,
                workers=workers,
                units=units,
                devices=units * group.unit,
                cost_micros=cost,
                nodes=nodes,
            )
        )
    hourly = sum(part.devices * group.price_at(start_s) for part, (group, _, _) in zip(parts, places, strict=True))
    fees = sum(ask.transfer_micros.get(group.region, 0) for group, _, _ in places)
    price = Fraction(hourly, form.devices * form.workers)
    price += Fraction(3600 * fees, form.devices * form.workers * seconds)
    return Placement(
        parts=tuple(parts),
        price_micros=ceil(price),
        start_s=start_s,
        duration_s=seconds,
        form=rank,
        tier=max(tier_of(ask, group) or 0 for group, _, _ in places),
        loss_micros=loss_of(ask, *(group for group, _, _ in places), start_s=start_s, moved=moved),
        moved=moved,
    )


def stays(ask: Ask, problem: Problem) -> Placement:
    """A running lease as it was, on nodes where that matters and is known."""
    assert ask.running is not None
    groups = {group.id: group for group in problem.groups}
    places: dict[str, tuple[int, list[int]]] = {}
    for held in ask.running.held:
        workers, on = places.get(held.group, (0, []))
        places[held.group] = workers + held.workers, [*on, *held.nodes]
    parts = []
    for name, (workers, on) in places.items():
        group = groups[name]
        units = -(-ask.devices // group.unit)
        named = group.per_node and len(on) == workers and (ask.same_node or problem.starts == (0,))
        parts.append(
            Part(
                group=name,
                workers=workers,
                units=units * workers,
                devices=units * workers * group.unit,
                cost_micros=-(-group.price_micros * units * workers * group.unit * ask.duration_s // HOUR),
                nodes=tuple((node, units * on.count(node)) for node in sorted(set(on))) if named else (),
            )
        )
    hourly = sum(part.devices * groups[part.group].price_micros for part in parts)
    return Placement(
        parts=tuple(parts),
        price_micros=ceil(Fraction(hourly, ask.total)),
        duration_s=ask.duration_s,
        tier=max(tier_of(ask, groups[name]) or 0 for name in places),
    )


def other(placement: Placement, **of_the_part: object) -> Placement:
    """The same, with its first part changed."""
    return replace(placement, parts=(replace(placement.parts[0], **of_the_part), *placement.parts[1:]))  # type: ignore[arg-type]  # tests name any field
