"""What a refusal promises: reasons that are true, limits that really bind, changes that really help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.check import unsuitable
from optimizer.explain import money, sentence
from optimizer.filter import judge
from optimizer.grid import Seen
from optimizer.market import Market
from optimizer.problem import Ask, Budget, Confidential, Held, Later, Problem, Quota, Running, Tier
from optimizer.ranges import MAX_SPLIT
from optimizer.solution import Change, Field, Limit, Lost, Why
from tests.drawing import whole_problems
from tests.optimizing import DOLLAR, HOUR, answer, ask, group, problems, with_ask

TIMES = (Field.START_BY, Field.END_BY)


def applied(problem: Problem, name: str, change: Change) -> Problem:
    """The problem with the change made."""
    old = next(each for each in problem.asks if each.id == name)
    to = change.to
    match change.field:
        case Field.PRICE_CAP:
            return with_ask(problem, replace(old, price_cap_micros=to))
        case Field.TOTAL_CAP:
            return with_ask(problem, replace(old, total_cap_micros=to))
        case Field.TIER_CAP:
            tiers = [
                replace(tier, price_cap_micros=to) if (tier.name or str(rank)) == change.id else tier
                for rank, tier in enumerate(old.tiers)
            ]
            return with_ask(problem, replace(old, tiers=tuple(tiers)))
        case Field.DEVICES:
            return with_ask(problem, replace(old, devices=to))
        case Field.WORKERS:
            return with_ask(problem, replace(old, workers=to))
        case Field.DURATION:
            return with_ask(problem, replace(old, duration_s=to))
        case Field.REGION:
            return with_ask(problem, replace(old, regions=(old.regions or frozenset()) | {to}))
        case Field.PROVIDER:
            return with_ask(problem, replace(old, providers=(old.providers or frozenset()) | {to}))
        case Field.CLUSTER:
            return with_ask(problem, replace(old, clusters=(old.clusters or frozenset()) | {to}))
        case Field.CONFIDENTIAL:
            return with_ask(problem, replace(old, confidential=Confidential.NONE))
        case Field.UNINTERRUPTED:
            return with_ask(problem, replace(old, uninterrupted=False))
        case Field.SAME_NODE:
            return with_ask(problem, replace(old, same_node=False))
        case Field.START_BY:
            return with_ask(problem, replace(old, start_by_s=to))
        case Field.END_BY:
            return with_ask(problem, replace(old, end_by_s=to))
        case Field.SPLIT:
            return with_ask(problem, replace(old, split=to))
        case Field.BUDGET:
            budgets = [
                replace(each, remaining_micros=each.remaining_micros + int(to)) if each.id == change.id else each
                for each in problem.budgets
            ]
            return replace(problem, budgets=tuple(budgets))
        case Field.QUOTA:
            quotas = [
                replace(each, remaining_devices=each.remaining_devices + int(to)) if each.id == change.id else each
                for each in problem.quotas
            ]
            return replace(problem, quotas=tuple(quotas))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_every_change_that_is_offered_places_the_request_when_it_is_made(problem: Problem) -> None:
    for name, refusal in answer(problem).unplaced.items():
        for change in refusal.changes:
            again = answer(applied(problem, name, change))
            # A larger budget or quota serves everybody who has it: then the plan must become better, whoever it places.
            if change.field in (Field.BUDGET, Field.QUOTA):
                assert len(again.placements) >= 1
                assert again.goals != answer(problem).goals
            else:
                assert name in again.placements


@settings(max_examples=100, deadline=None)
@given(problems())
def test_a_refused_request_has_a_reason_for_every_offer(problem: Problem) -> None:
    for name, refusal in answer(problem).unplaced.items():
        want = next(each for each in problem.asks if each.id == name)
        assert refusal.groups == len(problem.groups)
        suitable = [each for each in problem.groups if not any(unsuitable(want, each))]
        assert refusal.eligible <= len(suitable)
        assert bool(refusal.binding) == bool(suitable)
        assert refusal.eligible + sum(refusal.only.values()) <= refusal.groups
        assert refusal.eligible + sum(refusal.removed.values()) >= refusal.groups
        assert all(each.short_by > 0 for each in refusal.binding)


@settings(max_examples=150, deadline=None)
@given(st.one_of(problems(), whole_problems()))
def test_reasons_counted_by_tables_of_bits_are_those_of_each_cell(problem: Problem) -> None:
    market = Market(problem)
    cells, seen = judge(market, problem.asks), Seen(market, problem.asks)
    row, at = np.indices(cells.why.shape)
    assert (seen.why(row, at) == cells.why).all()
    assert (seen.eligible() == (cells.why == 0).sum(axis=1)).all()
    for bit in Why:
        none = np.zeros(len(problem.asks), dtype=np.int64)
        assert (seen.removed().get(bit, none) == ((cells.why & bit) != 0).sum(axis=1)).all()
        assert (seen.only().get(bit, none) == (cells.why == bit).sum(axis=1)).all()
        assert (seen.among(seen.alone(bit)) == (cells.why == bit)).all()
        spared = (cells.why & ~np.uint32(bit | Why.COUNT)) == 0
        assert (seen.among(seen.spared(bit, Why.COUNT)) == spared).all()
    for name in ("units", "devices", "cost", "price", "tier", "tier_cap"):
        assert (seen.at(getattr(seen, name), row, at) == getattr(cells, name)).all()


@pytest.mark.parametrize(
    ("terms", "wishes", "field", "to"),
    [
        ({"price_micros": 3 * DOLLAR}, {"price_cap_micros": 2 * DOLLAR}, Field.PRICE_CAP, 3 * DOLLAR),
        ({}, {"tiers": (Tier(name="near", price_cap_micros=5),)}, Field.TIER_CAP, DOLLAR),
        ({}, {"devices": 4, "total_cap_micros": 3 * DOLLAR}, Field.TOTAL_CAP, 4 * DOLLAR),
        ({}, {"devices": 4, "total_cap_micros": 3 * DOLLAR}, Field.DEVICES, 3),
        ({}, {"devices": 4, "total_cap_micros": 3 * DOLLAR}, Field.DURATION, 2700),
        ({}, {"devices": 12}, Field.DEVICES, 8),
        ({"unit": 4, "count": 2}, {"devices": 12}, Field.DEVICES, 8),
        ({"max_duration_s": 600}, {}, Field.DURATION, 600),
        ({"min_duration_s": 9000}, {}, Field.DURATION, 9000),
        ({}, {"regions": frozenset({"us"})}, Field.REGION, "eu"),
        ({"provider": "p"}, {"providers": frozenset()}, Field.PROVIDER, "p"),
        ({}, {"clusters": frozenset({"x"})}, Field.CLUSTER, "c-g"),
        ({}, {"confidential": Confidential.REQUIRE}, Field.CONFIDENTIAL, False),
        ({"uninterrupted_s": 600}, {"uninterrupted": True}, Field.UNINTERRUPTED, False),
        ({"uninterrupted_s": 600}, {"uninterrupted": True}, Field.DURATION, 600),
        ({"per_node": (4, 4)}, {"devices": 6, "same_node": True}, Field.SAME_NODE, False),
        ({"per_node": (4, 4)}, {"devices": 6, "same_node": True}, Field.DEVICES, 4),
        ({}, {"devices": 8, "budgets": ("b",)}, Field.BUDGET, 3 * DOLLAR),
        ({}, {"devices": 8, "quotas": ("q",)}, Field.QUOTA, 1),
    ],
)
def test_the_smallest_change_of_each_kind_is_named(
    terms: dict[str, object], wishes: dict[str, object], field: Field, to: object
) -> None:
    problem = Problem(
        groups=(group("g", **terms),),  # type: ignore[arg-type]  # tests name any field
        asks=(ask("r", **wishes),),  # type: ignore[arg-type]  # as above
        budgets=(Budget(id="b", remaining_micros=5 * DOLLAR),),
        quotas=(Quota(id="q", remaining_devices=7),),
    )
    (refusal,) = answer(problem).unplaced.values()
    offered = {change.field: change for change in refusal.changes}
    assert offered[field].to == to
    assert "r" in answer(applied(problem, "r", offered[field])).placements


def test_two_obstacles_at_once_are_not_called_one_change() -> None:
    problem = Problem(
        groups=(group("g", price_micros=9 * DOLLAR),),
        asks=(ask("r", price_cap_micros=DOLLAR, regions=frozenset({"us"})),),
    )
    (refusal,) = answer(problem).unplaced.values()
    assert refusal.removed == {Why.PRICE_CAP: 1, Why.REGION: 1}
    assert refusal.only == {}
    assert refusal.changes == ()


def test_a_change_counts_what_the_plan_leaves_not_what_was_there_before() -> None:
    problem = Problem(groups=(group("g", 8),), asks=(ask("early", 5, created=1), ask("late", 5, created=2)))
    refusal = answer(problem).unplaced["late"]
    assert refusal.removed == {}
    assert [(each.limit, each.id, each.short_by) for each in refusal.binding] == [(Limit.GROUP, "g", 2)]
    assert [(change.field, change.to) for change in refusal.changes] == [(Field.DEVICES, 3)]


def test_a_budget_that_others_use_up_is_named_with_what_is_missing() -> None:
    problem = Problem(
        groups=(group("g", 8),),
        asks=(ask("early", 4, budgets=("m",)), ask("late", 4, created=1, budgets=("m",))),
        budgets=(Budget(id="m", remaining_micros=6 * DOLLAR),),
    )
    refusal = answer(problem).unplaced["late"]
    assert [(each.limit, each.id, each.short_by) for each in refusal.binding] == [(Limit.BUDGET, "m", 2 * DOLLAR)]
    assert {change.field: change.to for change in refusal.changes} == {
        Field.DEVICES: 2,
        Field.DURATION: HOUR // 2,
        Field.BUDGET: 2 * DOLLAR,
    }


def stays(name: str, devices: int, **wishes: object) -> Ask:
    """A lease on g that must not be ended or moved."""
    return ask(name, devices, running=Running(held=(Held(group="g"),)), **wishes)


def test_a_budget_that_a_lease_has_overdrawn_must_cover_that_too() -> None:
    problem = Problem(
        groups=(group("g", 8),),
        asks=(stays("runs", 4, budgets=("m",)), ask("new", 2, budgets=("m",))),
        budgets=(Budget(id="m", remaining_micros=DOLLAR),),
    )
    refusal = answer(problem).unplaced["new"]
    assert [(each.limit, each.id, each.short_by) for each in refusal.binding] == [(Limit.BUDGET, "m", 5 * DOLLAR)]
    (change,) = (each for each in refusal.changes if each.field is Field.BUDGET)
    assert change.to == 5 * DOLLAR
    assert "new" in answer(applied(problem, "new", change)).placements
    assert "new" not in answer(applied(problem, "new", replace(change, to=5 * DOLLAR - 1))).placements


@pytest.mark.parametrize("groups", [None, frozenset({"g"})])
def test_a_quota_that_a_lease_exceeds_must_cover_that_too(groups: frozenset[str] | None) -> None:
    problem = Problem(
        groups=(group("g", 8),),
        asks=(stays("runs", 4, quotas=("q",)), ask("new", 2, quotas=("q",))),
        quotas=(Quota(id="q", remaining_devices=1, groups=groups),),
    )
    refusal = answer(problem).unplaced["new"]
    assert [(each.limit, each.id, each.short_by) for each in refusal.binding] == [(Limit.QUOTA, "q", 5)]
    (change,) = (each for each in refusal.changes if each.field is Field.QUOTA)
    assert change.to == 5
    assert "new" in answer(applied(problem, "new", change)).placements
    assert "new" not in answer(applied(problem, "new", replace(change, to=4))).placements


def test_a_quota_over_offers_that_are_too_few_is_not_said_to_bind() -> None:
    """The request is kept from the only offer that the quota counts; more of that quota would change nothing."""
    problem = Problem(
        groups=(group("g", 8, region="us"), group("h", 1)),
        asks=(stays("runs", 4, quotas=("q",)), ask("new", 2, quotas=("q",), regions=frozenset({"eu"}))),
        quotas=(Quota(id="q", remaining_devices=1, groups=frozenset({"g"})),),
    )
    assert [each.limit for each in answer(problem).unplaced["new"].binding] == [Limit.GROUP]


@pytest.mark.parametrize(
    ("wishes", "wanted"),
    [
        ({"start_by_s": HOUR}, None),
        ({}, (Field.START_BY, HOUR)),
        ({"start_by_s": HOUR, "end_by_s": HOUR + 1800}, (Field.END_BY, 2 * HOUR)),
        ({"end_by_s": HOUR + 1800}, "two at once"),
        ({"start_by_s": HOUR // 2, "end_by_s": HOUR + 1800}, "two at once"),
    ],
)
def test_a_later_start_or_end_is_offered_where_that_alone_helps(
    wishes: dict[str, int], wanted: tuple[Field, int] | str | None
) -> None:
    problem = Problem(
        groups=(group("g", 0, later=(Later(at_s=HOUR, units=4),)),),
        asks=(ask("r", 4, **wishes),),
        starts=(0, HOUR),
    )
    found = answer(problem)
    assert ("r" in found.placements) == (wanted is None)
    times = [each for each in found.unplaced["r"].changes if each.field in TIMES] if found.unplaced else []
    assert [(each.field, each.to) for each in times] == ([wanted] if isinstance(wanted, tuple) else [])
    for each in times:
        assert "r" in answer(applied(problem, "r", each)).placements


def test_workers_that_want_one_node_each_are_not_told_to_spread_over_offers_whose_nodes_are_too_small() -> None:
    few = (group("a", 6, per_node=(3, 3)), group("b", 2, per_node=(2,)))
    problem = Problem(groups=few, asks=(ask("r", 2, workers=4, same_node=True),))
    assert [each.field for each in answer(problem).unplaced["r"].changes if each.field is Field.SPLIT] == []
    more = replace(problem, groups=(*few, group("c", 2, per_node=(2,))))
    (change,) = (each for each in answer(more).unplaced["r"].changes if each.field is Field.SPLIT)
    assert change.to == 3
    assert "r" in answer(applied(more, "r", change)).placements


def test_nobody_is_told_to_spread_over_more_offers_than_a_request_may() -> None:
    problem = Problem(
        groups=tuple(group(f"g{at:02}", 1) for at in range(MAX_SPLIT + 1)),
        asks=(ask("r", 1, workers=MAX_SPLIT + 1, split=MAX_SPLIT),),
    )
    assert [each.field for each in answer(problem).unplaced["r"].changes if each.field is Field.SPLIT] == []


def test_only_the_first_in_turn_are_told_what_would_help_where_there_are_too_many() -> None:
    asks = (ask("low", 9), ask("late", 9, priority=1, created=2), ask("early", 9, priority=1, created=1))
    unplaced = answer(Problem(groups=(group("g", 8),), asks=asks), details=2).unplaced
    assert {name: each.detailed for name, each in unplaced.items()} == {"low": False, "late": True, "early": True}
    assert [bool(unplaced[name].changes) for name in ("early", "late", "low")] == [True, True, False]
    assert unplaced["low"].removed == unplaced["early"].removed == {Why.COUNT: 1}


def test_every_reason_has_words() -> None:
    for bit in Why:
        assert sentence(bit)
    for lost in Lost:
        assert sentence(lost)
    for field in Field:
        assert sentence(Change(field=field, to=2, id="x", group="g", cost_micros=0))
    assert sentence(Why.REGION | Why.TENANT) == "the lender does not admit this tenant, region not allowed"


def test_a_refusal_reads_as_sentences() -> None:
    problem = Problem(
        groups=(group("g", price_micros=3_400_000), group("h", region="us")),
        asks=(ask("r", price_cap_micros=3 * DOLLAR, regions=frozenset({"eu"})),),
    )
    (refusal,) = answer(problem).unplaced.values()
    assert sentence(refusal) == (
        "Of 2 offers 0 would suit alone. Removed: region not allowed (1); above the price cap (1). "
        "It would be placed with a price cap of $3.40 per device-hour, or region us allowed."
    )
    (nobody,) = answer(Problem(groups=(), asks=(ask("r"),))).unplaced.values()
    assert sentence(nobody) == "Nobody offers anything at the moment."


def test_money_is_told_so_that_it_suffices() -> None:
    assert [money(micros) for micros in (0, 1, 400_000, 1_000_000, 1_234_567, 1_234_567_890_000)] == [
        "$0",
        "$0.000001",
        "$0.4",
        "$1.00",
        "$1.24",
        "$1,234,567.89",
    ]


@settings(max_examples=30)
@given(problems())
def test_leaving_out_what_is_unused_changes_nothing_else(problem: Problem) -> None:
    whole, without = answer(problem), answer(problem, unused=False)
    assert not without.unused
    assert (without.placements, without.unplaced, without.goals) == (whole.placements, whole.unplaced, whole.goals)
