"""What the checker promises: it sees every kind of broken promise, without the solver's help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optimizer.check import violations
from optimizer.problem import Budget, CapacityRow, Problem, Quota
from optimizer.solution import Placement
from tests.optimizing import DOLLAR, as_placed, ask, group, other

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


def test_a_valid_plan_has_no_violations() -> None:
    assert violations(PROBLEM, GOOD) == ()
    assert violations(PROBLEM, {}) == ()


@pytest.mark.parametrize(
    ("problem", "plan"),
    [
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], nodes=((0, 4),))}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], nodes=((0, 2), (1, 2)))}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], nodes=())}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], nodes=((7, 4),))}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], units=3)}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], devices=5)}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], cost_micros=1)}),
        (PROBLEM, {**GOOD, "s": replace(GOOD["s"], tier=1)}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], group="h")}),
        (PROBLEM, {**GOOD, "s": other(GOOD["s"], group="nowhere")}),
        (PROBLEM, {**GOOD, "nobody": GOOD["s"]}),
        (replace(PROBLEM, groups=(replace(G, count=7), group("h", 2))), GOOD),
        (replace(PROBLEM, groups=(replace(G, cluster="home"), group("h", 2))), GOOD),
        (replace(PROBLEM, groups=(replace(G, max_duration_s=9), group("h", 2))), GOOD),
        (replace(PROBLEM, groups=(replace(G, allowed_tenants=frozenset()), group("h", 2))), GOOD),
        (replace(PROBLEM, asks=(replace(R, matched=frozenset({"h"})), S)), GOOD),
        (replace(PROBLEM, asks=(replace(R, price_cap_micros=1), S)), GOOD),
        (replace(PROBLEM, asks=(replace(R, total_cap_micros=1), S)), GOOD),
        (replace(PROBLEM, asks=(replace(R, regions=frozenset()), S)), GOOD),
        (replace(PROBLEM, budgets=(Budget(id="b", remaining_micros=4 * DOLLAR - 1),)), GOOD),
        (replace(PROBLEM, quotas=(Quota(id="q", remaining_devices=3),)), GOOD),
        (replace(PROBLEM, rows=(CapacityRow(id="k", limit=7, members={"g": 1}),)), GOOD),
    ],
)
def test_each_broken_promise_is_seen(problem: Problem, plan: dict[str, Placement]) -> None:
    assert violations(problem, plan)
