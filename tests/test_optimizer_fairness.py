"""What guarantees cover, what the past counts, and what the report of a plan says: by hand, and by plain loops."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import envy, fairness
from optimizer.problem import Ask, Held, OutOfRange, Problem, Running, Share
from optimizer.solution import Envy, Fairness, Part, Placement
from tests.optimizing import ask, group

KEPT = Running(held=(Held(group="g"),))
ENDABLE = Running(held=(Held(group="g"),), end_micros=1)


def covered(*asks: Ask, shares: tuple[Share, ...], without: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """In order of filling; asks in ``without`` have no option."""
    problem = Problem(groups=(group("g", 100),), asks=asks, shares=shares)
    order = fairness.filling(problem, lambda each: each.id not in without)
    assert fairness.entitled(problem, lambda each: each.id not in without) == frozenset(order)
    return order


def on(name: str, devices: int, start_s: int = 0) -> Placement:
    """As much of a group as the report reads."""
    part = Part(group=name, workers=1, units=devices, devices=devices, cost_micros=0)
    return Placement(parts=(part,), price_micros=0, duration_s=3600, start_s=start_s)


def reported(problem: Problem, plan: dict[str, Placement], pairs: set[tuple[str, str]] | None = None) -> Fairness:
    """The report where ``pairs`` of ids are eligible; None is all."""
    columns = [
        (a, g)
        for a, each in enumerate(problem.asks)
        for g, of in enumerate(problem.groups)
        if pairs is None or (each.id, of.id) in pairs
    ]
    some = {problem.asks[a].id for a, _ in columns}
    table = np.array(columns, dtype=np.int64).reshape(-1, 2)
    names = fairness.entitled(problem, lambda each: each.id in some)
    return fairness.report(problem, plan, pairs=(table[:, 0], table[:, 1]), covered=names)


# Guarantees


def test_a_guarantee_is_filled_by_priority_then_turn_and_passes_over_what_does_not_fit_whole() -> None:
    asks = (
        ask("late", 1, created=9),
        ask("low", 3, priority=-1),
        ask("wide", 6, created=1),
        ask("high", 4, priority=1, created=99),
    )
    assert covered(*asks, shares=(Share(tenant="t", guaranteed=8),)) == ("high", "late", "low")


def test_the_tenant_with_least_by_weight_is_next_and_the_first_name_among_equals() -> None:
    asks = [ask(f"{name}{at}", tenant=name, created=at) for name in "ab" for at in range(5)]
    shares = (Share(tenant="b", guaranteed=4, weight=2), Share(tenant="a", guaranteed=3))
    # Levels: a takes 1; b ½, 1; a 2; b 1½, 2 and is full; a 3.
    assert covered(*asks, shares=shares) == ("a0", "b0", "b1", "a1", "b2", "b3", "a2")


def test_what_no_offer_suits_is_not_covered_and_uses_up_nothing() -> None:
    asks = (ask("impossible", 8, priority=1), ask("possible", 8))
    assert covered(*asks, shares=(Share(tenant="t", guaranteed=8),), without=frozenset({"impossible"})) == ("possible",)


def test_without_a_guarantee_nothing_is_covered() -> None:
    assert covered(ask("r"), ask("s", tenant="other"), shares=(Share(tenant="t", weight=9),)) == ()


def test_a_gang_above_its_guarantee_is_not_covered_in_part() -> None:
    assert covered(ask("gang", 4, workers=2), shares=(Share(tenant="t", guaranteed=7),)) == ()
    assert covered(ask("gang", 4, workers=2), shares=(Share(tenant="t", guaranteed=8),)) == ("gang",)


def test_running_leases_come_first_whatever_their_priority() -> None:
    asks = (ask("new", 4, priority=9), ask("old", 5, running=ENDABLE))
    assert covered(*asks, shares=(Share(tenant="t", guaranteed=8),)) == ("old",)
    assert covered(*asks, shares=(Share(tenant="t", guaranteed=9),)) == ("old", "new")
    # Where its group has shrunk it may not be able to go on, and then needs no cover.
    assert covered(*asks, shares=(Share(tenant="t", guaranteed=8),), without=frozenset({"old"})) == ("new",)


def test_a_lease_that_must_not_be_ended_uses_up_a_guarantee_that_cannot_hold_it() -> None:
    surely = (ask("new", 4), ask("old", 9, running=KEPT))
    assert covered(*surely, shares=(Share(tenant="t", guaranteed=8),)) == ()
    perhaps = (ask("new", 4), ask("old", 9, running=ENDABLE))
    assert covered(*perhaps, shares=(Share(tenant="t", guaranteed=8),)) == ("new",)


@st.composite
def claims(draw: st.DrawFn) -> tuple[Problem, frozenset[str]]:
    """Asks of a few tenants with guarantees, and those that nothing suits."""
    asks = tuple(
        ask(
            f"r{at}",
            draw(st.integers(1, 4)),
            tenant=draw(st.sampled_from("abcd")),
            priority=draw(st.integers(0, 1)),
            created=draw(st.integers(0, 2)),
            running=draw(st.sampled_from([None, None, None, KEPT, ENDABLE])),
        )
        for at in range(draw(st.integers(0, 12)))
    )
    shares = tuple(
        Share(tenant=name, guaranteed=draw(st.integers(0, 12)), weight=draw(st.integers(1, 3))) for name in "abc"
    )
    without = frozenset(each.id for each in asks if draw(st.integers(0, 3)) == 0)
    return Problem(groups=(group("g", 100),), asks=asks, shares=shares), without


def by_loops(problem: Problem, without: frozenset[str]) -> list[str]:
    """Progressive filling as its words say it, with exact fractions."""
    used: Counter[str] = Counter()
    found: list[str] = []
    asks = sorted(problem.asks, key=lambda each: (each.running is None, -each.priority, each.created, each.id))
    shares = {share.tenant: share for share in problem.shares}
    for name in sorted(shares):
        for each in asks:
            if each.tenant == name and each.running is not None and each.running.end_micros is None:
                found += [each.id] if used[name] + each.total <= shares[name].guaranteed else []
                used[name] += each.total
    waiting = [each for each in asks if each.running is None or each.running.end_micros is not None]
    while True:
        open_to: dict[str, Ask] = {}
        for each in waiting:
            fits = each.tenant in shares and used[each.tenant] + each.total <= shares[each.tenant].guaranteed
            if fits and each.id not in without:
                open_to.setdefault(each.tenant, each)
        if not open_to:
            return found
        tenant = min(open_to, key=lambda name: (Fraction(used[name], shares[name].weight), name))
        used[tenant] += open_to[tenant].total
        found.append(open_to[tenant].id)
        waiting.remove(open_to[tenant])


@settings(max_examples=300, deadline=None)
@given(claims(), st.randoms(use_true_random=False))
def test_filling_with_a_heap_is_filling_by_the_book_in_whatever_order_it_is_asked(
    given_claims: tuple[Problem, frozenset[str]], rng: random.Random
) -> None:
    problem, without = given_claims
    order = list(fairness.filling(problem, lambda each: each.id not in without))
    assert sorted(order) == sorted(by_loops(problem, without))
    waiting = {each.id for each in problem.asks if each.running is None or each.running.end_micros is not None}
    assert [name for name in order if name in waiting] == [n for n in by_loops(problem, without) if n in waiting]
    turned = replace(
        problem,
        asks=tuple(rng.sample(problem.asks, len(problem.asks))),
        shares=tuple(rng.sample(problem.shares, len(problem.shares))),
    )
    assert list(fairness.filling(turned, lambda each: each.id not in without)) == order


# History


def test_profit_counts_in_inverse_proportion_to_what_was_had_above_the_fair_share() -> None:
    profit = np.array([10, 7, -10, 10**15, 5], dtype=np.int64)
    past = np.array([2000, 1000, 3000, 1001, 0], dtype=np.int64)
    assert fairness.discounted(profit, past).tolist() == [5, 7, -4, 10**18 // 1001, 5]
    assert fairness.discounted(profit, 4000).tolist() == [2, 1, -3, 10**15 // 4, 1]


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 1_000_000)), min_size=1))
def test_discounts_are_exact_for_any_number_of_64_bits(cases: list[tuple[int, int]]) -> None:
    profit, past = (np.array(column, dtype=np.int64) for column in zip(*cases, strict=True))
    expected = [each * 1000 // max(1000, history) for each, history in cases]
    assert fairness.discounted(profit, past).tolist() == expected


def past(*uses: tuple[str, float, float], weights: dict[str, int] | None = None, **how: float) -> dict[str, int]:
    return fairness.history(uses, weights=weights or {}, **{"now_s": 0, "half_life_s": 3600, **how})


def test_use_counts_half_after_a_half_life() -> None:
    # 8 and 4 of 12; each one's share is 6.
    assert past(("a", 8, 0), ("b", 8, -3600)) == {"a": 1333, "b": 667}
    assert past(("a", 8, -3600), ("b", 8, -7200)) == {"a": 1333, "b": 667}


def test_the_fair_share_goes_by_weight_and_who_used_nothing_had_nothing() -> None:
    assert past(("a", 8, 0), ("b", 4, 0), weights={"a": 2, "b": 1}) == {"a": 1000, "b": 1000}
    assert past(("a", 8, 0), weights={"a": 1, "idle": 3}) == {"a": 4000, "idle": 0}
    assert past(weights={"a": 1, "b": 5}) == {"a": 0, "b": 0}
    assert past() == {}


def test_what_has_not_ended_counts_as_if_it_ended_now() -> None:
    assert past(("a", 8, 99_999), ("b", 8, 0)) == {"a": 1000, "b": 1000}


def test_time_alone_forgives_only_where_there_is_a_grace() -> None:
    uses = (("a", 12.0, 0.0), ("b", 4.0, 0.0))
    assert past(*uses, now_s=0) == past(*uses, now_s=36_000) == {"a": 1500, "b": 500}
    # 16 device-hours of grace: after a half-life 6 of 8 + 16, after two 3 of 4 + 16, at a share of a half.
    assert past(*uses, now_s=3600, grace_hours=16) == {"a": 500, "b": 167}
    assert past(*uses, now_s=7200, grace_hours=16) == {"a": 300, "b": 100}


def test_history_is_capped_and_survives_what_is_too_old_to_tell() -> None:
    assert past(("a", 1, 0), weights={"a": 1, "b": 10**6}) == {"a": 1_000_000, "b": 0}
    assert past(("a", 1, -1e9), ("b", 2, -1e9)) == {"a": 0, "b": 0}


def test_ten_tenths_of_an_hour_are_an_hour() -> None:
    # 501.5 thousandths, on the edge: sums that round on the way fall to the wrong side, in some orders.
    weights = {"a": 1000, "b": 3}
    assert past(*[("a", 0.1, 0)] * 10, ("b", 1, 0), weights=weights)["a"] == 502


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: past(("a", -1, 0)),
        lambda: past(("a", float("nan"), 0)),
        lambda: past(("a", 1, 0), half_life_s=0),
        lambda: past(("a", 1, 0), half_life_s=float("inf")),
        lambda: past(("a", 1, 0), weights={"a": 0}),
        lambda: past(("a", 1, 0), grace_hours=-1),
    ],
)
def test_a_past_that_cannot_be_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(OutOfRange):
        wrong()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e6), st.integers(-100_000, 10)), max_size=20),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
    st.randoms(use_true_random=False),
)
def test_histories_average_to_the_fair_share_in_whatever_order_uses_come(
    uses: list[tuple[str, float, int]], weights: dict[str, int], rng: random.Random
) -> None:
    found = past(*uses, weights=weights)
    assert past(*rng.sample(uses, len(uses)), weights=weights) == found
    if any(found.values()):
        by_weight = sum(weights.get(name, 1) * each for name, each in found.items())
        total = sum(weights.get(name, 1) for name in found)
        assert abs(by_weight / total - 1000) <= 1


# The report


def test_a_dominant_share_is_the_largest_part_of_any_one_kind() -> None:
    problem = Problem(
        groups=(group("g"), group("h"), group("v", 2, unit=8, kind="v5e")),
        asks=(
            ask("a1", 4, tenant="a"),
            ask("a2", 8, tenant="a"),
            ask("b1", 6, tenant="b"),
            ask("c1", 5, tenant="c"),
            ask("d1", 5, tenant="d", not_before_s=60),
        ),
        shares=(Share(tenant="a", guaranteed=9), Share(tenant="b", weight=3), Share(tenant="idle", weight=3)),
    )
    pairs = {(name, at) for name in ("a1", "a2", "b1", "d1") for at in "ghv"}
    found = reported(problem, {"a1": on("g", 4), "a2": on("v", 8), "b1": on("h", 6), "d1": on("h", 5, 60)}, pairs)
    # 4 of 16 and 8 of 16; 6 of 16. Weights 1, 3, 1, 1, 3 have the mean 9/5.
    assert {name: (row.devices, row.dominant) for name, row in found.tenants.items()} == {
        "a": (12, 0.5),
        "b": (6, 0.375),
        "c": (0, 0.0),
        "d": (0, 0.0),
        "idle": (0, 0.0),
    }
    assert found.tenants["a"].weighted == pytest.approx(0.9)
    assert found.tenants["b"].weighted == pytest.approx(0.225)
    # Neither who asks for nothing possible, nor who asks for later, is the worst off.
    assert (found.least, found.most) == (found.tenants["b"].weighted, found.tenants["a"].weighted)
    # Of 9 the guarantee covers the first of turn: 4; 8 more do not fit.
    assert [getattr(found.tenants["a"], name) for name in ("guaranteed", "entitled", "entitled_placed")] == [9, 4, 4]


def test_what_is_covered_and_starts_later_is_kept_though_not_held_yet() -> None:
    problem = Problem(groups=(group("g"),), asks=(ask("r", 4),), shares=(Share(tenant="t", guaranteed=4),))
    assert reported(problem, {}).tenants["t"].entitled_placed == 0
    row = reported(problem, {"r": on("g", 4, 3600)}).tenants["t"]
    assert (row.entitled, row.entitled_placed, row.devices, row.dominant) == (4, 4, 0, 0.0)


def test_leases_that_hold_more_than_is_still_offered_have_no_share_above_one() -> None:
    problem = Problem(groups=(group("g", 2),), asks=(ask("r", 4, running=KEPT),))
    assert reported(problem, {"r": on("g", 4)}).tenants["t"].dominant == 1.0


def test_an_empty_problem_has_a_report() -> None:
    assert reported(Problem(groups=(), asks=()), {}) == Fairness(tenants={}, least=0.0, most=0.0, envy=())


def test_one_of_two_equal_gangs_is_envied_by_the_other() -> None:
    gangs = (ask("a", 8, tenant="a"), ask("b", 8, tenant="b"))
    problem = Problem(groups=(group("g", 8),), asks=gangs)
    assert reported(problem, {"a": on("g", 8)}).envy == (Envy(tenant="b", of="a", devices=8),)


def test_envy_goes_by_weight_by_what_is_useful_and_by_what_is_still_wanted() -> None:
    problem = Problem(
        groups=(group("g", 20), group("h", 20)),
        asks=(
            ask("a1", 2, tenant="a"),
            ask("a2", 30, tenant="a"),
            ask("b1", 7, tenant="b"),
            ask("b2", 9, tenant="b"),
            ask("c1", 3, tenant="c"),
            ask("c2", 50, tenant="c"),
        ),
        shares=(Share(tenant="b", weight=2),),
    )
    everything = {(f"{name}{at}", "g") for name in "abc" for at in "12"} | {("b1", "h"), ("b2", "h")}
    plan = {"a1": on("g", 2), "b1": on("g", 7), "b2": on("h", 9)}
    found = reported(problem, plan, everything - {("c2", "g")})
    # a could use b's 7 on g, as half b's weight ⌊7/2⌋ = 3: one more than its 2. c wants 3 only, since nothing suits c2:
    # of b's half it could use all 3, of a's 2.
    assert [(each.tenant, each.of, each.devices) for each in found.envy] == [
        ("c", "b", 3),
        ("c", "a", 2),
        ("a", "b", 1),
    ]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Problem, dict[str, Placement], set[tuple[str, str]]]:
    """Any plan at all: the report trusts that it was checked."""
    names = [f"g{at}" for at in range(draw(st.integers(1, 4)))]
    asks = tuple(
        ask(
            f"r{at}",
            draw(st.integers(1, 6)),
            tenant=draw(st.sampled_from("abcd")),
            not_before_s=draw(st.sampled_from([0, 0, 0, 60])),
        )
        for at in range(draw(st.integers(0, 10)))
    )
    shares = tuple(Share(tenant=name, weight=draw(st.integers(1, 5))) for name in draw(st.sets(st.sampled_from("abx"))))
    pairs = {(each.id, name) for each in asks for name in names if draw(st.booleans())}
    plan = {
        each.id: on(
            draw(st.sampled_from(names)), each.devices + draw(st.integers(0, 2)), draw(st.sampled_from([0, 60]))
        )
        for each in asks
        if draw(st.booleans())
    }
    groups = tuple(group(name, 60) for name in names)
    return Problem(groups=groups, asks=asks, shares=shares), plan, pairs


def envy_by_loops(
    problem: Problem, plan: dict[str, Placement], pairs: set[tuple[str, str]]
) -> list[tuple[str, str, int]]:
    weight = {share.tenant: share.weight for share in problem.shares}
    now = {name for name, placement in plan.items() if placement.start_s == 0}
    holds: dict[str, Counter[str]] = {each.tenant: Counter() for each in problem.asks}
    for each in problem.asks:
        if each.id in now:
            holds[each.tenant][plan[each.id].group] += plan[each.id].devices
    found = []
    for a in holds:
        mine = [each for each in problem.asks if each.tenant == a and each.not_before_s == 0]
        useful = {name for each in mine for request, name in pairs if request == each.id}
        open_asks = [each for each in mine if each.id not in now and any(each.id == request for request, _ in pairs)]
        demand = holds[a].total() + sum(each.total for each in open_asks)
        for b in holds:
            would = Fraction(sum(holds[b][name] for name in useful) * weight.get(a, 1), weight.get(b, 1))
            more = min(demand, would.__floor__()) - holds[a].total()
            if a != b and more > 0:
                found.append((a, b, more))
    return sorted(found, key=lambda each: (-each[2], *each[:2]))


@settings(max_examples=300, deadline=None)
@given(scenes(), st.integers(1, 12), st.sampled_from([1, 8, 1 << 22]))
def test_envy_over_arrays_is_envy_by_its_words(
    scene: tuple[Problem, dict[str, Placement], set[tuple[str, str]]], most: int, cells: int
) -> None:
    problem, plan, pairs = scene
    expected = envy_by_loops(problem, plan, pairs)
    with patch.object(envy, "CELLS", cells), patch.object(fairness, "MOST_ENVY", most):
        found = reported(problem, plan, pairs).envy
    assert [(each.tenant, each.of, each.devices) for each in found] == expected[:most]


@pytest.mark.parametrize("cells", [1, 1 << 22])
def test_of_equal_envies_the_first_name_is_told_though_another_could_have_been_larger(cells: int) -> None:
    # z wants 9 and finds only 3 that are useful; a wants 3.
    problem = Problem(
        groups=(group("g"), group("h")),
        asks=(ask("r", 9, tenant="z"), ask("s", 3, tenant="a"), ask("t", 3, tenant="m"), ask("u", 5, tenant="m")),
    )
    pairs = {("r", "g"), ("s", "g"), ("t", "g"), ("u", "h")}
    with patch.object(envy, "CELLS", cells), patch.object(fairness, "MOST_ENVY", 1):
        assert reported(problem, {"t": on("g", 3), "u": on("h", 5)}, pairs).envy == (
            Envy(tenant="a", of="m", devices=3),
        )


@given(scenes())
def test_who_got_all_it_asked_for_envies_nobody(
    scene: tuple[Problem, dict[str, Placement], set[tuple[str, str]]],
) -> None:
    problem, plan, pairs = scene
    now = {name for name, placement in plan.items() if placement.start_s == 0}
    content = {each.tenant for each in problem.asks} - {each.tenant for each in problem.asks if each.id not in now}
    assert not content & {each.tenant for each in reported(problem, plan, pairs).envy}


@given(scenes(), st.randoms(use_true_random=False))
def test_a_report_does_not_depend_on_the_order_in_which_a_problem_is_written(
    scene: tuple[Problem, dict[str, Placement], set[tuple[str, str]]], rng: random.Random
) -> None:
    problem, plan, pairs = scene
    turned = replace(
        problem,
        groups=tuple(rng.sample(problem.groups, len(problem.groups))),
        asks=tuple(rng.sample(problem.asks, len(problem.asks))),
        shares=tuple(rng.sample(problem.shares, len(problem.shares))),
    )
    assert reported(turned, plan, pairs) == reported(problem, plan, pairs)
