"""On federations of real prices, ours is never below a peer; skipped where the measured data is absent."""

from __future__ import annotations

import pytest

from optimizer.check import violations
from optimizer.pairs import compile_pairs
from optimizer.problem import Problem
from optimizer.reasons import placed
from optimizer.solution import Placement
from tests.bench.federation import federation, missing
from tests.bench.peers import PEERS
from tests.optimizing import answer

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


def welfare(problem: Problem, placements: dict[str, Placement]) -> int:
    """Σ (value − cost)."""
    values = {ask.id: ask.value_micros or 0 for ask in problem.asks}
    return sum(values[name] - each.cost_micros for name, each in placements.items())


def test_the_same_arguments_make_the_same_federation() -> None:
    assert federation(asks=30, groups=20, seed=4) == federation(asks=30, groups=20, seed=4)
    assert federation(asks=30, groups=20, seed=4) != federation(asks=30, groups=20, seed=5)


@pytest.mark.parametrize("budgets", [False, True])
@pytest.mark.parametrize("load", [0.5, 1.25])
def test_no_peer_is_better_and_every_peer_keeps_the_limits(load: float, budgets: bool) -> None:
    problem = federation(asks=100, groups=50, load=load, budgets=budgets, seed=1)
    solution = answer(problem, time_limit_s=5.0)
    pairs = compile_pairs(problem)
    for name, peer in PEERS.items():
        plan = placed(pairs, peer(pairs), 0)
        assert violations(problem, plan) == (), name
        assert welfare(problem, plan) <= welfare(problem, dict(solution.placements)), name
        assert welfare(problem, plan) <= solution.goals[0].bound, name
