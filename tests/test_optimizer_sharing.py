"""What plans promise to tenants: guarantees first, more capacity never worse for the plan, the same answer again.

Most promises are asked twice: of the best plan by the words of the model, which trying all plans finds, and of the
solver's. What is *not* promised has its example here too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optimizer import fairness
from optimizer.problem import Aim, Ask, Budget, Problem, Share
from optimizer.solution import Placement, Status
from tests.drawing import whole_problems
from tests.optimizing import DOLLAR, answer, ask, group, problems
from tests.trying import best, best_plan, entitled, options, reached

Planner = Callable[[Problem], Mapping[str, Placement]]


def tried(problem: Problem) -> Mapping[str, Placement]:
    """By trying every plan; ``violations`` has passed it."""
    return best_plan(problem)[1]


def solved(problem: Problem) -> Mapping[str, Placement]:
    """By the solver; ``answer`` has had it checked."""
    found = answer(problem)
    assert found.status is Status.OPTIMAL
    return found.placements


planned = pytest.mark.parametrize("plan", [tried, solved])


def covered(problem: Problem) -> frozenset[str]:
    return fairness.entitled(problem, lambda each: any(True for _ in options(problem, each)))


def has(problem: Problem, plan: Planner) -> set[str]:
    """Which requests a plan places."""
    return set(plan(problem))


# Guarantees


@st.composite
def neighbours(draw: st.DrawFn) -> Problem:
    """Each tenant's guarantee is one of the groups, all of them alike; strangers ask for whatever they like."""
    tenants = [f"t{at}" for at in range(draw(st.integers(1, 3)))]
    shares = tuple(Share(tenant=name, guaranteed=draw(st.integers(1, 5))) for name in tenants)
    asks = tuple(
        ask(
            f"r{at}",
            draw(st.integers(1, 5)),
            tenant=draw(st.sampled_from([*tenants, "stranger"])),
            priority=draw(st.integers(0, 2)),
            created=draw(st.integers(0, 2)),
            value_micros=draw(st.integers(0, 50)) * DOLLAR,
        )
        for at in range(draw(st.integers(1, 6)))
    )
    groups = tuple(group(f"g{at}", share.guaranteed) for at, share in enumerate(shares))
    past = tuple(replace(share, history_milli=draw(st.sampled_from([0, 1500, 9000]))) for share in shares)
    return Problem(groups=groups, asks=asks, shares=past, aim=draw(st.sampled_from(list(Aim))))


@planned
@settings(max_examples=100, deadline=None)
@given(problem=neighbours())
def test_a_tenant_gets_what_it_could_place_on_its_guarantee_whatever_others_ask(
    plan: Planner, problem: Problem
) -> None:
    placed = has(problem, plan)
    assert covered(problem) <= placed
    for share in problem.shares:
        mine = [
            each for each in problem.asks if each.tenant == share.tenant and any(True for _ in options(problem, each))
        ]
        if sum(each.total for each in mine) <= share.guaranteed:
            assert {each.id for each in mine} <= placed


@planned
def test_a_covered_request_goes_before_any_priority_and_before_any_value(plan: Planner) -> None:
    asks = (
        ask("mine", 4, value_micros=5 * DOLLAR),
        ask("theirs", 4, tenant="rich", priority=9, value_micros=900 * DOLLAR),
    )
    problem = Problem(groups=(group("g", 4),), asks=asks, shares=(Share(tenant="t", guaranteed=4, history_milli=9000),))
    assert has(problem, plan) == {"mine"}
    assert has(replace(problem, aim=Aim.WELFARE), plan) == {"mine"}
    assert has(replace(problem, shares=()), plan) == {"theirs"}


@planned
def test_a_guarantee_is_no_cap_and_is_not_kept_free(plan: Planner) -> None:
    problem = Problem(
        groups=(group("g", 8),),
        asks=(ask("mine", 2), ask("more", 2, created=1), ask("theirs", 4, tenant="u", created=2)),
        shares=(Share(tenant="t", guaranteed=2), Share(tenant="absent", guaranteed=6)),
    )
    assert has(problem, plan) == {"mine", "more", "theirs"}


@settings(max_examples=150, deadline=None)
@given(whole_problems(frozenset({"shares", "running"})))
def test_guarantees_are_handed_out_as_the_words_of_the_model_say(problem: Problem) -> None:
    choices = {each.id: [*options(problem, each)] for each in problem.asks}
    assert fairness.entitled(problem, lambda each: bool(choices[each.id])) == entitled(problem, choices)


# History


@planned
def test_who_had_more_than_its_share_must_be_worth_more(plan: Planner) -> None:
    problem = Problem(
        groups=(group("g", 4),),
        asks=(ask("often", 4, value_micros=10 * DOLLAR), ask("seldom", 4, tenant="u", value_micros=9 * DOLLAR)),
        aim=Aim.WELFARE,
    )
    # Of 6 and 5 dollars gained, the first counts 3 with twice its share behind it; with less than a share, all 6.
    assert has(problem, plan) == {"often"}
    assert has(replace(problem, shares=(Share(tenant="t", history_milli=2000),)), plan) == {"seldom"}
    assert has(replace(problem, shares=(Share(tenant="u", history_milli=10),)), plan) == {"often"}


# More capacity


def with_more(problem: Problem, count: int, like: int) -> Problem:
    """With one more group, at the price of another."""
    price = problem.groups[like % len(problem.groups)].price_micros
    return replace(problem, groups=(*problem.groups, group("more", count, price_micros=price)))


@settings(max_examples=80, deadline=None)
@given(whole_problems(most_asks=3, most_groups=2), st.integers(1, 8), st.integers(0, 1))
def test_more_capacity_never_makes_the_best_plan_worse(problem: Problem, count: int, like: int) -> None:
    more = with_more(problem, count, like)
    # What guarantees cover may change with what is possible at all; the example below shows where that leads.
    assume(covered(problem) == covered(more))
    assert best(more) >= best(problem)


@settings(max_examples=80, deadline=None)
@given(problems(), st.integers(1, 8), st.integers(0, 3), st.booleans())
def test_more_capacity_never_makes_what_the_solver_proves_best_worse(
    problem: Problem, count: int, like: int, welfare: bool
) -> None:
    if welfare:
        worth = tuple(replace(each, value_micros=each.devices * 2 * DOLLAR) for each in problem.asks)
        problem = replace(problem, asks=worth, aim=Aim.WELFARE)
    more = with_more(problem, count, like)
    assert reached(more, solved(more)) >= reached(problem, solved(problem))


@planned
def test_more_capacity_may_let_a_large_request_in_that_takes_the_money_of_a_small_one(plan: Planner) -> None:
    problem = Problem(
        groups=(group("g", 4),),
        asks=(
            ask("small", 4, tenant="small", budgets=("all",), value_micros=5 * DOLLAR),
            ask("large", 8, tenant="large", budgets=("all",), value_micros=99 * DOLLAR, priority=1),
        ),
        budgets=(Budget(id="all", remaining_micros=8 * DOLLAR),),
    )
    for aim in Aim:
        before = replace(problem, aim=aim)
        after = replace(before, groups=(*before.groups, group("more", 8)))
        assert has(before, plan) == {"small"}
        assert has(after, plan) == {"large"}


@planned
def test_more_capacity_may_let_a_gang_in_that_spreads_over_the_place_of_a_small_request(plan: Planner) -> None:
    # As a new road may make everybody's way longer (Braess): nothing was taken away, and the small tenant has nothing.
    problem = Problem(
        groups=(group("g", 4),),
        asks=(ask("small", 4, tenant="small"), ask("gang", 4, workers=2, split=2, tenant="large")),
    )
    after = replace(problem, groups=(*problem.groups, group("more", 4)))
    assert has(problem, plan) == {"small"}
    assert has(after, plan) == {"gang"}


@planned
def test_more_capacity_may_move_a_guarantee_to_requests_that_compete_for_it(plan: Planner) -> None:
    # first-t and first-u suit only the new group, which holds one of them. Before, they are not possible and the
    # guarantees cover second-t and second-u; after, they are, and cover them no longer.
    def only(name: str, tenant: str, where: str, priority: int) -> Ask:
        return ask(name, 8, tenant=tenant, matched=frozenset({where}), priority=priority)

    problem = Problem(
        groups=(group("one"), group("two")),
        asks=(
            *(only(f"first-{tenant}", tenant, "more", 1) for tenant in "tu"),
            only("second-t", "t", "one", 0),
            only("second-u", "u", "two", 0),
            *(only(f"stranger-{where}", "s", where, 9) for where in ("one", "two")),
        ),
        shares=(Share(tenant="t", guaranteed=8), Share(tenant="u", guaranteed=8)),
    )
    after = replace(problem, groups=(*problem.groups, group("more")))
    assert has(problem, plan) == {"second-t", "second-u"}
    found = has(after, plan)
    assert len(found & {"first-t", "first-u"}) == 1
    assert found >= {"stranger-one", "stranger-two"}
    assert best(after)[1] == 8 < best(problem)[1] == 16


# The same answer again


@settings(max_examples=60, deadline=None)
@given(neighbours(), st.randoms(use_true_random=False))
def test_a_problem_with_shares_has_the_same_plan_in_whatever_order_it_is_written(
    problem: Problem, rng: random.Random
) -> None:
    turned = replace(
        problem,
        groups=tuple(rng.sample(problem.groups, len(problem.groups))),
        asks=tuple(rng.sample(problem.asks, len(problem.asks))),
        shares=tuple(rng.sample(problem.shares, len(problem.shares))),
    )
    one, other = answer(problem), answer(turned)
    assert one.placements == other.placements
    assert one.fairness == other.fairness


@settings(max_examples=60, deadline=None)
@given(neighbours())
def test_a_plan_with_shares_says_that_guarantees_were_kept(problem: Problem) -> None:
    found = answer(problem)
    assert found.fairness is not None
    asked = {each.id: each for each in problem.asks}
    for share in problem.shares:
        row = found.fairness.tenants[share.tenant]
        assert row.guaranteed == share.guaranteed
        assert row.entitled == row.entitled_placed
        placed = [each for name, each in found.placements.items() if asked[name].tenant == share.tenant]
        assert row.devices == sum(each.devices for each in placed)
    assert 0 <= found.fairness.least <= found.fairness.most
