"""What the checker promises about requests in parts and about leases that run already."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from optimizer.check import loss_of, violations
from optimizer.problem import Aim, Budget, CapacityRow, Form, Held, Problem, Quota, Running, Tier
from optimizer.tally import Limits
from tests.drawing import whole_problems
from tests.optimizing import DOLLAR, HOUR, as_placed, ask, group, other, spread, stays, with_ask
from tests.promises import Case, Plan, cases, sees

# Two workers of two devices each; a is in the EU, b dearer; either does for all.
A, B, C = group("a", 2), group("b", 2, price_micros=2 * DOLLAR, region="us"), group("c", 2, region="ap")
PAIR = ask("r", 2, workers=2, split=2, transfer_micros={"us": 10, "eu": 5}, budgets=("b",), quotas=("q",))
SPLIT = Problem(
    groups=(A, B, C),
    asks=(PAIR,),
    budgets=(Budget(id="b", remaining_micros=8 * DOLLAR + 10),),
    quotas=(Quota(id="q", remaining_devices=4, groups=frozenset({"b"})),),
)
HALVES = {"r": spread(PAIR, (A, 1, ()), (B, 1, ()))}


def test_a_split_request_pays_each_part_and_each_transfer() -> None:
    placed = HALVES["r"]
    assert [part.cost_micros for part in placed.parts] == [2 * DOLLAR + 5, 4 * DOLLAR + 10]
    assert placed.price_micros == 1_500_004
    assert (
        loss_of(replace(PAIR, restart_micros=DOLLAR), replace(A, reclaims=1), replace(B, reclaims=250_000)) == 250_001
    )


@cases(
    Case("a request may be split", SPLIT, HALVES, with_ask(SPLIT, replace(PAIR, split=1)), "at most 1 are allowed"),
    Case(
        "each part does for the whole by price",
        SPLIT,
        HALVES,
        with_ask(SPLIT, replace(PAIR, price_cap_micros=2 * DOLLAR + 2)),
        "on 'b' 2000002 µUSD .*above the cap of 2000002",
    ),
    Case(
        "each part does for the whole by total",
        SPLIT,
        HALVES,
        with_ask(SPLIT, replace(PAIR, total_cap_micros=8 * DOLLAR + 9)),
        "on 'b' 8000010 µUSD for the whole",
    ),
    Case(
        "each part does for the whole by budget",
        SPLIT,
        HALVES,
        replace(SPLIT, budgets=(Budget(id="b", remaining_micros=8 * DOLLAR + 9),)),
        "all of it on 'b' would cost 8000010",
    ),
    Case(
        "each part does for the whole by quota",
        SPLIT,
        HALVES,
        replace(SPLIT, quotas=(Quota(id="q", remaining_devices=3),)),
        "all of it on 'b' would take 4 devices; quota 'q' has 3",
        alone=False,
    ),
    Case("parts add up", SPLIT, HALVES, {"r": spread(PAIR, (A, 1, ()))}, "1 workers are not the whole of 2"),
    Case(
        "groups differ", SPLIT, HALVES, {"r": spread(PAIR, (A, 1, ()), (A, 1, ()))}, "names a group twice", alone=False
    ),
    Case(
        "no part is empty",
        SPLIT,
        HALVES,
        {"r": spread(PAIR, (A, 2, ()), (B, 0, ()))},
        "a part has no worker",
        alone=False,
    ),
    Case(
        "all parts suit", SPLIT, HALVES, with_ask(SPLIT, replace(PAIR, regions=frozenset({"eu"}))), "on 'b' region 'us'"
    ),
    Case(
        "all parts in one form",
        SPLIT,
        HALVES,
        with_ask(SPLIT, replace(PAIR, matched=frozenset({"a"}), forms=(Form(devices=2, workers=2),))),
        "in form 0 and 1",
    ),
    Case(
        "the latest tier",
        SPLIT,
        HALVES,
        with_ask(SPLIT, replace(PAIR, tiers=(Tier(regions=frozenset({"eu"})), Tier()))),
        "belongs to tier 1",
    ),
)
def test_parts_of_a_split_request_keep_every_promise(case: Case) -> None:
    sees(case)


# A lease of two workers of two devices, one in each of two groups, which keep nothing else free.
HELD = Running(held=(Held(group="a"), Held(group="b")), move_micros=7, end_micros=9)
LEASE = ask("r", 2, workers=2, split=2, running=HELD, transfer_micros={"eu": 10, "us": 10, "ap": 10}, restart_micros=1)
RUNS = Problem(groups=(A, B, replace(C, count=4)), asks=(LEASE,))
KEPT = {"r": stays(LEASE, RUNS)}
MOVED = {"r": as_placed(LEASE, C, moved=True)}
PINNED = with_ask(RUNS, replace(LEASE, running=replace(HELD, move_micros=None, end_micros=None)))


def test_what_runs_may_stay_move_or_end_where_that_has_a_price() -> None:
    assert (KEPT["r"].cost_micros, KEPT["r"].loss_micros) == (6 * DOLLAR, 0)
    assert (MOVED["r"].cost_micros, MOVED["r"].loss_micros) == (4 * DOLLAR + 10, 7)
    assert violations(RUNS, KEPT) == violations(RUNS, MOVED) == violations(RUNS, {}) == violations(PINNED, KEPT) == ()


def test_what_runs_stays_whatever_the_predicates_say() -> None:
    changed = replace(
        LEASE,
        cluster="c-a",
        matched=frozenset(),
        regions=frozenset(),
        price_cap_micros=0,
        tiers=(Tier(groups=frozenset({"a"})),),
        not_before_s=9,
        end_by_s=10,
        split=1,
    )
    assert violations(with_ask(RUNS, changed), KEPT) == ()


def rehomed(**of_the_plan: object) -> Plan:
    return {"r": replace(KEPT["r"], **of_the_plan)}  # type: ignore[arg-type]  # tests name any field


HOMES = replace(RUNS, groups=tuple(replace(each, count=4) for each in RUNS.groups))


@cases(
    Case("what must not end stays", PINNED, KEPT, {}, "running lease 'r' must not be ended"),
    Case(
        "what must not move stays",
        RUNS,
        MOVED,
        with_ask(RUNS, replace(LEASE, running=replace(HELD, move_micros=None))),
        "must not be moved",
        alone=False,
    ),
    Case(
        "staying is where it was",
        HOMES,
        KEPT,
        {"r": replace(as_placed(replace(LEASE, running=None, transfer_micros={}), A))},
        "somewhere else than before",
    ),
    Case("staying is all of it", HOMES, KEPT, rehomed(parts=KEPT["r"].parts[:1]), "somewhere else than before"),
    Case("staying starts now", RUNS, KEPT, rehomed(form=1), "stays as it is, from now on"),
    Case("staying costs no transfer", RUNS, KEPT, {"r": other(KEPT["r"], cost_micros=2 * DOLLAR + 10)}, "the cost is"),
    Case("staying loses nothing", RUNS, KEPT, rehomed(loss_micros=1), "the loss of what stays is 0"),
    Case("staying takes what remains", RUNS, KEPT, rehomed(duration_s=9), "it takes 3600 s"),
    Case("staying has its price", RUNS, KEPT, rehomed(price_micros=9), "the price is 1500000"),
    Case("staying has its tier", RUNS, KEPT, rehomed(tier=1), "belongs to tier 0"),
    Case("moving costs", RUNS, MOVED, {"r": replace(MOVED["r"], loss_micros=0)}, "the loss is 7 µUSD"),
    Case("moving is said", RUNS, MOVED, {"r": replace(MOVED["r"], moved=False)}, "somewhere else than before"),
    Case(
        "moving goes elsewhere", RUNS, KEPT, {"r": spread(LEASE, (A, 1, ()), (B, 1, ()), moved=True)}, "is where it was"
    ),
    Case("what moves suits", RUNS, MOVED, with_ask(RUNS, replace(LEASE, avoid=frozenset({"c"}))), "already failed"),
    Case(
        "what does not run does not move",
        RUNS,
        MOVED,
        with_ask(RUNS, replace(LEASE, running=None)),
        "not running",
        alone=False,
    ),
)
def test_a_running_lease_keeps_its_promises(case: Case) -> None:
    sees(case)


def test_what_stays_on_nodes_stays_on_its_nodes() -> None:
    lease = ask("r", 2, workers=2, same_node=True, running=Running(held=(Held(group="n", workers=2, nodes=(2, 0)),)))
    nodes = group("n", 10, per_node=(4, 4, 2))
    problem = Problem(groups=(nodes,), asks=(lease,))
    plan = {"r": stays(lease, problem)}
    assert plan["r"].nodes == ((0, 2), (2, 2))
    assert violations(problem, plan) == ()
    (found,) = violations(problem, {"r": other(plan["r"], nodes=((0, 2), (1, 2)))})
    assert "on other nodes than before" in found
    movable = replace(lease, running=replace(lease.running, move_micros=0))  # type: ignore[type-var]  # it runs
    elsewhere = {"r": as_placed(movable, nodes, ((0, 2), (1, 2)), moved=True)}
    assert violations(with_ask(problem, movable), elsewhere) == ()


def test_a_running_lease_does_not_start_again_later() -> None:
    timed = replace(with_ask(RUNS, replace(LEASE, start_by_s=HOUR)), starts=(0, HOUR))
    plan = {"r": as_placed(timed.asks[0], C, start_s=HOUR, moved=True)}
    assert any("cannot start later" in each for each in violations(timed, plan))


def test_a_limit_lowered_under_what_must_stay_stops_only_others() -> None:
    lease = ask("r", 4, running=Running(held=(Held(group="g"),), end_micros=None), budgets=("b",), quotas=("q",))
    lowered = Problem(
        groups=(group("g", 1),),
        asks=(lease, ask("s", 1, budgets=("b",), quotas=("q",)), ask("free", 1)),
        budgets=(Budget(id="b", remaining_micros=DOLLAR),),
        quotas=(Quota(id="q", remaining_devices=1),),
        rows=(CapacityRow(id="k", limit=1, members={"g": 1}),),
    )
    plan = {"r": stays(lease, lowered)}
    assert violations(lowered, plan) == ()
    found = violations(lowered, {**plan, "s": as_placed(lowered.asks[1], lowered.groups[0])})
    assert found == (
        "Group 'g' has 4 units; the plan takes 5.",
        "Shared capacity 'k' allows 4; the plan takes 5.",
        "Budget 'b' has 4000000 µUSD; the plan needs 5000000.",
        "Quota 'q' has 4 devices; the plan takes 5.",
    )
    endable = with_ask(lowered, replace(lease, running=replace(lease.running, end_micros=0)))  # type: ignore[type-var]  # it runs
    assert len(violations(endable, plan)) == 4


def test_a_node_lost_under_what_must_stay_stops_only_others() -> None:
    lease = ask("r", 2, same_node=True, running=Running(held=(Held(group="n", nodes=(2,)),)))
    lost = Problem(groups=(group("n", 8, per_node=(4, 4, 0)),), asks=(lease, ask("s", 2, same_node=True)))
    plan = {"r": stays(lease, lost)}
    assert violations(lost, plan) == ()
    (found,) = violations(lost, {**plan, "s": as_placed(lost.asks[1], lost.groups[0], ((2, 2),))})
    assert found == "Node 2 of group 'n' has 2 units; 4 are taken."


def test_parts_may_cost_more_together_than_the_whole_in_one_place() -> None:
    wish = replace(PAIR, transfer_micros={"eu": 10, "us": 10}, budgets=(), quotas=())
    even = replace(SPLIT, asks=(wish,), groups=(A, replace(B, price_micros=DOLLAR), C))
    plan = {"r": spread(wish, (even.groups[0], 1, ()), (even.groups[1], 1, ()))}
    assert plan["r"].cost_micros == 4 * DOLLAR + 20
    assert violations(with_ask(even, replace(wish, total_cap_micros=4 * DOLLAR + 20)), plan) == ()
    (found,) = violations(with_ask(even, replace(wish, total_cap_micros=4 * DOLLAR + 19)), plan)
    assert "4000020 µUSD for all parts is above the cap" in found


def test_each_part_is_worth_it_for_the_whole() -> None:
    wish = replace(PAIR, value_micros=8 * DOLLAR + 10, budgets=(), quotas=())
    valued = replace(SPLIT, asks=(wish,), aim=Aim.WELFARE)
    assert violations(valued, HALVES) == ()
    (found,) = violations(with_ask(valued, replace(wish, value_micros=8 * DOLLAR + 9)), HALVES)
    assert "all of it on 'b' would cost more than it is worth" in found
    risky = replace(valued, groups=(A, replace(B, reclaims=1), C))
    fearful = replace(wish, restart_micros=1)
    plan = {"r": replace(HALVES["r"], loss_micros=1)}
    (found,) = violations(with_ask(risky, fearful), plan)
    assert "all of it on 'b' would cost more than it is worth" in found


def test_the_devices_of_a_part_are_whole_units() -> None:
    tpus = replace(SPLIT, groups=(A, replace(B, unit=4), C))
    plan = {"r": spread(PAIR, (A, 1, ()), (tpus.groups[1], 1, ()))}
    quota = Quota(id="q", remaining_devices=4, groups=frozenset({"b"}))
    rich = replace(tpus, budgets=(Budget(id="b", remaining_micros=99 * DOLLAR),), quotas=(quota,))
    assert violations(rich, plan) == ()
    (found,) = violations(replace(rich, quotas=(replace(quota, remaining_devices=3),)), plan)
    assert "Quota 'q' has 3 devices; the plan takes 4" in found


def test_what_must_not_move_does_not_move_within_its_group_either() -> None:
    nodes = group("n", 10, per_node=(4, 4, 2))
    lease = ask("r", 2, same_node=True, running=Running(held=(Held(group="n", nodes=(0,)),)))
    problem = Problem(groups=(nodes,), asks=(lease,))
    (found,) = violations(problem, {"r": as_placed(lease, nodes, ((1, 2),), moved=True)})
    assert "it must not be moved" in found


def test_not_being_ended_is_part_of_what_a_move_is_worth() -> None:
    running = Running(held=(Held(group="a"),), move_micros=0, end_micros=3)
    lease = ask("r", 2, value_micros=2 * DOLLAR - 3, running=running)
    problem = Problem(groups=(A, C), asks=(lease,), aim=Aim.WELFARE)
    plan = {"r": as_placed(lease, C, moved=True)}
    assert violations(problem, plan) == ()
    (found,) = violations(with_ask(problem, replace(lease, value_micros=2 * DOLLAR - 4)), plan)
    assert "costs 1 µUSD more than it is worth" in found


@settings(max_examples=100, deadline=None)
@given(whole_problems(about={"running"}))
def test_what_stays_is_told_alike_by_the_checker_and_by_the_tests(problem: Problem) -> None:
    for each in problem.asks:
        if each.running is not None:
            assert Limits(problem).kept(each) == stays(each, problem)


def test_what_stays_has_the_latest_tier_of_its_parts_and_rounds_what_it_costs_up() -> None:
    tiers = (Tier(groups=frozenset({"a"})), Tier(groups=frozenset({"b"})))
    lease = replace(
        LEASE, devices=1, workers=2, duration_s=1, tiers=tiers, budgets=("b",), running=Running(held=HELD.held)
    )
    groups = (replace(A, price_micros=1), replace(B, price_micros=2), C)
    problem = Problem(groups=groups, asks=(lease,), budgets=(Budget(id="b", remaining_micros=1),))
    (plan,) = [stays(lease, problem)]
    assert (plan.tier, plan.cost_micros, plan.price_micros) == (1, 2, 2)
    assert violations(problem, {"r": plan}) == ()


def test_what_runs_on_nodes_that_nobody_named_may_stay_on_any_or_on_none_by_name() -> None:
    lease = ask("r", 4, running=Running(held=(Held(group="n"),)))
    problem = Problem(groups=(group("n", 4, per_node=(2, 4)),), asks=(lease,))
    unnamed = stays(lease, problem)
    for nodes in ((), ((0, 2), (1, 2)), ((1, 4),)):
        assert violations(problem, {"r": other(unnamed, nodes=nodes)}) == ()
    (found,) = violations(problem, {"r": other(unnamed, nodes=((1, 3),))})
    assert "do not add up" in found
    told = replace(lease, running=Running(held=(Held(group="n", nodes=(1,)),)))
    (found,) = violations(with_ask(problem, told), {"r": other(unnamed, nodes=((0, 2), (1, 2)))})
    assert "on other nodes than before" in found
