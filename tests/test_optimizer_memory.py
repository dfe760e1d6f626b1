"""What one solve leaves for the next saves time and changes nothing: pairs are the same with a memory and without."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from optimizer import goals
from optimizer import pairs as pairs_module
from optimizer.asks import Held, Running
from optimizer.check import violations
from optimizer.greedy import returned
from optimizer.memory import Memory, familiar
from optimizer.pairs import NAMES, Pairs, compile_pairs
from optimizer.problem import (
    Aim,
    Ask,
    BadProblem,
    Budget,
    CapacityRow,
    Confidential,
    Form,
    Group,
    Later,
    Problem,
    Quota,
    Share,
    Tier,
)
from optimizer.solve import solve
from tests.drawing import whole_problems
from tests.optimizing import DOLLAR, HOUR, ask, group
from tests.test_optimizer import crowd


def same(one: Pairs, other: Pairs) -> None:
    for name in (*NAMES, "start"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.several, one.keeps, one.partial) == (other.several, other.keeps, other.partial)
    assert np.array_equal(one.usage.most, other.usage.most)
    every = np.arange(len(one))
    assert (one.usage.rows(every) != other.usage.rows(every)).nnz == 0


@st.composite
def changed(draw: st.DrawFn, problem: Problem) -> Problem:
    """A problem a little before: requests that were not there yet or asked for something else, other amounts."""
    asks = []
    for each in problem.asks:
        how = draw(st.sampled_from(["as it is", "as it is", "as it is", "absent", "longer", "elsewhere"]))
        if how == "longer":
            each = replace(each, duration_s=each.duration_s + 1)
        if how == "elsewhere":
            each = replace(each, regions=frozenset({"nowhere"}))
        if how != "absent":
            asks.append(each)
    if draw(st.booleans()):
        asks.append(ask("gone", 1, value_micros=DOLLAR))
    budgets = tuple(
        replace(each, remaining_micros=each.remaining_micros + draw(st.sampled_from([0, 0, 1])))
        for each in problem.budgets
    )
    groups = problem.groups
    if groups and draw(st.integers(0, 5)) == 0:
        groups = (replace(groups[0], price_micros=groups[0].price_micros + 1), *groups[1:])
    return replace(problem, asks=tuple(asks), budgets=budgets, groups=groups)


@pytest.mark.parametrize(
    "about", [set(), {"running"}, {"running", "nodes", "money"}], ids=["anything", "leases", "nodes"]
)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pairs_are_the_same_whatever_was_compiled_before(about: set[str], data: st.DataObject) -> None:
    problem = data.draw(whole_problems(about=about))
    before = compile_pairs(data.draw(changed(problem)))
    same(compile_pairs(problem, before), compile_pairs(problem))


OTHERWISE: Mapping[type, Mapping[str, Sequence[object]]] = {
    Ask: {
        "id": ("another",),
        "tenant": ("t", "u"),
        "cluster": ("home", "c0"),
        "devices": (1, 3),
        "workers": (1, 2),
        "duration_s": (1000, 5400),
        "matched": (None, frozenset(), frozenset({"g0"})),
        "forms": ((), (Form(devices=1),), (Form(devices=2, matched=frozenset({"g1"}), speed_milli=500),)),
        "split": (1, 2),
        "avoid": (frozenset(), frozenset({"g0"})),
        "price_cap_micros": (None, 1_000_000),
        "total_cap_micros": (None, 2_000_000),
        "transfer_micros": ({}, {"eu": 500_000}),
        "clusters": (None, frozenset({"c0"})),
        "regions": (None, frozenset({"us"})),
        "jurisdictions": (None, frozenset({"US"})),
        "providers": (None, frozenset({"p"})),
        "confidential": tuple(Confidential),
        "uninterrupted": (False, True),
        "restart_micros": (0, 7_000_000),
        "tiers": ((), (Tier(groups=frozenset({"g1"})), Tier(regions=frozenset({"eu"}), price_cap_micros=1_600_000))),
        "same_node": (False, True),
        "not_before_s": (0, 1800, HOUR),
        "start_by_s": (None, HOUR, 2 * HOUR),
        "end_by_s": (None, 5000, 9000),
        "delay_micros": (0, 900_000),
        "running": (
            None,
            Running(held=(Held(group="g0"),)),
            Running(held=(Held(group="g0"),), move_micros=1),
            Running(held=(Held(group="g1"),), move_micros=5, end_micros=0),
        ),
        "budgets": ((), ("all",), ("next", "month")),
        "quotas": ((), ("all",), ("some", "all")),
        "priority": (0, 1),
        "created": (0, 3),
        "weight": (None, 3),
        "value_micros": (0, 9_000_000),
    },
    Group: {
        "id": ("g0 again",),
        "cluster": ("c0", "home"),
        "kind": ("a100",),
        "price_micros": (0, 777_778, 4_000_000),
        "count": (0, 3, 9),
        "unit": (1, 2),
        "region": ("eu", "us"),
        "jurisdiction": ("", "EU", "US"),
        "provider": ("", "p"),
        "domain": ("", "d"),
        "min_duration_s": (0, 2000),
        "max_duration_s": (1800, 100_000),
        "confidential": (False, True),
        "uninterrupted_s": (None, 0, 1800, 9000),
        "reclaims": (0, 50_000),
        "lender_tenant": ("", "t"),
        "allowed_tenants": (None, frozenset(), frozenset({"u"})),
        "per_node": ((), (2, 7), (9, 9)),
        "later": ((), (Later(at_s=1800, units=2),), (Later(at_s=HOUR, units=1, node=0),)),
        "prices": ((), ((HOUR, 3_000_000),)),
    },
    Budget: {
        "id": ("all again",),
        "remaining_micros": (0, 2 * DOLLAR, 90 * DOLLAR),
        "from_s": (0, HOUR),
        "until_s": (None, HOUR),
    },
    Quota: {
        "id": ("all again",),
        "remaining_devices": (0, 2, 50),
        "groups": (None, frozenset({"g0"}), frozenset({"g1"})),
        "from_s": (0, HOUR),
        "until_s": (None, HOUR),
    },
    CapacityRow: {"id": ("kept again",), "limit": (0, 4, 90), "members": ({"g0": 1}, {"g1": 2})},
    Share: {
        "tenant": ("v",),
        "guaranteed": (0, 4),
        "weight": (1, 3),
        "history_milli": (0, 2000),
    },
    Problem: {"aim": tuple(Aim), "starts": ((0,), (0, 1800), (0, HOUR))},
}
"""Values that each field of what a problem is made of may have instead."""
IN: Mapping[str, type] = {
    "asks": Ask,
    "groups": Group,
    "budgets": Budget,
    "quotas": Quota,
    "rows": CapacityRow,
    "shares": Share,
}
FIELDS = [(kind, name) for kind, named in OTHERWISE.items() for name in named]


def test_every_field_of_a_problem_is_among_those_that_are_changed() -> None:
    for kind, named in OTHERWISE.items():
        assert {*named, *(IN if kind is Problem else ())} == {each.name for each in fields(kind)}, kind


def otherwise(data: st.DataObject, problem: Problem, kind: type, name: str) -> Problem:
    """The problem with another value of this field, in one of the things that have it."""
    value = data.draw(st.sampled_from(OTHERWISE[kind][name]))
    if kind is Problem:
        return replace(problem, **{name: value})  # type: ignore[arg-type]  # of the field's own table
    where = next(at for at, each in IN.items() if each is kind)
    those = list(getattr(problem, where))
    if those:
        at = data.draw(st.integers(0, len(those) - 1))
        those[at] = replace(those[at], **{name: value})
    return replace(problem, **{where: tuple(those)})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name in FIELDS])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data())
def test_whatever_one_field_was_before_the_pairs_are_the_same(kind: type, name: str, data: st.DataObject) -> None:
    """All three: the change, the change undone, and one more solve after both."""
    about = {Budget: {"money", "starts"}, Quota: {"exposure", "starts"}, CapacityRow: {"rows"}}.get(kind, set())
    drawn = data.draw(whole_problems(about=about))
    problem = replace(drawn, asks=tuple(replace(each, split=1) if not each.running else each for each in drawn.asks))
    try:
        changed = otherwise(data, problem, kind, name)
    except BadProblem:
        reject()
    memory = compile_pairs(problem)
    for each in (changed, problem, changed):
        memory = compile_pairs(each, memory)
        same(memory, compile_pairs(each))


def test_only_what_changed_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = crowd(random.Random(1), asks=40, groups=12)
    judged: list[str] = []
    inner = pairs_module.variants

    def watched(market: object, asks: list[Ask]) -> object:
        judged.extend(each.id for each in asks)
        return inner(market, asks)  # type: ignore[arg-type]  # passed on as it came

    before = compile_pairs(problem)
    monkeypatch.setattr(pairs_module, "variants", watched)
    one, other, *rest = problem.asks
    after = replace(problem, asks=(replace(one, duration_s=one.duration_s + 60), other, *rest))
    compile_pairs(after, before)
    assert judged == [one.id]


def test_a_budget_that_was_drawn_on_is_looked_at_again_for_those_who_use_it() -> None:
    asks = tuple(ask(f"r{at}", 1, budgets=("b",) if at % 2 else ()) for at in range(6))
    problem = Problem(groups=(group("g"),), asks=asks, budgets=(Budget(id="b", remaining_micros=100 * DOLLAR),))
    before = compile_pairs(problem)
    poorer = replace(problem, budgets=(Budget(id="b", remaining_micros=0),))
    places = familiar(before, compile_pairs(poorer).market)
    assert places is not None
    assert [at >= 0 for at in places] == [True, False, True, False, True, False]
    same(compile_pairs(poorer, before), compile_pairs(poorer))


def test_nothing_is_taken_over_where_an_offer_changed() -> None:
    problem = crowd(random.Random(2), asks=20, groups=6)
    groups = (replace(problem.groups[0], count=problem.groups[0].count - 1), *problem.groups[1:])
    before, after = compile_pairs(problem), replace(problem, groups=groups)
    assert familiar(before, compile_pairs(after).market) is None


@settings(max_examples=40, deadline=None)
@given(problem=whole_problems())
def test_a_line_of_problems_solved_with_a_memory_has_the_plans_it_has_without(problem: Problem) -> None:
    memory = Memory()
    for asks in (problem.asks[:-1], problem.asks, problem.asks[1:]):
        part = replace(problem, asks=asks)
        assert solve(part, time_limit_s=60, memory=memory).placements == solve(part, time_limit_s=60).placements


def two_leases(*, taken: bool) -> tuple[Pairs, dict[str, dict[str, int]]]:
    """Lease a of offer g0 and, where that is taken, a request that has its place; pairs by request and offer."""
    runs = Running(held=(Held(group="g0"),), move_micros=2 * DOLLAR, end_micros=DOLLAR)
    asks = [ask("a", 4, value_micros=90 * DOLLAR, running=runs)]
    asks += [ask("b", 4, value_micros=90 * DOLLAR)] if taken else []
    groups = (group("g0", 4), group("g1", 4, price_micros=DOLLAR - 1))
    pairs = compile_pairs(Problem(groups=groups, asks=tuple(asks), aim=Aim.WELFARE))
    at: dict[str, dict[str, int]] = {}
    for pair in range(len(pairs)):
        at.setdefault(pairs.asks[pairs.ask[pair]].id, {})[pairs.groups[pairs.group[pair]].id] = pair
    return pairs, at


def test_a_lease_that_was_moved_for_less_than_the_move_costs_goes_back_while_its_place_is_free() -> None:
    pairs, at = two_leases(taken=False)
    profit = goals.goals(pairs)[-1].coefficient
    assert returned(pairs, {at["a"]["g1"]: ()}, profit) == {at["a"]["g0"]: ()}


def test_a_lease_whose_place_was_given_away_stays_where_it_was_moved_to() -> None:
    pairs, at = two_leases(taken=True)
    plan = {at["a"]["g1"]: (), at["b"]["g0"]: ()}
    assert returned(pairs, plan, goals.goals(pairs)[-1].coefficient) == plan


def test_a_lease_is_not_moved_where_the_move_gains_less_than_it_costs() -> None:
    """Many leases on offers of nearly one price: moving saves cents and costs dollars."""
    groups = tuple(group(f"g{at:02}", 8, price_micros=DOLLAR + at) for at in range(60))
    asks = tuple(
        ask(
            f"r{at:03}",
            1,
            value_micros=50 * DOLLAR,
            running=Running(held=(Held(group=f"g{59 - at % 60:02}"),), move_micros=2 * DOLLAR, end_micros=DOLLAR),
        )
        for at in range(300)
    )
    problem = Problem(groups=groups, asks=asks, aim=Aim.WELFARE)
    first = solve(problem, time_limit_s=5)
    assert not violations(problem, first.placements)
    assert len(compile_pairs(problem)) > 15_000, "large enough for prices, not for the exact solver alone"
    assert not any(placement.moved for placement in first.placements.values())
    assert set(first.placements) == {each.id for each in asks}
