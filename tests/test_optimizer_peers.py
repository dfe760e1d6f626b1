"""On federations of real prices, ours is never below a peer; and each peer does what it is known for, by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.check import violations
from optimizer.problem import Aim, Ask, Budget, CapacityRow, Problem, Quota
from tests.bench import exact, outside
from tests.bench.board import NotUnderstood, board, placements, settled, welfare
from tests.bench.exact import cp_sat, flow, highs, model, pop, solvers
from tests.bench.federation import federation, missing
from tests.bench.outside import fail_over, nodes_for
from tests.bench.peers import (
    PEERS,
    Peer,
    best_fit,
    cheapest,
    density,
    dot_product,
    fair_queues,
    least_allocated,
    most_allocated,
)
from tests.bench.section import Absent
from tests.bench.versus_federation import InstanceGroup, Size, compare
from tests.optimizing import DOLLAR, answer, ask, group

measured = pytest.mark.skipif(missing() is not None, reason=missing() or "")
outside_made = pytest.mark.skipif(
    outside.at_hand() is None, reason="the peers' own environment isn't made: python -m tests.bench peers --quick"
)
ALL = {**PEERS, **solvers(20.0)}


def asks(*given: Ask) -> tuple[Ask, ...]:
    """In order of arrival, each worth a hundred dollars unless it says otherwise."""
    return tuple(
        replace(each, created=at, value_micros=100 * DOLLAR if each.value_micros is None else each.value_micros)
        for at, each in enumerate(given)
    )


def went(problem: Problem, peer: Peer) -> dict[str, str]:
    """Ask → group, checked."""
    seen = board(problem)
    plan = placements(seen, peer(seen))
    assert violations(problem, plan) == ()
    return {name: placement.group for name, placement in plan.items()}


def market(*groups: object, **terms: object) -> Problem:
    """A problem whose aim is welfare."""
    return Problem(groups=groups, aim=Aim.WELFARE, **terms)  # type: ignore[arg-type]  # tests name any field


TWO_PRICES = (group("dear", 8, price_micros=3 * DOLLAR), group("near", 4, price_micros=DOLLAR))


def test_cheapest_first_goes_where_it_costs_least_and_on_when_that_is_full() -> None:
    problem = market(*TWO_PRICES, asks=asks(ask("a", 3), ask("b", 3), ask("c", 1)))
    assert went(problem, cheapest) == {"a": "near", "b": "dear", "c": "near"}


def test_cheapest_first_does_not_look_back() -> None:
    """A better plan serves the second, worth ten times the first; first come is first served."""
    only = group("g", 4)
    problem = market(only, asks=asks(ask("first", 4, value_micros=5 * DOLLAR), ask("second", 4)))
    assert went(problem, cheapest) == {"first": "g"}
    assert went(problem, density(0.0)) == {"second": "g"}


FULL_AND_EMPTY = (group("large", 100), group("small", 10))


def test_most_allocated_fills_the_offer_of_which_the_largest_share_is_then_used() -> None:
    # 8 of 10 is fuller than 8 of 100; then 95 % of the large one is fuller than nothing else that holds 87.
    problem = market(*FULL_AND_EMPTY, asks=asks(ask("a", 8), ask("b", 87), ask("c", 2)))
    # c: large would be at 89 %, small at 100 %.
    assert went(problem, most_allocated) == {"a": "small", "b": "large", "c": "small"}


def test_least_allocated_keeps_the_largest_share_free() -> None:
    problem = market(*FULL_AND_EMPTY, asks=asks(ask("a", 8), ask("b", 87), ask("c", 2)))
    # a: 92 % free on large against 20 % on small; b only fits large; c: 3 % against 80 %.
    assert went(problem, least_allocated) == {"a": "large", "b": "large", "c": "small"}


def test_kube_takes_the_higher_priority_first() -> None:
    problem = market(group("g", 4), asks=asks(ask("early", 4), ask("high", 4, priority=1)))
    assert went(problem, most_allocated) == {"high": "g"}
    assert went(problem, best_fit) == {"early": "g"}


def test_best_fit_leaves_the_fewest_units_and_dot_product_goes_where_most_are_left() -> None:
    problem = market(group("eight", 8), group("six", 6), group("three", 3), asks=asks(ask("a", 4)))
    assert went(problem, best_fit) == {"a": "six"}
    assert went(problem, dot_product) == {"a": "eight"}


def test_fair_queues_serve_the_tenant_that_holds_least() -> None:
    greedy = [ask(f"x{at}", 2, tenant="x") for at in range(3)]
    problem = market(group("g", 6), asks=asks(*greedy, ask("y", 2, tenant="y")))
    # x 2, y 2, then x by name, with 4; arrival alone would serve x three times and y never.
    assert went(problem, fair_queues) == {"x0": "g", "y": "g", "x1": "g"}
    assert went(problem, cheapest) == {"x0": "g", "x1": "g", "x2": "g"}


def test_densities_weigh_size_as_they_say() -> None:
    # Profit 60 of 36 devices, 30 of 4, 12 of 1: by device 1.7, 7.5, 12; by root 10, 15, 12; alone 60, 30, 12.
    free = group("g", 36, price_micros=0)
    wish = (
        ask("large", 36, value_micros=60 * DOLLAR),
        ask("middle", 4, value_micros=30 * DOLLAR),
        ask("little", 1, value_micros=12 * DOLLAR),
    )
    problem = market(free, asks=asks(*wish))
    assert went(problem, density(0.0)) == {"large": "g"}
    assert set(went(problem, density(0.5))) == {"middle", "little"}
    tight = market(replace(free, count=4), asks=asks(*wish))
    assert went(tight, density(0.5)) == {"middle": "g"}
    assert went(tight, density(1.0)) == {"little": "g"}


TWO_SMALL_ONES = market(
    group("g", 100),
    asks=asks(
        ask("large", 10, value_micros=60 * DOLLAR, budgets=("b",)),
        ask("one", 5, value_micros=35 * DOLLAR, budgets=("b",)),
        ask("two", 5, value_micros=35 * DOLLAR, budgets=("b",)),
    ),
    budgets=(Budget(id="b", remaining_micros=10 * DOLLAR),),
)
"""The budget holds the two small ones, which earn 60 together, or the large one, which earns 50."""


@pytest.mark.parametrize("solver", [cp_sat(20.0), highs(20.0)], ids=["CP-SAT", "HiGHS"])
def test_the_direct_solvers_find_what_greed_misses(solver: Peer) -> None:
    assert set(went(TWO_SMALL_ONES, density(0.0))) == {"large"}
    assert set(went(TWO_SMALL_ONES, solver)) == {"one", "two"}


def test_a_row_that_never_binds_is_left_out_of_the_model() -> None:
    problem = market(
        group("g", 100), asks=asks(ask("a", 2, quotas=("q",))), quotas=(Quota(id="q", remaining_devices=9),)
    )
    assert model(board(problem)).rows == ()


def test_flow_sends_devices_where_they_are_worth_most_and_rounds_gangs_afterwards() -> None:
    """As a flow, six devices of `a` take the cheap four first; the gang fits only the other group."""
    problem = market(
        group("four", 4, price_micros=DOLLAR),
        group("six", 6, price_micros=2 * DOLLAR),
        asks=asks(ask("a", 6, value_micros=90 * DOLLAR), ask("b", 4, value_micros=20 * DOLLAR)),
    )
    assert went(problem, flow) == {"a": "six", "b": "four"}


def test_pop_at_random_cuts_capacity_and_by_tenant_keeps_budgets_whole() -> None:
    """Cut in four, no part of an offer of four holds a gang of four; dealt out whole, one part can."""
    gangs = [ask(f"{tenant}", 4, tenant=tenant) for tenant in "abcd"]
    problem = market(*(group(f"g{at}", 4) for at in range(4)), asks=asks(*gangs))
    assert went(problem, pop(4, 4.0, by_tenant=False)) == {}
    assert len(went(problem, pop(4, 4.0, by_tenant=True))) == 4


def test_the_largest_instances_are_cut_to_each_request_s_best_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = (group(f"g{at:02}", 9, price_micros=at * DOLLAR) for at in range(40))
    seen = board(market(*offers, asks=asks(ask("a", 1), ask("b", 1))))
    assert len(model(seen).pairs) == 80
    monkeypatch.setattr(exact, "WHOLE", 79)
    kept = model(seen).pairs
    assert len(kept) == 2 * exact.NEAREST
    assert seen.cost[kept].max() == (exact.NEAREST - 1) * DOLLAR


def test_settling_keeps_the_dearest_and_fills_up() -> None:
    problem = market(group("g", 4), asks=asks(ask("a", 3), ask("b", 3, value_micros=200 * DOLLAR), ask("c", 1)))
    seen = board(problem)
    kept = placements(seen, settled(seen, [0, 1]))
    assert set(kept) == {"b", "c"}


def test_shared_capacity_is_refused_rather_than_ignored() -> None:
    row = CapacityRow(id="r", limit=1, members={"g": 1})
    with pytest.raises(NotUnderstood, match="shared capacity"):
        board(market(group("g"), asks=asks(ask("a")), rows=(row,)))


def test_fail_over_follows_the_ranking_past_what_is_full_or_not_admitted() -> None:
    problem = market(
        group("full", 1),
        group("far", 8, region="us"),
        group("near", 8),
        asks=asks(ask("a", 2, regions=frozenset({"eu"}))),
    )
    seen = board(problem)
    names = [each.id for each in seen.groups]
    ranking = [names.index("full"), names.index("far"), names.index("near")]
    assert [seen.groups[int(seen.group[pair])].id for pair in fail_over(seen, lambda _: ranking)] == ["near"]
    assert fail_over(seen, lambda _: ranking[:2]) == []


def test_a_gang_is_so_many_equal_nodes_of_at_most_eight() -> None:
    assert [nodes_for(devices) for devices in (1, 5, 8, 12, 128, 13)] == [
        (1, 1),
        (5, 1),
        (8, 1),
        (6, 2),
        (8, 16),
        (1, 13),
    ]


@outside_made
def test_skypilot_goes_by_price_and_we_go_on_where_its_choice_is_full() -> None:
    """H100 at a dollar has room for one gang of two nodes; then an A100 at two; spot only for who takes it."""
    problem = market(
        group("x/y/H100/od/0", 16, kind="H100"),
        group("x/z/A100/od/0", 64, kind="A100", price_micros=2 * DOLLAR),
        group("x/z/A100/spot/0", 64, kind="A100", price_micros=DOLLAR // 2),
        asks=asks(
            ask("gang", 16, matched=frozenset({"x/y/H100/od/0", "x/z/A100/od/0"})),
            ask("late", 3, matched=frozenset({"x/y/H100/od/0", "x/z/A100/od/0"})),
            ask("spot", 8, matched=frozenset({"x/z/A100/od/0", "x/z/A100/spot/0"})),
        ),
    )
    python = outside.at_hand()
    assert python is not None
    assert went(problem, outside.skypilot(python)) == {
        "gang": "x/y/H100/od/0",
        "late": "x/z/A100/od/0",
        "spot": "x/z/A100/spot/0",
    }


@outside_made
def test_cbc_finds_what_greed_misses() -> None:
    python = outside.at_hand()
    assert python is not None
    assert set(went(TWO_SMALL_ONES, outside.cbc(python, 20.0))) == {"one", "two"}


def test_a_library_that_is_not_there_makes_a_peer_absent_and_says_which() -> None:
    """Our own Python has neither of the peers' libraries."""
    problem = market(group("g", 1), asks=asks(ask("a"), ask("b")))
    for peer, name in (
        (outside.cbc(Path(sys.executable), 1.0), "pulp"),
        (outside.skypilot(Path(sys.executable)), "sky"),
    ):
        with pytest.raises(Absent, match=f"No module named '{name}'"):
            peer(board(problem))


def test_an_environment_that_cannot_be_made_is_a_reason_and_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LENDMESH_CACHE", str(tmp_path / "file"))
    with pytest.raises(Absent, match="can't be made"):
        outside.environment(lambda _: None)


def test_a_peer_that_is_better_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = market(group("g", 4), asks=asks(ask("a", 2), ask("b", 2)))
    size = Size(2, 1, 1.0, 2.0)
    instance = compare("two, seed 0", problem, size, {"same": cheapest, "gone": "it is not here"})
    table = InstanceGroup(title="two", hurry="ours, 1 s", leisure="ours, 2 s", instances=[instance])
    assert table.better() == []
    assert ["gone", "absent: it is not here"] in [list(row[:2]) for row in table.grid().rows]
    instance.of("same").welfare += DOLLAR
    assert table.better() == ["two, seed 0: same, 197 against 196 of ours"]


@measured
def test_the_same_arguments_make_the_same_federation() -> None:
    assert federation(asks=30, groups=20, seed=4) == federation(asks=30, groups=20, seed=4)
    assert federation(asks=30, groups=20, seed=4) != federation(asks=30, groups=20, seed=5)


@measured
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("budgets", [False, True])
@pytest.mark.parametrize("load", [0.5, 0.9, 1.25])
def test_no_peer_is_better_and_every_peer_keeps_the_limits(load: float, budgets: bool, seed: int) -> None:
    problem = federation(asks=100, groups=50, load=load, budgets=budgets, seed=seed)
    solution = answer(problem)
    seen = board(problem)
    for name, peer in ALL.items():
        plan = placements(seen, peer(seen))
        assert violations(problem, plan) == (), name
        assert welfare(problem, plan) <= welfare(problem, solution.placements), name
        assert welfare(problem, plan) <= solution.goals[0].bound, name
