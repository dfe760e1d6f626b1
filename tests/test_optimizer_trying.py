"""What trying every plan promises: the best, as worked out by hand, and as found by trying them all the long way."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given, settings

from optimizer.check import violations
from optimizer.problem import (
    Aim,
    Budget,
    Confidential,
    Form,
    Held,
    Later,
    Problem,
    Quota,
    Running,
    Share,
    Tier,
)
from optimizer.solution import Placement
from tests.drawing import whole_problems
from tests.optimizing import DOLLAR, HOUR, ask, best_by_force, group, other, problems
from tests.trying import adds, best, best_plan, entitled, named, options, reached


def ids(problem: Problem) -> dict[str, list[str]]:
    """Ask → groups, of the best plan."""
    return {name: [part.group for part in placed.parts] for name, placed in best_plan(problem)[1].items()}


@settings(max_examples=100, deadline=None)
@given(problems(most_asks=4))
def test_on_ordinary_problems_the_older_way_of_trying_all_agrees(problem: Problem) -> None:
    # The older one has no lines for what runs and for guarantees; here both are 0.
    # and before the tiers comes what ending running leases costs.
    *who, tiers, plain, cost, over = best_by_force(problem)
    assert best(problem) == (0, 0, *who, 0, tiers, plain, cost, over)


@settings(max_examples=100, deadline=None)
@given(whole_problems(most_asks=3))
def test_giving_up_branches_loses_no_plan(problem: Problem) -> None:
    choices = {each.id: [*options(problem, each)] for each in problem.asks}
    covered = entitled(problem, choices)
    top: tuple[int, ...] | None = None
    for picks in product(*([None, *choices[each.id]] for each in problem.asks)):
        plan = {each.id: pick for each, pick in zip(problem.asks, picks, strict=True) if pick is not None}
        full = named(problem, plan)
        if full is None or violations(problem, full):
            continue
        rows = [adds(problem, covered, each, pick) for each, pick in zip(problem.asks, picks, strict=True)]
        score = tuple(map(sum, zip(*rows, strict=True)))
        top = score if top is None else max(top, score)
    assert best(problem) == top


@settings(max_examples=100, deadline=None)
@given(whole_problems())
def test_the_best_plan_is_valid_and_worth_what_it_is_said_to_be(problem: Problem) -> None:
    score, plan = best_plan(problem)
    assert violations(problem, plan) == ()
    assert reached(problem, plan) == score


@settings(max_examples=60, deadline=None)
@given(whole_problems(about={"running", "forms", "starts"}))
def test_no_number_of_a_plan_can_be_changed_unseen(problem: Problem) -> None:
    plan = best_plan(problem)[1]
    for name, placed in plan.items():
        changed = [
            replace(placed, **{what: getattr(placed, what) + 1})
            for what in ("price_micros", "start_s", "duration_s", "form", "tier", "loss_micros")
        ]
        changed += [other(placed, **{what: getattr(placed.parts[0], what) + 1}) for what in ("workers", "units")]
        changed += [other(placed, **{what: getattr(placed.parts[0], what) - 1}) for what in ("devices", "cost_micros")]
        changed += [replace(placed, moved=not placed.moved), replace(placed, parts=placed.parts[1:])]
        for each in changed:
            assert violations(problem, {**plan, name: each}), each


def test_every_option_is_listed_once() -> None:
    wish = ask("r", 2, workers=2, split=2, same_node=True)
    problem = Problem(groups=(group("a", 4, per_node=(4, 2)), group("b", 2, per_node=(2,))), asks=(wish,))
    listed = [[(part.group, part.nodes) for part in each.parts] for each in options(problem, wish)]
    assert listed == [
        [("a", ((0, 2), (1, 2)))],
        [("a", ((0, 4),))],
        [("a", ((1, 2),)), ("b", ((0, 2),))],
        [("a", ((0, 2),)), ("b", ((0, 2),))],
    ]


def test_what_is_cheaper_on_a_faster_device_is_found() -> None:
    fast = Form(matched=frozenset({"f"}), devices=2, speed_milli=1500)
    wish = ask("r", 4, matched=frozenset({"g"}), forms=(fast,))
    problem = Problem(groups=(group("g"), group("f", 4, price_micros=2 * DOLLAR)), asks=(wish,))
    # 4 × $1 × 1 h against 2 × $2 × 40 min; goals: 0, 0, weight, turn, not ended, tier, confidential, cost, left over.
    assert best(problem) == (0, 0, 4, 4, 0, 0, 0, -2_666_667, -2)


def test_a_split_is_found_where_no_group_holds_all() -> None:
    wish = ask("r", 2, workers=3, split=2)
    problem = Problem(groups=(group("a", 4), group("b", 3, price_micros=2 * DOLLAR), group("c", 2)), asks=(wish,))
    assert ids(problem) == {"r": ["a", "c"]}
    assert best(problem) == (0, 0, 6, 6, 0, 0, 0, -6 * DOLLAR, 0)
    assert ids(replace(problem, asks=(replace(wish, split=1),))) == {}


def test_the_cheaper_window_wins_unless_waiting_costs_more() -> None:
    offers = group("g", 4, prices=((HOUR, DOLLAR // 2),))
    wish = ask("r", 4, start_by_s=HOUR)
    problem = Problem(groups=(offers,), asks=(wish,), starts=(0, HOUR))
    assert best_plan(problem)[1]["r"].start_s == HOUR
    assert best(problem)[-2] == -2 * DOLLAR
    for delay, start in ((2 * DOLLAR - 1, HOUR), (2 * DOLLAR + 1, 0)):
        waits = replace(problem, asks=(replace(wish, delay_micros=delay),))
        assert best_plan(waits)[1]["r"].start_s == start


def test_a_lease_that_ends_serves_the_next() -> None:
    offers = group("g", 4, later=(Later(at_s=2 * HOUR, units=4),))
    asks = (
        ask("r", 4, start_by_s=HOUR, duration_s=2 * HOUR),
        ask("s", 4, created=1, start_by_s=2 * HOUR),
        ask("t", 4, created=2),
    )
    problem = Problem(groups=(offers,), asks=asks, starts=(0, HOUR, 2 * HOUR))
    # t can only go now, then r after it for two hours, and s on what the other lease leaves.
    starts = {name: placed.start_s for name, placed in best_plan(problem)[1].items()}
    assert starts == {"t": 0, "r": HOUR, "s": 2 * HOUR}


def test_a_running_lease_moves_only_where_that_pays() -> None:
    lease = ask("r", 4, running=Running(held=(Held(group="dear"),), move_micros=3 * DOLLAR))
    groups = (group("dear", 4, price_micros=2 * DOLLAR), group("cheap", 4))
    problem = Problem(groups=groups, asks=(lease,))
    assert ids(problem) == {"r": ["cheap"]}
    assert best(problem) == (4, 0, 4, 4, 0, 0, 0, -7 * DOLLAR, 0)
    costly = replace(lease, running=replace(lease.running, move_micros=4 * DOLLAR + 1))  # type: ignore[type-var]  # it runs
    assert ids(replace(problem, asks=(costly,))) == {"r": ["dear"]}


def test_a_running_lease_ends_for_a_higher_priority_and_only_where_it_may() -> None:
    lease = ask("r", 4, running=Running(held=(Held(group="g"),), end_micros=5))
    problem = Problem(groups=(group("g", 4),), asks=(lease, ask("high", 1, priority=1)))
    assert ids(problem) == {"high": ["g"]}
    assert best(problem) == (0, 0, 1, 1, 0, 0, -5, 0, 0, -DOLLAR, -3)
    pinned = replace(lease, running=Running(held=(Held(group="g"),)))
    assert ids(replace(problem, asks=(pinned, problem.asks[1]))) == {"r": ["g"]}


def test_exposure_is_spread() -> None:
    quota = Quota(id="spot", remaining_devices=4, groups=frozenset({"a"}))
    asks = tuple(ask(f"r{at}", 4, quotas=("spot",)) for at in range(2))
    problem = Problem(groups=(group("a", 8), group("b", 8, price_micros=3 * DOLLAR)), asks=asks, quotas=(quota,))
    assert best(replace(problem, quotas=(replace(quota, groups=None),)))[2] == 4


def test_next_months_budget_pays_for_next_month() -> None:
    budgets = (
        Budget(id="this", remaining_micros=0, until_s=HOUR),
        Budget(id="next", remaining_micros=4 * DOLLAR, from_s=HOUR),
    )
    wish = ask("r", 4, budgets=("this", "next"), start_by_s=HOUR)
    problem = Problem(groups=(group("g"),), asks=(wish,), budgets=budgets, starts=(0, HOUR))
    assert best_plan(problem)[1]["r"].start_s == HOUR


def test_the_risk_of_a_reclaim_counts_like_money() -> None:
    groups = (group("spot", reclaims=250_000, uninterrupted_s=0), group("firm", price_micros=DOLLAR + 1))
    problem = Problem(groups=groups, asks=(ask("r", 4, restart_micros=12),))
    # 3 µUSD against 4 that the other costs more; then 5 against 4.
    assert ids(problem) == {"r": ["spot"]}
    assert ids(replace(problem, asks=(ask("r", 4, restart_micros=20),))) == {"r": ["firm"]}
    assert ids(replace(problem, asks=(ask("r", 4, uninterrupted=True),))) == {"r": ["firm"]}


def test_guarantees_come_before_priorities() -> None:
    asks = (
        ask("low", 4, tenant="t"),
        ask("lower", 3, tenant="t", priority=-1),
        ask("high", 4, tenant="u", priority=9),
    )
    problem = Problem(groups=(group("g", 4),), asks=asks, shares=(Share(tenant="t", guaranteed=3),))
    # low does not fit the guarantee and is passed over; lower does.
    assert ids(problem) == {"lower": ["g"]}
    more = replace(problem, shares=(Share(tenant="t", guaranteed=6),))
    assert ids(more) == {"low": ["g"]}


def test_what_runs_uses_up_a_guarantee_first() -> None:
    lease = ask("r", 2, running=Running(held=(Held(group="g"),)))
    asks = (lease, ask("s", 2, priority=5), ask("u", 2, tenant="u", priority=9))
    problem = Problem(groups=(group("g", 4),), asks=asks, shares=(Share(tenant="t", guaranteed=3),))
    assert set(ids(problem)) == {"r", "u"}
    # A guarantee smaller than what surely stays is used up all the same.
    assert set(ids(replace(problem, shares=(Share(tenant="t", guaranteed=1),)))) == {"r", "u"}


def test_history_weighs_welfare() -> None:
    asks = (ask("r", 4, value_micros=6 * DOLLAR), ask("s", 4, tenant="u", value_micros=5 * DOLLAR))
    problem = Problem(groups=(group("g", 4),), asks=asks, aim=Aim.WELFARE)
    assert best(problem) == (0, 0, 2 * DOLLAR)
    had = replace(problem, shares=(Share(tenant="t", history_milli=3000), Share(tenant="u", history_milli=10)))
    assert ids(had) == {"s": ["g"]}
    assert best(had) == (0, 0, DOLLAR)
    third = replace(had, asks=(asks[0],))
    assert best(third) == (0, 0, 666_666)


def test_a_lease_that_is_worth_less_than_it_costs_ends_where_it_may() -> None:
    running = Running(held=(Held(group="g"),), end_micros=DOLLAR)
    lease = ask("r", 4, value_micros=2 * DOLLAR, running=running)
    problem = Problem(groups=(group("g", 4),), asks=(lease,), aim=Aim.WELFARE)
    assert best(problem) == (0, 0, 0)
    assert best(replace(problem, asks=(replace(lease, value_micros=4 * DOLLAR),))) == (0, 0, DOLLAR)
    stuck = replace(lease, running=replace(running, end_micros=None))
    assert best(replace(problem, asks=(stuck,))) == (4, 0, -2 * DOLLAR)


def test_tiers_and_confidential_come_before_cost() -> None:
    tiers = (Tier(groups=frozenset({"near", "a"})), Tier())
    groups = (group("near", price_micros=5 * DOLLAR), group("far"), group("a", 1), group("b", 1, confidential=True))
    wish = ask("r", 1, workers=2, split=2, tiers=tiers, confidential=Confidential.PREFER)
    assert best(Problem(groups=groups, asks=(wish,)))[5:8] == (0, -1, -6 * DOLLAR)
    assert best(Problem(groups=groups[2:], asks=(wish,)))[5:8] == (-1, -1, -2 * DOLLAR)


def test_nodes_decide_what_fits() -> None:
    # Two workers of three fit two nodes of five only one each; then a request for four fits nowhere whole.
    crew = ask("r", 3, workers=2, same_node=True)
    problem = Problem(groups=(group("g", 10, per_node=(5, 5)),), asks=(crew, ask("s", 4, same_node=True, created=1)))
    plan: dict[str, Placement] = best_plan(problem)[1]
    assert {name: placed.nodes for name, placed in plan.items()} == {"r": ((0, 3), (1, 3))}
    loose = replace(problem, asks=(crew, ask("s", 4, created=1)))
    assert best_plan(loose)[1]["s"].nodes == ((0, 2), (1, 2))
