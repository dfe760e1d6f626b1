"""What the way for large problems promises, shown on small ones where the truth is known: bounds that hold, plans
that are valid, and the same answer as the exact way wherever it claims one.
"""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer import goals
from optimizer.check import cost_of, unsuitable
from optimizer.cpsat import Model
from optimizer.effort import Effort, Progress, Stop
from optimizer.flow import flowed
from optimizer.ledger import Ledger
from optimizer.limits import rows
from optimizer.mixed import mixed
from optimizer.packing import packed_bound
from optimizer.pairs import compile_pairs
from optimizer.prices import clear
from optimizer.problem import Aim, Problem
from optimizer.solution import Limit, Status
from optimizer.solve import solve
from tests.optimizing import DOLLAR, answer, ask, group, possible, problems, where
from tests.test_optimizer import crowd

ways = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def valued(draw: st.DrawFn) -> Problem:
    """A small problem in which every request has a value."""
    problem = draw(problems())
    asks = tuple(replace(ask, value_micros=draw(st.integers(0, 40)) * 500_001) for ask in problem.asks)
    return replace(problem, asks=asks, aim=Aim.WELFARE)


def best_welfare(problem: Problem) -> int:
    """Σ (value − cost) of the best of all plans, found by trying each."""
    groups = {group.id: group for group in problem.groups}
    asks = {ask.id: ask for ask in problem.asks}
    choices = [
        [None, *(group.id for group in problem.groups if not any(unsuitable(ask, group)))] for ask in problem.asks
    ]
    best = 0
    for picks in product(*choices):
        chosen = {ask.id: pick for ask, pick in zip(problem.asks, picks, strict=True) if pick is not None}
        gain = sum((asks[name].value_micros or 0) - cost_of(asks[name], groups[at]) for name, at in chosen.items())
        if gain > best and possible(problem, chosen):
            best = gain
    return best


@ways
@given(valued())
def test_the_exact_way_finds_the_greatest_welfare(problem: Problem) -> None:
    solution = answer(problem)
    assert solution.status is Status.OPTIMAL
    assert solution.objective == best_welfare(problem)


@ways
@given(valued())
def test_prices_bound_every_plan_whatever_they_are(problem: Problem) -> None:
    pairs = compile_pairs(problem)
    profit = goals.goals(pairs)[0].coefficient
    best = best_welfare(problem)
    for rounds in (0, 1, 100):
        prices = clear(pairs, profit, left=lambda: 1.0, rounds=rounds)
        assert prices.whole_bound >= packed_bound(pairs, prices, lambda: 1.0) >= best
    dice = np.random.default_rng(1)
    names = clear(pairs, profit, left=lambda: 1.0, rounds=0).market.names
    wild = {name: float(dice.uniform(0, 1e7)) for name in names}
    prices = clear(pairs, profit, left=lambda: 1.0, rounds=0, before=wild)
    assert prices.whole_bound >= packed_bound(pairs, prices, lambda: 1.0) >= best


@ways
@given(valued(), st.sampled_from([(0, 0), (10_000, 0), (0, 10_000)]))
def test_no_step_of_the_large_way_claims_less_than_the_best_plan_or_reaches_more(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, sizes: tuple[int, int]
) -> None:
    monkeypatch.setattr("optimizer.stages.EXACT", 0)
    monkeypatch.setattr("optimizer.welfare.WHOLE", sizes[0])
    monkeypatch.setattr("optimizer.welfare.CORE", sizes[1])
    monkeypatch.setattr("optimizer.welfare.AROUND", 3)
    monkeypatch.setattr("optimizer.welfare.IN_VAIN", 2)
    best = best_welfare(problem)
    solution = answer(problem)
    (goal,) = solution.goals
    assert goal.reached <= best <= goal.bound
    if sizes[0]:
        assert goal.reached == best == goal.bound


@ways
@given(problems(), st.sampled_from([(0, 3), (0, 10_000), (10_000, 0)]), st.sampled_from([0.0, 0.5]))
def test_bounds_of_strict_goals_hold_where_the_solver_sees_a_part_or_stops_early(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, sizes: tuple[int, int], near: float
) -> None:
    monkeypatch.undo()
    exact = answer(problem)
    monkeypatch.setattr("optimizer.stages.EXACT", 0)
    monkeypatch.setattr("optimizer.stages.TRUSTED", 0)
    monkeypatch.setattr("optimizer.search.WHOLE", sizes[0])
    monkeypatch.setattr("optimizer.search.CORE", sizes[1])
    monkeypatch.setattr("optimizer.search.NEAR", near)
    part = answer(problem)
    if part.status is Status.OPTIMAL:
        assert [goal.reached for goal in part.goals] == [goal.reached for goal in exact.goals]
    for best, seen in zip(exact.goals, part.goals, strict=True):
        # A bound holds among plans as good in all goals before: up to the first in which the part fell behind.
        assert best.reached <= seen.bound if best.maximise else best.reached >= seen.bound
        if seen.reached != best.reached:
            assert (seen.reached < best.reached) == best.maximise
            break


def test_a_solve_that_may_stop_near_the_best_does_not_call_where_it_stopped_the_best() -> None:
    pairs = compile_pairs(priced(crowd(random.Random(3), asks=60, groups=12)))
    profit = goals.goals(pairs)[0].coefficient
    effort = Effort(seconds=60, deterministic=None, seed=0, workers=1)
    every = np.arange(len(pairs))
    best = Model(pairs, every).solve(profit, (), effort)
    for gap in (0.02, 0.1, 0.5):
        early = Model(pairs, every).solve(profit, (), replace(effort, gap=gap))
        assert early.best >= best.best


def test_a_group_that_gangs_cannot_fill_is_not_bounded_as_if_they_could() -> None:
    asks = tuple(ask(f"r{at}", 3, value_micros=13 * DOLLAR) for at in range(4))
    pairs = compile_pairs(Problem(groups=(group("g", 8),), asks=asks, aim=Aim.WELFARE))
    prices = clear(pairs, goals.goals(pairs)[0].coefficient, left=lambda: 1.0)
    assert prices.whole_bound > 26 * DOLLAR
    assert 20 * DOLLAR <= packed_bound(pairs, prices, lambda: 1.0) < 20.1 * DOLLAR


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the large way begin with crowds that a test can afford."""
    monkeypatch.setattr("optimizer.stages.EXACT", 0)
    monkeypatch.setattr("optimizer.welfare.WHOLE", 0)
    monkeypatch.setattr("optimizer.welfare.CORE", 0)
    monkeypatch.setattr("optimizer.welfare.AROUND", 20)
    monkeypatch.setattr("optimizer.welfare.IN_VAIN", 4)


@pytest.mark.usefixtures("early")
def test_the_large_way_repeats_itself() -> None:
    problem = priced(crowd(random.Random(3), asks=60, groups=12))
    runs = [answer(problem, time_limit_s=60.0, seed=1, deterministic_limit=0.02) for _ in range(2)]
    assert runs[0].stats["solves"] > 4
    assert where(runs[0]) == where(runs[1])
    assert runs[0].goals == runs[1].goals


@pytest.mark.usefixtures("early")
def test_prices_and_placements_of_before_are_a_start_and_never_a_loss() -> None:
    problem = priced(crowd(random.Random(4), asks=60, groups=6))
    first = answer(problem, deterministic_limit=0.02)
    churned = replace(problem, asks=problem.asks[4:])
    again = answer(churned, deterministic_limit=0.02, previous=first)
    kept = sum(
        (ask.value_micros or 0) - first.placements[ask.id].cost_micros
        for ask in churned.asks
        if ask.id in first.placements
    )
    assert again.goals[0].reached >= kept
    assert again.goals[0].reached <= again.goals[0].bound


@pytest.mark.usefixtures("early")
def test_a_limit_that_nobody_reaches_has_no_price_and_one_that_binds_has() -> None:
    problem = priced(crowd(random.Random(4), asks=60, groups=6))
    generous = replace(problem, budgets=tuple(replace(each, remaining_micros=10**14) for each in problem.budgets))
    prices = answer(generous, deterministic_limit=0.02).prices
    assert not any(limit is Limit.BUDGET and price > 1e-6 for (limit, _), price in prices.items())
    assert any(limit is Limit.GROUP for limit, _ in prices)
    assert all(price > 0 for price in prices.values())


def test_rows_count_only_what_the_others_have_left() -> None:
    problem = crowd(random.Random(2), asks=20, groups=3)
    pairs = compile_pairs(problem)
    whole, spent = Ledger(pairs), Ledger(pairs)
    first = spent.first_fit(0) or 0
    spent.take(first)
    every = np.arange(len(pairs))
    name = pairs.groups[int(pairs.group[first])].id

    def most(ledger: Ledger) -> int:
        return next(row.most for row in rows(pairs, every, ledger) if (row.limit, row.id) == (Limit.GROUP, name))

    assert most(whole) - most(spent) == int(pairs.units[first])


def priced(problem: Problem) -> Problem:
    """The same crowd, each with a value of its own."""
    dice = random.Random(9)
    asks = tuple(
        replace(ask, value_micros=round(ask.devices * ask.duration_s / 3600 * dice.uniform(1, 6) * 1_000_000))
        for ask in problem.asks
    )
    return replace(problem, asks=asks, aim=Aim.WELFARE)


def crowded(seed: int) -> Problem:
    """More than fits, without budgets: the mixed-integer solver's own ground."""
    dice = random.Random(seed)
    groups = tuple(group(f"g{at}", dice.randint(4, 12), price_micros=dice.randint(1, 4) * DOLLAR) for at in range(12))
    asks = tuple(
        ask(f"r{at:03}", dice.choice((1, 2, 3, 5, 7)), value_micros=dice.randint(2, 40) * DOLLAR, created=at)
        for at in range(200)
    )
    return Problem(groups=groups, asks=asks, aim=Aim.WELFARE)


def test_the_mixed_integer_solver_bounds_what_it_finds_and_keeps_the_limits() -> None:
    pairs = compile_pairs(crowded(1))
    profit = goals.goals(pairs)[-1].coefficient
    everything = np.arange(len(pairs))
    found = mixed(pairs, everything, profit, (), Effort(seconds=20, deterministic=None, seed=0, workers=1))
    reached = int(profit[list(found.plan)].sum())
    exact = Model(pairs, everything).solve(profit, (), Effort(seconds=60, deterministic=None, seed=0, workers=1))
    assert exact.status == "OPTIMAL"
    assert exact.best <= found.bound
    assert reached <= exact.best <= reached * 1.0001
    assert len({int(pairs.ask[pair]) for pair in found.plan}) == len(found.plan)


def test_a_mixed_integer_solver_that_is_stopped_or_dies_leaves_the_plan_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = compile_pairs(crowded(2))
    profit = goals.goals(pairs)[-1].coefficient
    effort = Effort(seconds=20, deterministic=None, seed=0, workers=1)
    effort.stop.now()
    stopped = mixed(pairs, np.arange(len(pairs)), profit, (), effort)
    assert (dict(stopped.plan), stopped.bound) == ({}, np.inf)
    monkeypatch.setattr("sys.executable", "/bin/false")
    dead = mixed(pairs, np.arange(len(pairs)), profit, (), Effort(seconds=20, deterministic=None, seed=0, workers=1))
    assert (dict(dead.plan), dead.bound) == ({}, np.inf)


def test_plans_by_way_of_a_flow_keep_every_limit_and_find_what_greed_misses() -> None:
    # One device is worth 9 to a, which could as well have the other; greed by value leaves b with nothing.
    groups = (group("g", 1), group("h", 1, price_micros=2 * DOLLAR))
    asks = (
        ask("a", 1, value_micros=12 * DOLLAR),
        ask("b", 1, value_micros=11 * DOLLAR, matched=frozenset({"g"})),
    )
    pairs = compile_pairs(Problem(groups=groups, asks=asks, aim=Aim.WELFARE))
    profit = goals.goals(pairs)[-1].coefficient
    prices = clear(pairs, profit, left=lambda: 1.0)
    best = max(int(profit[list(plan)].sum()) for plan in flowed(pairs, profit, prices))
    assert best == 20 * DOLLAR


def test_a_solver_that_fails_leaves_a_smaller_honest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("optimizer.cpsat.Model.solve", dies)
    solution = answer(crowded(3))
    assert "out of luck" in str(solution.stats["trouble"])
    assert solution.placements
    assert solution.goals[0].reached <= solution.goals[0].bound


def test_a_solve_that_is_stopped_before_it_began_still_answers_with_a_valid_plan() -> None:
    stop = Stop()
    stop.now()
    solution = solve(crowded(4), time_limit_s=3600, stop=stop)
    assert solution.placements


def test_whoever_watches_hears_the_gap_close() -> None:
    heard: list[Progress] = []
    solve(crowded(5), time_limit_s=5, watch=heard.append)
    gaps = [each.bound - each.reached for each in heard if each.bound is not None and each.reached is not None]
    assert heard[0].stage == "greedy"
    assert heard[-1].stage == "done"
    assert gaps == sorted(gaps, reverse=True)


def test_pairs_lie_in_order_of_requests_however_far_apart_those_are_that_may_be_split() -> None:
    groups = tuple(group(f"g{at}", count=4) for at in range(2))
    asks = [ask(f"r{at:05}", 1, value_micros=50 * DOLLAR) for at in range(5_000)]
    asks[-1] = replace(asks[-1], devices=3, workers=2, split=2)
    pairs = compile_pairs(Problem(groups=groups, asks=tuple(asks), aim=Aim.WELFARE))
    assert pairs.several, "the last request may take both groups"
    assert (np.diff(pairs.ask) >= 0).all()
    assert all(pairs.ask[pair] == at for at in (0, 2_500, 4_999) for pair in pairs.of(at))


def test_once_warm_nobodys_request_waits_for_anything_to_load() -> None:
    code = """
import sys
from tests.test_optimizer import crowd
import random
from dataclasses import replace
from optimizer.problem import Aim
from optimizer.solve import solve, warm
problem = crowd(random.Random(1), asks=60, groups=6)
warm()
before = set(sys.modules)
asks = tuple(replace(ask, value_micros=10**9 + at) for at, ask in enumerate(problem.asks))
for aim in Aim:
    solve(replace(problem, asks=asks, aim=aim), time_limit_s=10)
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
