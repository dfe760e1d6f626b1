"""What the checker promises: it sees every kind of broken promise, without the solver's help.

A case is a plan that keeps all promises, and the same with one thing changed, which a sentence must name.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from optimizer.check import cost_of, loss_of, overdrawn, rate_of, unsuitable, violations, wrong
from optimizer.problem import (
    Aim,
    Budget,
    CapacityRow,
    Confidential,
    Form,
    Held,
    Later,
    Problem,
    Quota,
    Running,
    Tier,
)
from tests.optimizing import DOLLAR, HOUR, as_placed, ask, group, other, stays, with_ask
from tests.promises import Case, Plan, cases, sees

G = group("g", 8, per_node=(4, 4))
R = ask("r", 4, budgets=("b",), quotas=("q",))
S = ask("s", 4, same_node=True)
PROBLEM = Problem(
    groups=(G, group("h", 2)),
    asks=(R, S),
    budgets=(Budget(id="b", remaining_micros=4 * DOLLAR),),
    quotas=(Quota(id="q", remaining_devices=4),),
    rows=(CapacityRow(id="k", limit=8, members={"g": 1, "h": 3}),),
)
GOOD = {"r": as_placed(R, G, ((0, 4),)), "s": as_placed(S, G, ((1, 4),))}


def but(**changed: object) -> Plan:
    """GOOD, with the part of ``s`` changed."""
    return {**GOOD, "s": other(GOOD["s"], **changed)}


def with_g(**terms: object) -> Problem:
    return replace(PROBLEM, groups=(replace(G, **terms), group("h", 2)))  # type: ignore[arg-type]  # tests name any field


def test_a_valid_plan_has_no_violations() -> None:
    assert violations(PROBLEM, GOOD) == ()
    assert violations(PROBLEM, {}) == ()


@cases(
    Case("one node is not over-full", PROBLEM, GOOD, but(nodes=((0, 4),)), "Node 0 of group 'g' has 4 units; 8"),
    Case("a worker is not cut in two", PROBLEM, GOOD, but(nodes=((0, 2), (1, 2))), "whole", alone=False),
    Case("nodes are named", PROBLEM, GOOD, but(nodes=()), "nodes do not add up"),
    Case("nodes exist", PROBLEM, GOOD, but(nodes=((7, 4),)), "a node that the group does not have"),
    Case("units are whole", PROBLEM, GOOD, but(devices=5), "are not the whole of 1 × 4"),
    Case("the cost is right", PROBLEM, GOOD, but(cost_micros=1), "the plan says 1"),
    Case("the tier is right", PROBLEM, GOOD, {**GOOD, "s": replace(GOOD["s"], tier=1)}, "belongs to tier 0"),
    Case(
        "the price is right", PROBLEM, GOOD, {**GOOD, "s": replace(GOOD["s"], price_micros=1)}, "the price is 1000000"
    ),
    Case("the loss is right", PROBLEM, GOOD, {**GOOD, "s": replace(GOOD["s"], loss_micros=1)}, "the loss is 0"),
    Case("the duration is right", PROBLEM, GOOD, {**GOOD, "s": replace(GOOD["s"], duration_s=9)}, "takes 3600 s"),
    Case("the form is right", PROBLEM, GOOD, {**GOOD, "s": replace(GOOD["s"], form=1)}, "in form 0, the plan says 1"),
    Case("groups exist", PROBLEM, GOOD, but(group="nowhere"), "'nowhere'"),
    Case("requests exist", PROBLEM, GOOD, {**GOOD, "nobody": GOOD["s"]}, "'nobody'"),
    Case("it is somewhere", PROBLEM, GOOD, {**GOOD, "s": replace(GOOD["s"], parts=())}, "nowhere"),
    Case("groups are not over-full", PROBLEM, GOOD, with_g(count=7), "Group 'g' has 7 units; the plan takes 8"),
    Case(
        "shared capacity is kept",
        PROBLEM,
        GOOD,
        replace(PROBLEM, rows=(CapacityRow(id="k", limit=7, members={"g": 1}),)),
        "Shared capacity 'k' allows 7; the plan takes 8",
    ),
    Case(
        "budgets are kept",
        PROBLEM,
        GOOD,
        replace(PROBLEM, budgets=(Budget(id="b", remaining_micros=4 * DOLLAR - 1),)),
        "Budget 'b'",
    ),
    Case("quotas are kept", PROBLEM, GOOD, replace(PROBLEM, quotas=(Quota(id="q", remaining_devices=3),)), "Quota 'q'"),
)
def test_what_is_there_is_not_promised_twice(case: Case) -> None:
    sees(case)


ONE = {"s": GOOD["s"]}


def wish(**wishes: object) -> Problem:
    """PROBLEM, with other wishes of ``s``."""
    return with_ask(PROBLEM, replace(S, **wishes))  # type: ignore[arg-type]  # tests name any field


@cases(
    Case("not at home", PROBLEM, ONE, with_g(cluster="home"), "own cluster"),
    Case("not too long", PROBLEM, ONE, with_g(max_duration_s=9), "does not lend for 3600 s"),
    Case("not too short", PROBLEM, ONE, with_g(min_duration_s=9000), "does not lend for 3600 s"),
    Case("only admitted tenants", PROBLEM, ONE, with_g(allowed_tenants=frozenset()), "does not admit tenant 't'"),
    Case("selected", PROBLEM, ONE, wish(matched=frozenset({"h"})), "do not match"),
    Case("not avoided", PROBLEM, ONE, wish(avoid=frozenset({"g"})), "already failed"),
    Case("price cap", PROBLEM, ONE, wish(price_cap_micros=1), "above the cap of 1"),
    Case("total cap", PROBLEM, ONE, wish(total_cap_micros=1), "for the whole is above the cap"),
    Case("cluster", PROBLEM, ONE, wish(clusters=frozenset()), "cluster 'c-g' is not allowed"),
    Case("region", PROBLEM, ONE, wish(regions=frozenset()), "region 'eu' is not allowed"),
    Case("provider", PROBLEM, ONE, wish(providers=frozenset()), "provider '' is not allowed"),
    Case("jurisdiction", PROBLEM, ONE, wish(jurisdictions=frozenset({"EU"})), "jurisdiction '' is not allowed"),
    Case("confidential", PROBLEM, ONE, wish(confidential=Confidential.REQUIRE), "does not declare to be confidential"),
    Case(
        "uninterrupted",
        with_g(uninterrupted_s=0),
        ONE,
        with_ask(with_g(uninterrupted_s=0), replace(S, uninterrupted=True)),
        "may reclaim it after 0 s",
    ),
    Case("some tier", PROBLEM, ONE, wish(tiers=(Tier(groups=frozenset()),)), "no tier admits"),
    Case("tier's cap", PROBLEM, ONE, wish(tiers=(Tier(price_cap_micros=5),)), "tier's cap of 5"),
)
def test_no_predicate_is_broken(case: Case) -> None:
    sees(case)


# Three workers of two devices, on nodes of four and one of two.
NODED = group("n", 10, per_node=(4, 4, 2))
CREW = ask("crew", 2, workers=3, same_node=True)
CREWED = Problem(groups=(NODED, group("loose", 10)), asks=(CREW,))
ON_NODES = {"crew": as_placed(CREW, NODED, ((0, 4), (2, 2)))}


def crew(nodes: tuple[tuple[int, int], ...]) -> Plan:
    return {"crew": other(ON_NODES["crew"], nodes=nodes)}


@cases(
    Case(
        "a node's workers are whole",
        CREWED,
        ON_NODES,
        crew(((0, 3), (1, 3))),
        "3 of its units, which is not a number of whole",
        alone=False,
    ),
    Case("a node is named once", CREWED, ON_NODES, crew(((0, 2), (0, 2), (2, 2))), "in order, each once"),
    Case("nodes come in order", CREWED, ON_NODES, crew(((2, 2), (0, 4))), "in order, each once"),
    Case("all units have a node", CREWED, ON_NODES, crew(((0, 4),)), "do not add up"),
    Case(
        "no worker is missing",
        CREWED,
        ON_NODES,
        {"crew": other(ON_NODES["crew"], workers=2, units=4, devices=4, cost_micros=4 * DOLLAR, nodes=((0, 4),))},
        "2 workers are not the whole of 3",
        alone=False,
    ),
    Case(
        "a group that names no nodes is no answer",
        CREWED,
        ON_NODES,
        {"crew": as_placed(CREW, group("loose", 10))},
        "do not add up",
    ),
)
def test_workers_share_nodes_whole(case: Case) -> None:
    sees(case)


# Four devices for an hour, or two on faster ones of "f" for 40 minutes.
FAST = Form(matched=frozenset({"f"}), devices=2, speed_milli=1500)
FORMED = ask("r", 4, matched=frozenset({"g"}), forms=(FAST, Form(devices=1)))
FORMS = Problem(groups=(group("g"), group("f")), asks=(FORMED,))
IN_FORM = {"r": as_placed(FORMED, group("f"))}


def test_a_form_has_its_own_devices_duration_and_cost() -> None:
    placed = IN_FORM["r"]
    assert (placed.form, placed.devices, placed.duration_s, placed.cost_micros) == (1, 2, 2400, 1_333_334)
    assert placed.price_micros == DOLLAR
    assert violations(FORMS, IN_FORM) == ()
    assert cost_of(FORMED, group("f")) == 1_333_334
    assert rate_of(replace(FORMED, transfer_micros={"eu": 100}), group("f")) == DOLLAR + Fraction(3600 * 100, 2 * 2400)


@cases(
    Case(
        "the first form that names it",
        FORMS,
        IN_FORM,
        {"r": replace(IN_FORM["r"], form=0)},
        "form 1, the plan says 0",
        alone=False,
    ),
    Case(
        "the deadline counts in the form",
        FORMS,
        IN_FORM,
        with_ask(FORMS, replace(FORMED, end_by_s=2399)),
        "would end at 2400 s, after its deadline of 2399",
    ),
    Case(
        "a lender's longest in the form",
        FORMS,
        IN_FORM,
        replace(FORMS, groups=(group("g"), group("f", max_duration_s=2399))),
        "does not lend for 2400 s",
    ),
    Case(
        "a form names its groups",
        FORMS,
        IN_FORM,
        with_ask(FORMS, replace(FORMED, forms=(replace(FAST, matched=frozenset({"g"})),))),
        "do not match",
    ),
)
def test_forms_are_taken_as_they_are_written(case: Case) -> None:
    sees(case)


# Two starts; the price falls at the second, and a node's worth comes free then.
LATE = group("g", 2, later=(Later(at_s=HOUR, units=2),), prices=((HOUR, DOLLAR // 2),))
WAITS = ask("r", 4, start_by_s=HOUR, end_by_s=2 * HOUR, delay_micros=600_000)
TIMED = Problem(groups=(LATE,), asks=(WAITS,), starts=(0, HOUR))
LATER = {"r": as_placed(WAITS, LATE, start_s=HOUR)}


def test_what_starts_later_pays_the_price_of_then_and_counts_its_wait() -> None:
    assert (LATER["r"].cost_micros, LATER["r"].loss_micros) == (2 * DOLLAR, 600_000)
    assert cost_of(WAITS, LATE, start_s=HOUR) == 2 * DOLLAR
    assert rate_of(WAITS, LATE, start_s=HOUR) == DOLLAR // 2
    assert list(unsuitable(WAITS, LATE, start_s=HOUR)) == []
    assert loss_of(replace(WAITS, not_before_s=1800), LATE, start_s=HOUR) == 300_000


@cases(
    Case(
        "what is free later is not free now",
        TIMED,
        LATER,
        {"r": as_placed(WAITS, LATE)},
        "Group 'g' has 2 units from 0 s on; the plan takes 4",
    ),
    Case(
        "a start of the problem",
        TIMED,
        LATER,
        replace(TIMED, starts=(0, 1800, HOUR + 1)),
        "no start of the problem",
        alone=False,
    ),
    Case(
        "not before",
        TIMED,
        LATER,
        with_ask(TIMED, replace(WAITS, not_before_s=1, start_by_s=HOUR - 1)),
        "no start between 1 and 3599",
        alone=False,
    ),
    Case("start by", TIMED, LATER, with_ask(TIMED, replace(WAITS, start_by_s=None)), "no start between 0 and 0 s"),
    Case("end by", TIMED, LATER, with_ask(TIMED, replace(WAITS, end_by_s=2 * HOUR - 1)), "after its deadline of 7199"),
    Case(
        "its price is that of its start",
        TIMED,
        LATER,
        with_ask(TIMED, replace(WAITS, price_cap_micros=DOLLAR // 2 - 1)),
        "above the cap of 499999",
    ),
)
def test_windows_and_starts_are_kept(case: Case) -> None:
    sees(case)


def test_a_placement_counts_in_every_bucket_that_it_touches_and_in_no_other() -> None:
    offers = group("g", 4, later=(Later(at_s=5000, units=-2), Later(at_s=8000, units=2)))
    short, long = ask("r", 4, duration_s=HOUR), ask("r", 4, duration_s=HOUR + 1)
    for wish, good in ((short, True), (long, False)):
        problem = Problem(groups=(offers,), asks=(wish,), starts=(0, HOUR, 2 * HOUR))
        found = violations(problem, {"r": as_placed(wish, offers)})
        assert found == (() if good else ("Group 'g' has 2 units from 3600 s on; the plan takes 4.",))
    last = ask("r", 3, not_before_s=2 * HOUR)
    problem = Problem(groups=(offers,), asks=(last,), starts=(0, HOUR, 2 * HOUR))
    assert violations(problem, {"r": as_placed(last, offers, start_s=2 * HOUR)}) == (
        "Group 'g' has 2 units from 7200 s on; the plan takes 3.",
    )


def test_two_that_follow_each_other_share_devices_nodes_and_rows() -> None:
    offers = group("g", 4, per_node=(4,))
    first, second = ask("r", 4, same_node=True), ask("s", 4, same_node=True, not_before_s=HOUR)
    row = CapacityRow(id="k", limit=4, members={"g": 1})
    problem = Problem(groups=(offers,), asks=(first, second), rows=(row,), starts=(0, HOUR))
    plan = {
        "r": as_placed(first, offers, ((0, 4),)),
        "s": as_placed(second, offers, ((0, 4),), start_s=HOUR),
    }
    assert violations(problem, plan) == ()
    longer = replace(first, duration_s=HOUR + 1)
    found = violations(with_ask(problem, longer), {**plan, "r": as_placed(longer, offers, ((0, 4),))})
    assert {each.split(" ")[0] for each in found} == {"Group", "Node", "Shared"}
    assert all("from 3600 s on" in each for each in found)


def test_a_node_has_what_its_own_changes_leave() -> None:
    offers = group("g", 8, per_node=(4, 4), later=(Later(at_s=1800, units=-1, node=1),))
    wish = ask("r", 4, same_node=True)
    problem = Problem(groups=(offers,), asks=(wish,))
    assert violations(problem, {"r": as_placed(wish, offers, ((0, 4),))}) == ()
    assert violations(problem, {"r": as_placed(wish, offers, ((1, 4),))}) == (
        "Node 1 of group 'g' has 3 units; 4 are taken.",
    )


def test_where_nodes_follow_from_no_wish_and_starts_are_several_none_are_named() -> None:
    offers, wish = group("g", 8, per_node=(4, 4)), ask("r", 6)
    one, two = (Problem(groups=(offers,), asks=(wish,), starts=starts) for starts in ((0,), (0, HOUR)))
    named, bare = {"r": as_placed(wish, offers, ((0, 4), (1, 2)))}, {"r": as_placed(wish, offers)}
    assert violations(one, named) == violations(two, bare) == ()
    assert "nodes do not add up" in violations(one, bare)[0]
    assert "where none are asked for" in violations(two, named)[0]


def test_money_and_devices_are_counted_only_in_the_window_and_groups_of_their_limit() -> None:
    offers, far = group("g"), group("far", region="us")
    first = ask("r", 4, budgets=("now", "then"), quotas=("now", "then", "far"))
    second = ask("s", 4, not_before_s=HOUR, budgets=("now", "then"), quotas=("now", "then", "far"))
    problem = Problem(
        groups=(offers, far),
        asks=(first, second),
        budgets=(
            Budget(id="now", remaining_micros=4 * DOLLAR, until_s=HOUR),
            Budget(id="then", remaining_micros=4 * DOLLAR, from_s=HOUR),
        ),
        quotas=(
            Quota(id="now", remaining_devices=4, until_s=HOUR),
            Quota(id="then", remaining_devices=4, from_s=HOUR),
            Quota(id="far", remaining_devices=0, groups=frozenset({"far"})),
        ),
        starts=(0, HOUR),
    )
    plan = {"r": as_placed(first, offers), "s": as_placed(second, offers, start_s=HOUR)}
    assert violations(problem, plan) == ()

    wider = replace(problem, budgets=(replace(problem.budgets[0], until_s=HOUR + 1), problem.budgets[1]))
    assert violations(wider, plan) == ("Budget 'now' has 4000000 µUSD; the plan needs 8000000.",)
    wider = replace(problem, quotas=(problem.quotas[0], replace(problem.quotas[1], from_s=HOUR - 1), problem.quotas[2]))
    assert violations(wider, plan) == ("Quota 'then' has 4 devices; the plan takes 8.",)
    assert violations(problem, {**plan, "r": as_placed(first, far)}) == (
        "Quota 'far' has 0 devices; the plan takes 4.",
    )


def test_with_welfare_nothing_is_bought_for_more_than_it_is_worth_but_what_stays() -> None:
    wish = ask("r", 4, value_micros=4 * DOLLAR, restart_micros=DOLLAR)
    problem = Problem(groups=(group("g", reclaims=0),), asks=(wish,), aim=Aim.WELFARE)
    assert violations(problem, {"r": as_placed(wish, problem.groups[0])}) == ()
    risky = replace(problem, groups=(group("g", reclaims=1),))
    (found,) = violations(risky, {"r": as_placed(wish, risky.groups[0])})
    assert "costs 1 µUSD more than it is worth" in found
    lease = replace(wish, value_micros=0, running=Running(held=(Held(group="g"),), end_micros=1))
    running = with_ask(problem, lease)
    assert violations(running, {"r": stays(lease, running)}) == ()


def test_half_of_the_checker_can_be_asked_alone() -> None:
    assert wrong(PROBLEM, S, GOOD["s"]) == overdrawn(PROBLEM, GOOD) == ()
    assert len(wrong(PROBLEM, S, replace(GOOD["s"], tier=3))) == 1
    assert len(overdrawn(with_g(count=7), GOOD)) == 1


def test_whatever_does_not_divide_is_rounded_up() -> None:
    wish = ask("r", 5, duration_s=10, workers=2, forms=(), delay_micros=1, start_by_s=HOUR)
    offers = group("g", 8, unit=4, price_micros=1)
    # Two workers of two units of four; 16 µUSD an hour for ten seconds.
    placed = as_placed(wish, offers)
    assert (placed.units, placed.devices, placed.cost_micros) == (4, 16, 1)
    assert violations(Problem(groups=(offers,), asks=(wish,)), {"r": placed}) == ()
    slow = replace(wish, matched=frozenset(), forms=(Form(devices=5, workers=2, speed_milli=3000),))
    plan = {"r": as_placed(slow, offers)}
    assert plan["r"].duration_s == 4
    assert loss_of(wish, offers, start_s=1) == 1
    assert loss_of(replace(wish, restart_micros=1), replace(offers, reclaims=1)) == 1
    assert loss_of(replace(wish, restart_micros=1), replace(offers, reclaims=1), replace(offers, reclaims=1)) == 2
    assert cost_of(wish, offers, workers=1) == 1


def test_a_node_past_the_last_is_no_node() -> None:
    (found,) = violations(PROBLEM, but(nodes=((2, 4),)))
    assert "a node that the group does not have" in found


def test_a_plan_that_meets_its_caps_exactly_keeps_them() -> None:
    exact = wish(
        price_cap_micros=DOLLAR, total_cap_micros=4 * DOLLAR, end_by_s=HOUR, tiers=(Tier(price_cap_micros=DOLLAR),)
    )
    assert violations(exact, ONE) == ()
