"""What a plan promises: limits kept, the best choice made, the same answer again."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings

from optimizer.problem import (
    MAX_DURATION,
    MAX_MONEY,
    MAX_PRICE,
    Aim,
    Ask,
    BadProblem,
    Budget,
    CapacityRow,
    Confidential,
    DuplicateId,
    OutOfRange,
    Problem,
    Quota,
    Tier,
    UnknownId,
)
from optimizer.solution import Lost, Status, Why
from optimizer.solve import solve
from tests.optimizing import DOLLAR, HOUR, answer, ask, best_by_force, group, problems, value, where


@settings(max_examples=150, deadline=None)
@given(problems())
def test_no_plan_is_better_than_the_one_found(problem: Problem) -> None:
    solution = answer(problem)
    assert solution.status is Status.OPTIMAL
    assert solution.gap == 0.0
    assert value(problem, where(solution)) == best_by_force(problem)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_order_in_which_a_problem_is_written_does_not_matter(problem: Problem) -> None:
    turned = Problem(
        groups=problem.groups[::-1],
        asks=problem.asks[::-1],
        budgets=problem.budgets[::-1],
        quotas=problem.quotas,
        rows=problem.rows,
    )
    one, other = answer(problem), answer(turned)
    assert one.placements == other.placements
    assert one.unplaced == other.unplaced


def test_the_same_problem_and_seed_give_the_same_plan_where_the_search_is_cut_short() -> None:
    problem = crowd(random.Random(7), asks=80, groups=12)
    runs = [answer(problem, seed=3, deterministic_limit=0.05) for _ in range(2)]
    assert runs[0].placements == runs[1].placements
    assert runs[0].goals == runs[1].goals


def test_a_crowd_gets_a_valid_plan_with_a_bound_that_no_goal_passes() -> None:
    solution = answer(crowd(random.Random(11), asks=400, groups=40), time_limit_s=2.0)
    assert solution.placements
    for goal in solution.goals:
        assert goal.reached <= goal.bound if goal.maximise else goal.reached >= goal.bound


def test_where_the_solver_sees_only_a_part_its_bound_is_not_reported_as_the_wholes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = crowd(random.Random(7), asks=30, groups=8)
    best = answer(problem)
    assert best.status is Status.OPTIMAL
    monkeypatch.setattr("optimizer.search.WHOLE", 40)
    monkeypatch.setattr("optimizer.search.CORE", 60)
    part = answer(problem)
    assert part.stats["modelled pairs"] < part.stats["pairs"]
    assert part.status is Status.FEASIBLE
    assert part.goals[0].reached <= best.goals[0].reached <= part.goals[0].bound


def test_a_gang_is_placed_whole_on_one_group_or_not_at_all() -> None:
    problem = Problem(groups=(group("a", 6), group("b", 6)), asks=(ask("gang", 8),))
    assert answer(problem).placements == {}
    problem = Problem(groups=(group("a", 6), group("b", 8)), asks=(ask("gang", 8),))
    assert where(answer(problem)) == {"gang": "b"}


def test_a_group_never_gives_more_than_it_has() -> None:
    problem = Problem(groups=(group("a", 5),), asks=tuple(ask(f"r{at}", 2) for at in range(4)))
    assert len(answer(problem).placements) == 2


def test_a_unit_is_lent_and_paid_whole() -> None:
    problem = Problem(groups=(group("tpu", 2, unit=8),), asks=(ask("four", 4),))
    placement = answer(problem).placements["four"]
    assert (placement.units, placement.devices) == (1, 8)
    assert placement.cost_micros == 8 * DOLLAR
    assert placement.price_micros == 2 * DOLLAR
    capped = Problem(groups=(group("tpu", 2, unit=8),), asks=(ask("four", 4, price_cap_micros=DOLLAR * 3 // 2),))
    assert answer(capped).unplaced["four"].removed == {Why.PRICE_CAP: 1}


def test_the_price_cap_holds_to_the_micro_dollar() -> None:
    cap = 1_234_567
    problem = Problem(
        groups=(group("at", price_micros=cap), group("above", price_micros=cap + 1)),
        asks=(ask("r", 3, duration_s=7, price_cap_micros=cap),),
    )
    assert where(answer(problem)) == {"r": "at"}
    assert answer(problem).placements["r"].removed == {Why.PRICE_CAP: 1}


def test_the_cheapest_suitable_offer_wins_and_the_others_say_why_not() -> None:
    problem = Problem(
        groups=(
            group("dear", price_micros=3 * DOLLAR),
            group("cheap"),
            group("far", region="us", price_micros=1),
            group("wide", 20),
        ),
        asks=(ask("r", 4, regions=frozenset({"eu"})),),
    )
    placement = answer(problem).placements["r"]
    assert placement.group == "cheap"
    assert {each.group: (each.lost, each.why) for each in placement.considered} == {
        "dear": (Lost.COSTLIER, Why(0)),
        "wide": (Lost.LOOSER, Why(0)),
        "far": (Lost.INELIGIBLE, Why.REGION),
    }


def test_an_offer_that_others_took_is_called_taken() -> None:
    problem = Problem(
        groups=(group("cheap", 4), group("dear", price_micros=2 * DOLLAR)),
        asks=(ask("first", 4, created=0, price_cap_micros=DOLLAR), ask("second", 4, created=1)),
    )
    placement = answer(problem).placements["second"]
    assert placement.group == "dear"
    assert [each.lost for each in placement.considered] == [Lost.TAKEN]


def test_the_borrowers_own_cluster_is_no_answer() -> None:
    problem = Problem(groups=(group("mine", cluster="home", price_micros=0), group("theirs")), asks=(ask("r"),))
    assert where(answer(problem)) == {"r": "theirs"}


@pytest.mark.parametrize(
    ("terms", "wishes", "why"),
    [
        ({}, {"matched": frozenset()}, Why.SELECTOR),
        ({}, {"avoid": frozenset({"g"})}, Why.AVOIDED),
        ({"allowed_tenants": frozenset({"other"})}, {}, Why.TENANT),
        ({}, {"clusters": frozenset({"elsewhere"})}, Why.CLUSTER),
        ({}, {"regions": frozenset({"us"})}, Why.REGION),
        ({"provider": "p"}, {"providers": frozenset({"q"})}, Why.PROVIDER),
        ({}, {"confidential": Confidential.REQUIRE}, Why.CONFIDENTIAL),
        ({"max_duration_s": 60}, {}, Why.TOO_LONG),
        ({"min_duration_s": 7200}, {}, Why.TOO_SHORT),
        ({}, {"tiers": (Tier(clusters=frozenset({"elsewhere"})),)}, Why.TIER),
        ({}, {"tiers": (Tier(price_cap_micros=5),)}, Why.TIER_PRICE),
        ({}, {"price_cap_micros": DOLLAR - 1}, Why.PRICE_CAP),
        ({}, {"total_cap_micros": 8 * DOLLAR - 1, "devices": 8}, Why.TOTAL_CAP),
        ({}, {"devices": 9}, Why.COUNT),
        ({"per_node": (4, 4)}, {"devices": 5, "same_node": True}, Why.NODE),
        ({}, {"budgets": ("small",)}, Why.BUDGET),
        ({}, {"quotas": ("two",), "devices": 3}, Why.QUOTA),
        ({}, {"cluster": "c-g"}, Why.OWN_CLUSTER),
    ],
)
def test_each_predicate_alone_removes_an_offer_and_says_so(
    terms: dict[str, object], wishes: dict[str, object], why: Why
) -> None:
    limits = {
        "budgets": (Budget(id="small", remaining_micros=DOLLAR - 1),),
        "quotas": (Quota(id="two", remaining_devices=2),),
    }
    refused = answer(Problem(groups=(group("g", **terms),), asks=(ask("r", **wishes),), **limits)).unplaced["r"]  # type: ignore[arg-type]  # tests name any field
    assert refused.removed == refused.only == {why: 1}
    assert refused.eligible == 0


def test_a_lender_admits_its_own_tenant_though_not_named() -> None:
    closed = group("g", allowed_tenants=frozenset(), lender_tenant="t")
    assert where(answer(Problem(groups=(closed,), asks=(ask("r"),)))) == {"r": "g"}


def test_a_capacity_that_groups_share_is_kept_across_them() -> None:
    keep_back = CapacityRow(id="keep two", limit=6, members={"a": 1, "b": 1})
    problem = Problem(
        groups=(group("a", 4), group("b", 4)), asks=tuple(ask(f"r{at}", 2) for at in range(4)), rows=(keep_back,)
    )
    solution = answer(problem)
    assert len(solution.placements) == 3
    (refused,) = solution.unplaced.values()
    assert ("keep two", 2) in {(each.id, each.short_by) for each in refused.binding}


def test_a_budget_is_reserved_at_the_worst_case_and_never_passed() -> None:
    problem = Problem(
        groups=(group("g", 100),),
        asks=tuple(ask(f"r{at}", 2, duration_s=5 * HOUR, budgets=("month",)) for at in range(5)),
        budgets=(Budget(id="month", remaining_micros=35 * DOLLAR),),
    )
    solution = answer(problem)
    assert len(solution.placements) == 3
    assert solution.cost_micros == 30 * DOLLAR


def test_one_request_of_high_priority_goes_before_any_number_of_low_ones() -> None:
    low = tuple(ask(f"low{at}", 1, priority=4) for at in range(8))
    problem = Problem(groups=(group("g", 8),), asks=(*low, ask("high", 1, priority=5, created=9, weight=1)))
    solution = answer(problem)
    assert "high" in solution.placements
    assert len(solution.placements) == 8


def test_among_equals_the_earlier_request_is_served_though_a_later_one_is_cheaper() -> None:
    problem = Problem(
        groups=(group("g", 4),),
        asks=(ask("late", 4, created=2, duration_s=60), ask("early", 4, created=1)),
    )
    assert where(answer(problem)) == {"early": "g"}


def test_tiers_are_tried_in_order_whatever_they_cost() -> None:
    tiers = (
        Tier(name="friends", clusters=frozenset({"c-friend"}), price_cap_micros=5 * DOLLAR),
        Tier(name="market", price_cap_micros=2 * DOLLAR),
    )
    groups = (group("friend", 4, price_micros=4 * DOLLAR), group("market"), group("dear", price_micros=3 * DOLLAR))
    problem = Problem(groups=groups, asks=(ask("r", 4, tiers=tiers), ask("s", 4, created=1, tiers=tiers)))
    solution = answer(problem)
    assert where(solution) == {"r": "friend", "s": "market"}
    assert [solution.placements[name].tier for name in "rs"] == [0, 1]
    assert solution.placements["s"].removed == {Why.TIER_PRICE: 1}


def test_preferring_confidential_pays_more_for_it_and_takes_what_there_is_otherwise() -> None:
    plain, sealed = group("plain"), group("sealed", 4, price_micros=2 * DOLLAR, confidential=True)
    wish = ask("r", 4, confidential=Confidential.PREFER)
    assert where(answer(Problem(groups=(plain, sealed), asks=(wish,)))) == {"r": "sealed"}
    assert where(answer(Problem(groups=(plain,), asks=(wish,)))) == {"r": "plain"}
    required = ask("r", 4, confidential=Confidential.REQUIRE)
    assert where(answer(Problem(groups=(plain, sealed), asks=(required,)))) == {"r": "sealed"}
    assert where(answer(Problem(groups=(plain,), asks=(required,)))) == {}


def test_what_brings_the_data_there_counts_in_cost_and_caps() -> None:
    groups = (group("near", price_micros=2 * DOLLAR), group("far", region="us"))
    moved = {"us": 5 * DOLLAR}
    assert where(answer(Problem(groups=groups, asks=(ask("r", 4, transfer_micros=moved),)))) == {"r": "near"}
    longer = ask("r", 4, transfer_micros=moved, duration_s=2 * HOUR)
    assert where(answer(Problem(groups=groups, asks=(longer,)))) == {"r": "far"}
    capped = ask("r", 4, transfer_micros=moved, price_cap_micros=DOLLAR * 3 // 2)
    refused = answer(Problem(groups=groups, asks=(capped,))).unplaced["r"]
    assert refused.removed == {Why.PRICE_CAP: 2}


def test_a_request_for_one_node_gets_one_node_the_tightest_that_holds_it() -> None:
    problem = Problem(groups=(group("g", 14, per_node=(8, 6)),), asks=(ask("r", 5, same_node=True),))
    assert answer(problem).placements["r"].nodes == ((1, 5),)


def test_sizes_that_do_not_divide_each_other_are_still_packed_exactly() -> None:
    # 6 + 4 and 5 + 5 fill two nodes of 10; the tightest fit alone would put 6 and 5 on different nodes and fail.
    sizes = {"a": 6, "b": 5, "c": 5, "d": 4}
    problem = Problem(
        groups=(group("g", 20, per_node=(10, 10)),),
        asks=tuple(ask(name, size, same_node=True) for name, size in sizes.items()),
    )
    assert len(answer(problem).placements) == 4
    problem = Problem(
        groups=(group("g", 20, per_node=(10, 10)),),
        asks=tuple(ask(name, size, same_node=True) for name, size in {"a": 7, "b": 6, "c": 4, "d": 3}.items()),
    )
    assert len(answer(problem).placements) == 4


def test_requests_without_a_wish_for_one_node_fill_what_is_left_in_pieces() -> None:
    problem = Problem(groups=(group("g", 8, per_node=(4, 4)),), asks=(ask("whole", 3, same_node=True), ask("any", 5)))
    placements = answer(problem).placements
    assert placements["whole"].nodes == ((0, 3),)
    assert placements["any"].nodes == ((0, 1), (1, 4))


def test_welfare_places_by_value_and_leaves_out_what_costs_more_than_it_is_worth() -> None:
    problem = Problem(
        groups=(group("g", 4),),
        asks=(
            ask("small", 4, value_micros=9 * DOLLAR),
            ask("great", 4, value_micros=10 * DOLLAR),
            ask("poor", 1, value_micros=DOLLAR - 1),
        ),
        aim=Aim.WELFARE,
    )
    solution = answer(problem)
    assert where(solution) == {"great": "g"}
    assert solution.objective == 6 * DOLLAR
    assert solution.unplaced["poor"].removed == {Why.VALUE: 1}


def test_nothing_asked_and_nothing_offered_are_answered() -> None:
    nothing = answer(Problem(groups=(), asks=()))
    assert (nothing.status, nothing.gap, nothing.placements) == (Status.OPTIMAL, 0.0, {})
    assert answer(Problem(groups=(group("g"),), asks=())).status is Status.OPTIMAL
    refused = answer(Problem(groups=(), asks=(ask("r"),))).unplaced["r"]
    assert (refused.groups, refused.removed, refused.changes) == (0, {}, ())


def test_the_largest_numbers_allowed_are_solved_without_overflow() -> None:
    huge = [
        group(f"g{at}", 1_000_000, price_micros=MAX_PRICE - at, cluster=f"c{at}", per_node=(1_000_000,))
        for at in range(3)
    ]
    wide = {"devices": 1_000_000, "duration_s": MAX_DURATION, "budgets": ("all",), "created": 2**62}
    asks = [ask(f"r{at}", **wide, total_cap_micros=MAX_MONEY, transfer_micros={"eu": MAX_MONEY}) for at in range(3)]  # type: ignore[arg-type]  # tests name any field
    free = group("free", 1_000_000, price_micros=0, region="free")
    rows = (CapacityRow(id="row", limit=MAX_MONEY, members={"free": 1_000_000}),)
    budgets = (Budget(id="all", remaining_micros=MAX_MONEY),)
    problem = Problem(groups=(*huge, free), asks=tuple(asks), budgets=budgets, rows=rows)
    solution = answer(problem)
    assert set(where(solution).values()) == {"free"}
    refused = next(iter(solution.unplaced.values()))
    assert refused.removed[Why.TOTAL_CAP] == 3


def test_hundreds_of_requests_near_a_billion_dollars_are_still_summed_safely() -> None:
    dear = group("g", 1_000_000, price_micros=MAX_PRICE)
    asks = tuple(ask(f"r{at}", 1, duration_s=MAX_DURATION, budgets=("all",)) for at in range(700))
    problem = Problem(groups=(dear,), asks=asks, budgets=(Budget(id="all", remaining_micros=MAX_MONEY),))
    assert len(answer(problem).placements) == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda: group("g", -1),
        lambda: group("g", 10**7),
        lambda: group("g", 10**6, unit=2),
        lambda: group("g", price_micros=-1),
        lambda: group("g", price_micros=MAX_PRICE + 1),
        lambda: group("g", price_micros=1.5),
        lambda: group("g", price_micros=float("nan")),
        lambda: group("g", 4, per_node=(1, 2)),
        lambda: group("g", 4, per_node=(5, -1)),
        lambda: ask("r", 0),
        lambda: ask("r", -3),
        lambda: ask("r", 10**6 + 1),
        lambda: ask("r", True),
        lambda: ask("r", duration_s=0),
        lambda: ask("r", duration_s=MAX_DURATION + 1),
        lambda: ask("r", priority=10**12),
        lambda: ask("r", price_cap_micros=-1),
        lambda: ask("r", total_cap_micros=MAX_MONEY + 1),
        lambda: ask("r", transfer_micros={"eu": -1}),
        lambda: Budget(id="b", remaining_micros=-1),
        lambda: Budget(id="b", remaining_micros=float("inf")),  # type: ignore[arg-type]  # that is the point
        lambda: Quota(id="q", remaining_devices=-1),
        lambda: CapacityRow(id="k", limit=-1, members={}),
        lambda: CapacityRow(id="k", limit=1, members={"g": -1}),
        lambda: Tier(price_cap_micros=-1),
    ],
)
def test_a_number_out_of_range_is_refused_with_a_sentence(build: object) -> None:
    with pytest.raises(OutOfRange, match=r"^[A-Z].*\.$"):
        build()  # type: ignore[operator]  # a list of makers


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"groups": (group("g"), group("g"))}, DuplicateId),
        ({"asks": (ask("r"), ask("r"))}, DuplicateId),
        ({"asks": (ask("r", budgets=("none",)),)}, UnknownId),
        ({"asks": (ask("r", quotas=("none",)),)}, UnknownId),
        ({"rows": (CapacityRow(id="k", limit=1, members={"none": 1}),)}, UnknownId),
        ({"asks": (ask("r"),), "aim": Aim.WELFARE}, BadProblem),
    ],
)
def test_a_problem_that_contradicts_itself_is_refused_with_a_sentence(
    parts: dict[str, object], error: type[BadProblem]
) -> None:
    with pytest.raises(error, match=r"^[A-Z].*\.$"):
        Problem(**{"groups": (), "asks": (), **parts})  # type: ignore[arg-type]  # tests name any field


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_must_be_a_time(limit: float) -> None:
    with pytest.raises(OutOfRange):
        solve(Problem(groups=(), asks=()), time_limit_s=limit)


def test_reading_a_problem_loads_no_solver() -> None:
    code = (
        "import sys, optimizer.problem, optimizer.solution, optimizer.explain, optimizer.check;"
        "bad = {'ortools', 'numpy', 'pandas'} & set(sys.modules); assert not bad, bad;"
        "import optimizer.solve; assert 'ortools' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def crowd(rng: random.Random, *, asks: int, groups: int) -> Problem:
    """More wanted than there is, of everything."""
    offers = tuple(
        group(
            f"g{at}",
            (nodes := rng.randint(1, 4)) * 8,
            cluster=f"c{at % 7}",
            price_micros=rng.randint(5, 50) * 100_000,
            region=rng.choice(["eu", "us", "ap"]),
            per_node=(8,) * nodes,
        )
        for at in range(groups)
    )
    wanted: list[Ask] = [
        ask(
            f"r{at}",
            rng.choice([1, 2, 4, 8, 16]),
            cluster=f"c{rng.randint(0, 9)}",
            duration_s=rng.randint(600, 86_400),
            price_cap_micros=rng.randint(10, 60) * 100_000,
            priority=rng.choice([0, 0, 1]),
            created=at,
            same_node=rng.random() < 0.3,
            budgets=(f"b{at % 4}",),
        )
        for at in range(asks)
    ]
    budgets = tuple(Budget(id=f"b{at}", remaining_micros=4_000 * DOLLAR) for at in range(4))
    return Problem(groups=offers, asks=tuple(wanted), budgets=budgets)
