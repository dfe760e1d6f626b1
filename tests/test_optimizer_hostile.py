"""Problems at the edges of what may be asked: they get an answer, a true one, or a sentence, and soon."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from optimizer.bundles import _all_ways
from optimizer.effort import Stop
from optimizer.knapsacks import undominated
from optimizer.ledger import Ledger
from optimizer.pairs import compile_pairs
from optimizer.problem import Aim, BadProblem, Budget, CapacityRow, Held, Problem, Quota, Running
from optimizer.ranges import MAX_MONEY
from optimizer.solution import Status
from tests.optimizing import DOLLAR, HOUR, answer, ask, group
from tests.trying import best, reached

YEARS = 10**8


def test_a_split_over_offers_of_different_units_is_found() -> None:
    whole, single = group("a", 1, unit=8, per_node=(1,), price_micros=1), group("b", 8, per_node=(8,))
    lease = ask("x", 8, workers=2, split=2, same_node=True)
    found = answer(Problem(groups=(whole, single), asks=(lease,)))
    assert {part.group for part in found.placements["x"].parts} == {"a", "b"}


def test_a_split_request_may_spread_over_caps_that_each_hold_a_part_of_it() -> None:
    problem = Problem(
        groups=(group("a"), group("b")),
        quotas=tuple(Quota(id=f"at most 2 of {name}", remaining_devices=2, groups=frozenset({name})) for name in "ab"),
        asks=(ask("x", 1, workers=4, split=2, quotas=("at most 2 of a", "at most 2 of b")),),
    )
    found = answer(problem)
    assert [part.workers for part in found.placements["x"].parts] == [2, 2]
    assert reached(problem, found.placements) == best(problem)


def test_a_split_request_takes_no_more_of_a_capped_offer_than_the_cap_allows() -> None:
    caps = (Quota(id="cap", remaining_devices=1, groups=frozenset({"cheap"})),)
    groups = (group("cheap", price_micros=1), group("dear", 3))
    problem = Problem(groups=groups, quotas=caps, asks=(ask("x", 1, workers=4, split=2, quotas=("cap",)),))
    found = answer(problem)
    assert {part.group: part.workers for part in found.placements["x"].parts} == {"cheap": 1, "dear": 3}
    assert reached(problem, found.placements) == best(problem)
    wider = replace(problem, asks=(replace(problem.asks[0], workers=5),))
    assert answer(wider).placements == {}
    assert answer(wider).status is Status.OPTIMAL


def test_a_quota_over_everything_still_holds_the_whole_of_a_split_request() -> None:
    problem = Problem(
        groups=(group("a"), group("b")),
        quotas=(Quota(id="q", remaining_devices=3),),
        asks=(ask("x", 1, workers=4, split=2, quotas=("q",)),),
    )
    assert answer(problem).placements == {}


def test_a_pair_that_no_cap_counts_is_not_dominated_by_one_that_a_cap_counts() -> None:
    problem = Problem(
        groups=(group("capped", price_micros=1), group("free", price_micros=2)),
        quotas=(Quota(id="q", remaining_devices=1, groups=frozenset({"capped"})),),
        asks=(ask("x", quotas=("q",), value_micros=DOLLAR),),
        aim=Aim.WELFARE,
    )
    pairs = compile_pairs(problem)
    kept = undominated(pairs, np.arange(2), np.array([9.0, 8.0]))
    assert kept.tolist() == [0, 1]
    plain = compile_pairs(replace(problem, quotas=(Quota(id="q", remaining_devices=1),)))
    assert undominated(plain, np.arange(2), np.array([9.0, 8.0])).tolist() == [0]


@pytest.mark.parametrize(
    "held",
    [
        (Held(group="g"), Held(group="g")),
        (Held(group="g", workers=2, nodes=(0,)),),
        (Held(group="g", workers=2, nodes=(0, 1, 1)),),
    ],
)
def test_a_running_lease_that_is_told_unclearly_is_refused_with_a_sentence(held: tuple[Held, ...]) -> None:
    with pytest.raises(BadProblem):
        Running(held=held)


def test_a_running_lease_goes_on_whose_nodes_are_known_in_one_of_its_offers_only() -> None:
    groups = (group("g", per_node=(4, 4)), group("h", per_node=(4, 4)))
    lease = ask("a", workers=2, running=Running(held=(Held(group="g"), Held(group="h", nodes=(1,)))))
    parts = answer(Problem(groups=groups, asks=(lease,))).placements["a"].parts
    assert {part.group: part.nodes for part in parts} == {"g": (), "h": ((1, 1),)}


def test_a_running_lease_beyond_a_billion_dollars_is_refused_with_a_sentence() -> None:
    lease = ask("a", 10**6, duration_s=YEARS, running=Running(held=(Held(group="g"),)))
    with pytest.raises(BadProblem, match="still costs"):
        Problem(groups=(group("g", 10**6, price_micros=10**10),), asks=(lease,))


def test_an_offer_in_too_many_capacity_rows_is_refused_with_a_sentence() -> None:
    rows = tuple(CapacityRow(id=f"r{at}", limit=1, members={"g": 1}) for at in range(101))
    with pytest.raises(BadProblem, match="'g'"):
        Problem(groups=(group("g"),), rows=rows, asks=())


def test_losses_are_exact_where_their_product_leaves_64_bits() -> None:
    asks = tuple(
        ask(f"a{at}", duration_s=10**6 + at, restart_micros=10**9 + 7 * at + at * at, created=at) for at in range(60)
    )
    found = answer(Problem(groups=(group("g", 100, reclaims=999_999_937),), asks=asks))
    assert len(found.placements) == 60


def test_losses_beyond_a_billion_dollars_count_as_a_billion() -> None:
    groups = (group("g", 5, reclaims=10**9), group("h", 5, reclaims=10**9))
    lasting = ask("a", workers=6, split=2, duration_s=YEARS, restart_micros=MAX_MONEY)
    assert answer(Problem(groups=groups, asks=(lasting,))).placements["a"].loss_micros == MAX_MONEY


def test_waiting_may_cost_the_most_there_is() -> None:
    asks = tuple(ask(name, delay_micros=MAX_MONEY, start_by_s=YEARS) for name in "ab")
    found = answer(Problem(groups=(group("g", 1),), starts=(0, YEARS), asks=asks))
    assert sorted(placed.loss_micros for placed in found.placements.values()) == [0, MAX_MONEY]


def test_a_budget_holds_the_most_there_is() -> None:
    groups = (group("g", 10**6, price_micros=10**10),)
    asks = tuple(ask(f"a{at}", 10**5, budgets=("b",), value_micros=MAX_MONEY, created=at) for at in range(3))
    budgets = (Budget(id="b", remaining_micros=MAX_MONEY),)
    assert len(answer(Problem(groups=groups, asks=asks, budgets=budgets, aim=Aim.WELFARE)).placements) == 1


def test_a_million_workers_sit_down_node_by_node() -> None:
    pairs = compile_pairs(
        Problem(groups=(group("g", 10**6, per_node=(1000,) * 1000),), asks=(ask("a", workers=10**6, same_node=True),))
    )
    ledger = Ledger(pairs)
    seats = ledger.take(0)
    assert len(seats) == 10**6
    assert not ledger.nodes[0].overfull()
    assert ledger.largest[0] == 0


def test_ways_of_a_million_workers_are_few_where_few_are_possible() -> None:
    # Each count of the last group looked at once would be a million looks for each way to fill the others.
    assert list(_all_ways([1, 999_999], 10**6, 2)) == [((0, 1), (1, 999_999))]
    assert list(_all_ways([2, 2, 999_997], 10**6, 3)) == [
        ((0, 2), (1, 2), (2, 999_996)),
        ((0, 2), (1, 1), (2, 999_997)),
        ((0, 1), (1, 2), (2, 999_997)),
    ]


@pytest.mark.timeout(30)
def test_a_solver_that_is_told_to_stop_before_it_listens_is_told_again() -> None:
    stop, heard, told = Stop(), threading.Event(), []

    def end() -> None:
        told.append(1)
        if len(told) > 2:
            heard.set()

    stop.now()
    with stop.stopping(end):
        assert heard.wait(10)


def test_nobody_is_told_to_stop_that_has_ended() -> None:
    stop, told = Stop(), []
    with stop.stopping(lambda: told.append(1)):
        stop.now()
    done = len(told)
    stop.now()
    assert done >= 1
    assert len(told) <= done + 1


def test_nobody_asking_is_an_answer_whatever_limits_and_starts_there_are() -> None:
    quota = Quota(id="q", remaining_devices=0, groups=frozenset({"g"}))
    problem = Problem(groups=(group("g"),), asks=(), quotas=(quota,), starts=(0, HOUR))
    assert answer(problem).status is Status.OPTIMAL
