"""What a plan promises where requests may be placed in many ways: whatever the ways are, no plan is better.

Drawn problems are compared with trying every plan (``trying``); the sentences below them say the same of one way each.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.problem import (
    Aim,
    Budget,
    Form,
    Held,
    Later,
    Problem,
    Quota,
    Running,
    Share,
    Tier,
)
from optimizer.solution import Solution, Status, Why
from tests.drawing import MATTERS, whole_problems
from tests.optimizing import DOLLAR, HOUR, answer, ask, group
from tests.trying import best, reached

# The same problems in every run: a search for new ones belongs on somebody's desk, not in the way of a change.
ways = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def proved(problem: Problem) -> Solution:
    """The solution, which claims to be the best and is."""
    solution = answer(problem)
    assert reached(problem, solution.placements) == best(problem)
    assert (solution.status, solution.gap) == (Status.OPTIMAL, 0.0)
    ended = {each.id for each in problem.asks if each.running is not None} - set(solution.placements)
    assert set(solution.ended) == ended
    return solution


def at(solution: Solution) -> dict[str, list[str]]:
    """Ask → groups."""
    return {name: [part.group for part in each.parts] for name, each in solution.placements.items()}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(whole_problems())
def test_no_plan_is_better_than_the_one_found_whatever_matters(problem: Problem) -> None:
    proved(problem)


@pytest.mark.parametrize(
    "about",
    [
        {"workers", "nodes"},
        {"forms"},
        {"forms", "starts"},
        {"split", "workers"},
        {"split", "nodes"},
        {"split", "exposure", "money"},
        {"starts", "later"},
        {"starts", "prices", "money"},
        {"starts", "nodes", "later"},
        {"running"},
        {"running", "nodes"},
        {"running", "starts", "later"},
        {"running", "split"},
        {"running", "welfare"},
        {"running", "shares", "priority"},
        {"exposure"},
        {"reclaims", "welfare"},
        {"places", "tiers"},
        {"shares", "welfare"},
        {"rows", "units", "starts"},
    ],
    ids=lambda about: "+".join(sorted(about)),
)
@ways
@given(data=st.data())
def test_no_plan_is_better_than_the_one_found_about(about: Set[str], data: st.DataObject) -> None:
    assert about <= set(MATTERS)
    proved(data.draw(whole_problems(about=about)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(whole_problems())
def test_the_order_in_which_a_whole_problem_is_written_does_not_matter(problem: Problem) -> None:
    turned = replace(
        problem,
        groups=problem.groups[::-1],
        asks=problem.asks[::-1],
        budgets=problem.budgets[::-1],
        quotas=problem.quotas[::-1],
        shares=problem.shares[::-1],
    )
    assert answer(problem).placements == answer(turned).placements


def test_workers_sit_on_nodes_whole_and_several_to_a_node() -> None:
    crew = ask("r", 2, workers=3, same_node=True)
    solution = proved(Problem(groups=(group("g", 7, per_node=(5, 2)),), asks=(crew,)))
    assert solution.placements["r"].nodes == ((0, 4), (1, 2))
    refused = proved(Problem(groups=(group("g", 7, per_node=(3, 3, 1)),), asks=(crew,))).unplaced["r"]
    assert refused.removed == {Why.NODE: 1}
    # A unit of four holds a worker of two or of three, and never two workers.
    tpu = proved(Problem(groups=(group("g", 3, unit=4, per_node=(2, 1)),), asks=(crew,)))
    assert (tpu.placements["r"].units, tpu.placements["r"].devices) == (3, 12)


def test_workers_that_pack_in_one_way_only_are_packed_that_way() -> None:
    # 3 + 2 twice, and not 2 + 2 and 3 + 3.
    asks = (ask("threes", 3, workers=2, same_node=True), ask("twos", 2, workers=2, same_node=True, created=1))
    solution = proved(Problem(groups=(group("g", 10, per_node=(5, 5)),), asks=asks))
    assert set(solution.placements) == {"threes", "twos"}


def test_a_form_is_judged_by_its_own_devices_duration_and_price() -> None:
    wish = ask("r", 4, matched=frozenset({"g"}), forms=(Form(devices=2, speed_milli=1500),))
    groups = (group("g"), group("fast", price_micros=2 * DOLLAR))
    placement = proved(Problem(groups=groups, asks=(wish,))).placements["r"]
    assert (placement.group, placement.form, placement.devices, placement.duration_s) == ("fast", 1, 2, 2400)
    assert placement.cost_micros == 2_666_667
    capped = replace(wish, price_cap_micros=3 * DOLLAR // 2)
    assert at(proved(Problem(groups=groups, asks=(capped,)))) == {"r": ["g"]}
    hurried = replace(wish, end_by_s=HOUR - 1)
    assert proved(Problem(groups=groups, asks=(hurried,))).placements["r"].removed == {Why.WINDOW: 1}


def test_the_first_form_that_names_a_group_is_the_one_it_is_taken_in() -> None:
    forms = (Form(matched=frozenset({"b"}), devices=3), Form(devices=1))
    wish = ask("r", 4, matched=frozenset({"a"}), forms=forms)
    solution = proved(Problem(groups=(group("a", 3), group("b", 2)), asks=(wish,)))
    assert solution.unplaced["r"].removed == {Why.COUNT: 2}
    nowhere = ask("r", 4, matched=frozenset(), forms=(Form(matched=frozenset({"b"}), devices=3),))
    refused = proved(Problem(groups=(group("a", 3), group("b", 2)), asks=(nowhere,))).unplaced["r"]
    assert refused.removed[Why.SELECTOR] == 1


def test_a_request_is_split_over_as_many_groups_as_it_allows_and_no_more() -> None:
    groups = tuple(group(f"g{name}", 2, price_micros=price * DOLLAR) for name, price in enumerate((3, 1, 2)))
    for split, where in ((1, {}), (2, {}), (3, {"r": {"g0", "g1", "g2"}})):
        problem = Problem(groups=groups, asks=(ask("r", 2, workers=3, split=split),))
        assert {name: set(parts) for name, parts in at(proved(problem)).items()} == where
    problem = Problem(groups=groups, asks=(ask("r", 2, workers=2, split=3),))
    assert {name: set(parts) for name, parts in at(proved(problem)).items()} == {"r": {"g1", "g2"}}


def test_a_split_pays_the_transfer_of_each_part_and_keeps_the_cap_with_all_of_them() -> None:
    groups = (group("a", 2), group("b", 2, region="us"), group("whole", 4, price_micros=DOLLAR + 3, region="ap"))
    wish = ask("r", 2, workers=2, split=2, transfer_micros={"eu": 7, "us": 6})
    assert at(proved(Problem(groups=groups, asks=(wish,)))) == {"r": ["whole"]}
    dearer = (*groups[:2], replace(groups[2], price_micros=DOLLAR + 4))
    assert {*at(proved(Problem(groups=dearer, asks=(wish,))))["r"]} == {"a", "b"}
    capped = replace(wish, total_cap_micros=4 * DOLLAR + 12)
    assert at(proved(Problem(groups=groups[:2], asks=(capped,)))) == {}
    enough = replace(wish, total_cap_micros=4 * DOLLAR + 13)
    assert {*at(proved(Problem(groups=groups[:2], asks=(enough,))))["r"]} == {"a", "b"}


def test_a_request_waits_for_the_cheaper_window_where_waiting_costs_less() -> None:
    offers = group("g", 4, prices=((HOUR, DOLLAR // 2),))
    for delay, start in ((0, HOUR), (2 * DOLLAR - 1, HOUR), (2 * DOLLAR + 1, 0)):
        wish = ask("r", 4, start_by_s=HOUR, delay_micros=delay)
        placement = proved(Problem(groups=(offers,), asks=(wish,), starts=(0, HOUR))).placements["r"]
        assert (placement.start_s, placement.loss_micros) == (start, delay if start else 0)


def test_a_deadline_leaves_no_time_to_wait() -> None:
    offers = group("g", 4, prices=((HOUR, 0),))
    for end, start in ((2 * HOUR, HOUR), (2 * HOUR - 1, 0)):
        wish = ask("r", 4, start_by_s=HOUR, end_by_s=end)
        assert proved(Problem(groups=(offers,), asks=(wish,), starts=(0, HOUR))).placements["r"].start_s == start
    late = ask("r", 4, start_by_s=HOUR, end_by_s=HOUR - 1)
    assert proved(Problem(groups=(offers,), asks=(late,), starts=(0, HOUR))).unplaced["r"].removed == {Why.WINDOW: 1}


def test_a_window_is_reserved_in_advance_and_what_fits_before_it_still_goes() -> None:
    reserved = ask("r", 4, not_before_s=HOUR, priority=1)
    fits, overlaps = ask("fits", 4), ask("overlaps", 4, created=1, duration_s=HOUR + 1)
    problem = Problem(groups=(group("g", 4),), asks=(overlaps, fits, reserved), starts=(0, HOUR))
    solution = proved(problem)
    assert {name: each.start_s for name, each in solution.placements.items()} == {"r": HOUR, "fits": 0}


def test_a_reservation_that_begins_is_kept_free_of_what_would_still_run() -> None:
    offers = group("g", 4, later=(Later(at_s=HOUR, units=-4),))
    asks = (ask("long", 4, duration_s=HOUR + 1), ask("short", 4, created=1))
    problem = Problem(groups=(offers,), asks=asks, starts=(0, HOUR))
    assert at(proved(problem)) == {"short": ["g"]}
    # With one start there is one bucket, which lasts: what is taken later is not free now.
    assert at(proved(replace(problem, starts=(0,)))) == {}


def test_a_lease_that_ends_frees_its_devices_for_the_next_start() -> None:
    offers = group("g", 0, per_node=(0,), later=(Later(at_s=1800, units=4, node=0),))
    wish = ask("r", 4, same_node=True, start_by_s=HOUR)
    placement = proved(Problem(groups=(offers,), asks=(wish,), starts=(0, HOUR))).placements["r"]
    assert (placement.start_s, placement.nodes) == (HOUR, ((0, 4),))


def test_a_running_lease_moves_only_where_moving_costs_less_than_it_saves() -> None:
    groups = (group("dear", 4, price_micros=2 * DOLLAR), group("cheap", 4))
    for move, where in ((4 * DOLLAR - 1, "cheap"), (4 * DOLLAR + 1, "dear"), (None, "dear")):
        held = Running(held=(Held(group="dear"),), move_micros=move)
        placement = proved(Problem(groups=groups, asks=(ask("r", 4, running=held),))).placements["r"]
        assert (placement.group, placement.moved) == (where, where == "cheap")
        assert placement.loss_micros == (move if placement.moved else 0)


def test_a_running_lease_makes_room_for_another_and_only_if_it_may() -> None:
    groups = (group("g", 4), group("h", 4, price_micros=2 * DOLLAR))
    tied = ask("s", 4, created=1, matched=frozenset({"g"}))
    for move, placed in ((DOLLAR, {"r": ["h"], "s": ["g"]}), (None, {"r": ["g"]})):
        held = Running(held=(Held(group="g"),), move_micros=move)
        assert at(proved(Problem(groups=groups, asks=(ask("r", 4, running=held), tied)))) == placed


def test_a_running_lease_goes_on_though_no_predicate_would_admit_it_now() -> None:
    held = Running(held=(Held(group="g"),))
    stuck = ask("r", 4, running=held, matched=frozenset(), price_cap_micros=0, tiers=(Tier(groups=frozenset()),))
    gone = group("g", 0, cluster="home", max_duration_s=1)
    placement = proved(Problem(groups=(gone,), asks=(stuck, ask("s", 1)))).placements["r"]
    assert (placement.group, placement.moved, placement.tier) == ("g", False, 0)


def test_a_lease_is_ended_whole_and_only_where_it_may_be() -> None:
    held = Running(held=(Held(group="a"), Held(group="b")), end_micros=1)
    victim = ask("r", 2, workers=2, split=2, running=held)
    high = ask("high", 1, priority=1)
    problem = Problem(groups=(group("a", 2), group("b", 2)), asks=(victim, high, ask("low", 1, priority=-1)))
    solution = proved(problem)
    assert (set(solution.placements), solution.ended) == ({"high", "low"}, ("r",))
    assert "r" in solution.unplaced
    pinned = replace(victim, running=replace(held, end_micros=None))
    kept = proved(replace(problem, asks=(pinned, high)))
    assert (at(kept), kept.ended) == ({"r": ["a", "b"]}, ())


def test_nothing_of_equal_or_lower_priority_ends_a_lease_of_more_weight() -> None:
    held = Running(held=(Held(group="g"),), end_micros=0)
    problem = Problem(groups=(group("g", 4),), asks=(ask("r", 4, created=1, running=held), ask("s", 3)))
    assert at(proved(problem)) == {"r": ["g"]}


def test_ending_is_weighed_with_its_cost_where_the_aim_is_welfare() -> None:
    for end, served in ((DOLLAR - 1, "s"), (DOLLAR + 1, "r")):
        held = Running(held=(Held(group="g"),), end_micros=end)
        asks = (ask("r", 4, value_micros=5 * DOLLAR, running=held), ask("s", 4, value_micros=6 * DOLLAR))
        solution = proved(Problem(groups=(group("g", 4),), asks=asks, aim=Aim.WELFARE))
        assert set(solution.placements) == {served}


def test_a_limit_lowered_under_what_must_stay_lets_nobody_else_in() -> None:
    held = Running(held=(Held(group="g"),))
    problem = Problem(
        groups=(group("g", 8),),
        asks=(ask("r", 4, running=held, budgets=("b",), quotas=("q",)), ask("s", 1, budgets=("b",), priority=5)),
        budgets=(Budget(id="b", remaining_micros=DOLLAR),),
        quotas=(Quota(id="q", remaining_devices=0),),
    )
    assert at(proved(problem)) == {"r": ["g"]}


def test_exposure_to_some_groups_is_capped_and_the_rest_goes_elsewhere() -> None:
    quota = Quota(id="spot", remaining_devices=5, groups=frozenset({"spot"}))
    groups = (group("spot", 20), group("firm", 20, price_micros=3 * DOLLAR))
    asks = tuple(ask(f"r{at}", 2, created=at, quotas=("spot",)) for at in range(4))
    solution = proved(Problem(groups=groups, asks=asks, quotas=(quota,)))
    assert sorted(at(solution).values()) == [["firm"], ["firm"], ["spot"], ["spot"]]


def test_requests_are_spread_over_lenders_by_a_quota_for_each() -> None:
    quotas = tuple(Quota(id=name, remaining_devices=2, groups=frozenset({name})) for name in "ab")
    asks = tuple(ask(f"r{at}", 2, quotas=("a", "b")) for at in range(3))
    solution = proved(Problem(groups=(group("a", 9), group("b", 9)), asks=asks, quotas=quotas))
    assert sorted(at(solution).values()) == [["a"], ["b"]]


def test_a_budget_pays_in_its_window_only() -> None:
    budgets = (
        Budget(id="this", remaining_micros=4 * DOLLAR, until_s=HOUR),
        Budget(id="next", remaining_micros=4 * DOLLAR, from_s=HOUR),
    )
    asks = tuple(ask(f"r{at}", 4, created=at, budgets=("this", "next"), start_by_s=HOUR) for at in range(3))
    solution = proved(Problem(groups=(group("g", 20),), asks=asks, budgets=budgets, starts=(0, HOUR)))
    assert sorted(each.start_s for each in solution.placements.values()) == [0, HOUR]


def test_the_risk_of_a_reclaim_counts_and_is_not_paid() -> None:
    groups = (group("spot", reclaims=250_000, uninterrupted_s=0), group("firm", price_micros=DOLLAR + 1))
    for restart, where in ((0, "spot"), (12, "spot"), (20, "firm")):
        placement = proved(Problem(groups=groups, asks=(ask("r", 4, restart_micros=restart),))).placements["r"]
        assert placement.group == where
        assert placement.loss_micros == (restart // 4 if where == "spot" else 0)
    refused = proved(Problem(groups=groups[:1], asks=(ask("r", 4, uninterrupted=True),))).unplaced["r"]
    assert refused.removed == {Why.INTERRUPTIBLE: 1}


def test_who_must_not_be_interrupted_goes_where_a_lease_is_left_alone_for_all_of_its_duration() -> None:
    groups = (
        group("spot", uninterrupted_s=0),
        group("hour", price_micros=2 * DOLLAR, uninterrupted_s=HOUR),
        group("firm", price_micros=9 * DOLLAR),
    )
    for seconds, where in ((HOUR, "hour"), (HOUR + 1, "firm")):
        asks = (ask("r", duration_s=seconds, uninterrupted=True), ask("s", duration_s=seconds))
        assert at(proved(Problem(groups=groups, asks=asks))) == {"r": [where], "s": ["spot"]}


def test_a_lease_is_left_alone_for_long_enough_as_fast_as_its_form_is() -> None:
    slow = Form(matched=frozenset({"old"}), devices=4, speed_milli=500)
    fast = Form(matched=frozenset({"new"}), devices=4, speed_milli=2_000)
    groups = (group("old", uninterrupted_s=2 * HOUR - 1), group("new", price_micros=9 * DOLLAR, uninterrupted_s=1800))
    wanted = ask("r", 4, matched=frozenset(), forms=(slow, fast), uninterrupted=True)
    placed = proved(Problem(groups=groups, asks=(wanted,)))
    assert at(placed) == {"r": ["new"]}
    assert placed.placements["r"].removed == {Why.INTERRUPTIBLE: 1}


def test_a_jurisdiction_that_is_not_allowed_or_not_known_is_no_answer() -> None:
    groups = (group("us", jurisdiction="US"), group("unknown"), group("eu", price_micros=9 * DOLLAR, jurisdiction="EU"))
    solution = proved(Problem(groups=groups, asks=(ask("r", jurisdictions=frozenset({"EU"})),)))
    assert at(solution) == {"r": ["eu"]}
    assert solution.placements["r"].removed == {Why.JURISDICTION: 2}


def test_what_must_not_move_says_so_of_every_other_group() -> None:
    held = Running(held=(Held(group="g"),), end_micros=0)
    problem = Problem(groups=(group("g", 0), group("h")), asks=(ask("r", 4, running=held),))
    refused = proved(problem).unplaced["r"]
    assert refused.removed[Why.PINNED] == 1


def test_what_a_lease_holds_beyond_its_nodes_is_nobody_elses_when_it_moves() -> None:
    """A node was lost: nobody can be put on it, whoever leaves."""
    groups = (group("lost", 0, price_micros=2 * DOLLAR, per_node=(0,)), group("g", 1, per_node=(1,)))
    runs = ask("runs", 1, running=Running(held=(Held(group="lost"),), move_micros=0))
    solution = proved(Problem(groups=groups, asks=(runs, ask("r", 1))))
    assert at(solution) == {"runs": ["lost"], "r": ["g"]}


def test_a_guarantee_is_served_before_any_priority() -> None:
    asks = (ask("low", 4, priority=-3), ask("high", 4, tenant="u", priority=9))
    problem = Problem(groups=(group("g", 4),), asks=asks, shares=(Share(tenant="t", guaranteed=4),))
    assert at(proved(problem)) == {"low": ["g"]}
    less = replace(problem, shares=(Share(tenant="t", guaranteed=3),))
    assert at(proved(less)) == {"high": ["g"]}


def test_who_had_more_than_its_share_gains_less() -> None:
    asks = (ask("r", 4, value_micros=6 * DOLLAR), ask("s", 4, tenant="u", value_micros=5 * DOLLAR))
    shares = (Share(tenant="t", history_milli=3000), Share(tenant="u", history_milli=10))
    problem = Problem(groups=(group("g", 4),), asks=asks, shares=shares, aim=Aim.WELFARE)
    solution = proved(problem)
    assert (at(solution), solution.goals[-1].reached) == ({"s": ["g"]}, DOLLAR)
