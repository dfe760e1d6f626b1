"""Node packing: each published policy does by hand what it is known for, and the rolling replay keeps its books."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.check import violations
from optimizer.problem import Aim, Budget, Problem
from optimizer.solve import solve
from tests.bench import openb
from tests.bench.board import board, placements
from tests.bench.federation import missing
from tests.bench.openb import (
    Cluster,
    Fragmentation,
    Pod,
    Policy,
    best_fit,
    dot_product,
    gpu_packing,
    points,
    random_fit,
    replay,
    stream,
)
from tests.bench.peers import cheapest
from tests.bench.versus_openb import as_problem, costs, place
from tests.bench.versus_rolling import Kept, Record, Replay, clairvoyant, follow, planners, replayed
from tests.optimizing import DOLLAR, ask, group

ANY: frozenset[str] = frozenset()
ONE = Pod(cpu=1_000, milli=1_000, gpus=1, models=ANY)
HALF = Pod(cpu=1_000, milli=500, gpus=1, models=ANY)


def nodes(*gpus: int, cpu: int = 64_000) -> Cluster:
    """Empty nodes of one model with so many GPUs."""
    return Cluster([(cpu, each, "T4") for each in gpus])


def chosen(policy: Policy, on: Cluster, pod: Pod) -> tuple[int, int | None]:
    return policy(on, pod, np.flatnonzero(on.holding(pod)), np.random.default_rng(1))


def test_a_share_needs_one_gpu_that_holds_it_and_whole_gpus_need_free_ones() -> None:
    on = nodes(2)
    on.take(0, replace(HALF, milli=600), 0)
    on.take(0, replace(HALF, milli=600), 1)
    assert not on.holding(HALF)[0]
    assert on.holding(replace(HALF, milli=400))[0]
    assert not on.holding(ONE)[0]
    assert on.allocated == 0.6


def test_cpu_and_models_are_looked_at() -> None:
    on = Cluster([(500, 1, "T4"), (64_000, 1, "T4"), (64_000, 1, "A10")])
    assert on.holding(ONE).tolist() == [False, True, True]
    assert on.holding(replace(ONE, models=frozenset({"A10", "G2"}))).tolist() == [False, False, True]


def test_best_fit_takes_the_node_with_least_left_and_dot_product_the_one_with_the_smallest_product() -> None:
    on = nodes(8, 2)
    assert chosen(best_fit, on, ONE) == (1, None)
    # 1 · 2 of (8 GPUs)² is less than 1 · 8: the fewer are left, the smaller the product.
    assert chosen(dot_product, on, ONE) == (1, None)
    assert chosen(random_fit, nodes(0, 4), ONE)[0] == 1


def test_packing_prefers_a_gpu_in_use_then_a_used_node_then_a_free_one() -> None:
    on = nodes(4, 4, 2)
    assert chosen(gpu_packing, on, HALF)[0] == 2, "of free nodes the smallest"
    on.take(1, ONE)
    assert chosen(gpu_packing, on, HALF) == (1, 1), "a used node before a free one"
    on.take(0, HALF, 3)
    assert chosen(gpu_packing, on, HALF) == (0, 3), "a GPU in use before a free one"


def test_a_share_goes_to_the_tightest_gpu_of_the_node() -> None:
    on = nodes(3)
    on.take(0, replace(HALF, milli=200), 0)
    on.take(0, replace(HALF, milli=400), 2)
    assert chosen(best_fit, on, HALF) == (0, 2)


def test_fragmentation_is_what_the_typical_pod_cannot_use() -> None:
    """Half the pods want a whole GPU, half a share of 500; a node has 300 on one GPU and 1,000 on the other."""
    on = nodes(2)
    on.take(0, replace(HALF, milli=700), 0)
    amount = Fragmentation([ONE, HALF]).amount(on, np.array([0]), on.cpu, on.free)
    # Either kind runs there, on the free GPU; the 300 are of no use to either.
    assert amount.tolist() == [300.0]
    on.take(0, HALF, 1)
    # Now 300 and 500 are left: the whole one finds nothing (800), the share can't use 300.
    amount = Fragmentation([ONE, HALF]).amount(on, np.array([0]), on.cpu, on.free)
    assert amount.tolist() == [0.5 * 800 + 0.5 * 300]


def test_a_node_without_cpu_is_fragmented_whole() -> None:
    on = nodes(2, cpu=1_500)
    on.take(0, ONE)
    assert Fragmentation([ONE]).amount(on, np.array([0]), on.cpu, on.free).tolist() == [1_000.0]


def test_fgd_goes_where_fragmentation_grows_least() -> None:
    """A share on a GPU that has room costs nothing; on a fresh one it takes a whole one from the whole-GPU pods."""
    on = nodes(2, 2)
    on.take(1, HALF, 1)
    fgd = Fragmentation([ONE, HALF])
    assert chosen(fgd, on, HALF) == (1, 1)
    grown, _ = fgd.growth(on, HALF, np.array([0, 1]))
    # Node 0: 500 no longer of use to ONE, half the pods: +250. Node 1: the 500 that were of no use to ONE are gone.
    assert grown.tolist() == [250.0, -250.0]
    assert points(grown).tolist() == [43, 56]


def test_what_fgd_remembers_of_a_node_ends_when_the_node_changes() -> None:
    on = nodes(2, 2)
    fgd = Fragmentation([ONE, HALF])
    before, _ = fgd.growth(on, HALF, np.array([0, 1]))
    on.take(0, HALF, 0)
    after, _ = fgd.growth(on, HALF, np.array([0, 1]))
    fresh, _ = Fragmentation([ONE, HALF]).growth(on, HALF, np.array([0, 1]))
    assert before.tolist() == [250.0, 250.0]
    assert after.tolist() == fresh.tolist() == [-250.0, 250.0]


def test_a_stream_asks_for_what_it_should_and_the_replay_loses_what_does_not_fit() -> None:
    on = nodes(8, 8)
    rng = np.random.default_rng(3)
    arrivals = stream([ONE] * 5 + [HALF] * 4, on.total, rng)
    assert 1.3 * on.total - 1_000 < sum(pod.total for pod in arrivals) <= 1.3 * on.total
    reached = replay(best_fit, arrivals, on, rng)
    assert reached[130] == pytest.approx(100 * on.allocated)
    assert reached[100] <= reached[130] <= 100


@pytest.mark.skipif(openb.missing() is not None, reason=openb.missing() or "")
@pytest.mark.parametrize(
    ("workload", "policy"), [("default", "02-DotProd"), ("default", "05-BestFit"), ("multigpu50", "06-FGD")]
)
def test_what_is_re_implemented_is_within_half_a_point_of_what_was_published(workload: str, policy: str) -> None:
    given, on, rng = openb.pods(workload), openb.cluster(), np.random.default_rng(0)
    reached = replay(openb.POLICIES[policy](given), stream(given, on.total, rng), on, rng)
    for at, value in reached.items():
        assert value == pytest.approx(openb.published()[workload, policy, at], abs=0.5)


def test_ours_places_a_batch_without_breaking_a_gpu_or_a_node() -> None:
    on = nodes(2, 1)
    batch = [HALF, replace(ONE, gpus=2), HALF, replace(HALF, milli=600), Pod(cpu=100, milli=0, gpus=0, models=ANY)]
    used = place(batch, on, Fragmentation(batch))
    # Two whole ones on node 0 and the halves on node 1; the 600 find no place.
    assert used == 3_000
    assert on.free.sum() == 0
    assert (64_000 - on.cpu).sum() == 3 * 1_000 + 100


def test_a_share_is_asked_for_on_one_gpu_and_only_where_the_pod_fits() -> None:
    on = Cluster([(64_000, 2, "T4"), (64_000, 2, "A10"), (500, 8, "T4")])
    problem = as_problem([replace(HALF, models=frozenset({"T4"})), ONE], on, Fragmentation([ONE, HALF]))
    share, whole = problem.asks
    assert (share.same_node, share.matched) == (True, {"0"})
    assert (whole.same_node, whole.devices, whole.matched) == (False, 1_000, {"0", "1"})


def test_who_names_no_model_leaves_alone_the_one_that_others_name() -> None:
    on = Cluster([(64_000, 2, "T4"), (64_000, 8, "A10")])
    fragmentation = Fragmentation([ONE] * 29 + [replace(ONE, models=frozenset({"T4"}))])
    # One in thirty can use a fifth of the GPUs only: too few for FGD to tell the nodes apart, and the T4 is tighter.
    assert fragmentation.crowding(on).tolist() == pytest.approx([1 / 6, 0.0])
    assert fragmentation(on, ONE, np.array([0, 1]), np.random.default_rng(0))[0] == 0
    assert place([ONE, ONE], on, fragmentation) == 2_000
    assert on.free.sum(axis=1).tolist() == [2_000, 6_000]


def test_among_equal_steps_whole_gpus_go_where_gpus_and_cpu_are_scarcest_and_shares_where_gpus_are() -> None:
    on = Cluster([(64_000, 2, "T4"), (8_000, 3, "T4")])
    even = Fragmentation([ONE])
    both = np.array([0, 1])
    assert costs(on, ONE, both, even).argmin() == 1
    assert costs(on, HALF, both, even).argmin() == 0


def standing(*ticks: int, count: int = 4, **terms: object) -> Replay:
    """`ticks` requests for two devices at each tick, each for two ticks, worth ten dollars and costing two."""
    made = tuple(
        tuple(
            ask(f"{tick}-{at}", 2, value_micros=10 * DOLLAR, created=10 * tick + at, **terms) for at in range(how_many)
        )
        for tick, how_many in enumerate(ticks)
    )
    asks = tuple(each for arrivals in made for each in arrivals)
    whole = Problem(
        groups=(group("g", count),),
        asks=asks,
        aim=Aim.WELFARE,
        budgets=(Budget(id="b", remaining_micros=4 * DOLLAR),),
    )
    return Replay(whole=whole, arrivals=made, lasts={each.id: 2 for each in asks})


def by_price(problem: Problem) -> object:
    seen = board(problem)
    return placements(seen, cheapest(seen))


def test_leases_end_when_they_should_and_who_waits_too_long_goes() -> None:
    # Four devices: two run in ticks 0 and 1, two in 2 and 3, two in 4 and 5; the waiting ones of tick 0 leave after 5.
    record = follow(standing(8, 0, 0, 0, 0, 0, 0, 0), Record(who="x"), by_price)  # type: ignore[arg-type]  # a plan
    assert record.placed == 6
    assert record.welfare == 6 * 8 * DOLLAR
    assert (record.moved, record.cut) == (0, 0)
    assert len(record.took) == 8


def test_a_running_lease_keeps_its_money_until_it_ends() -> None:
    """Four dollars hold two leases of two dollars, however many devices are free."""
    record = follow(standing(3, 0, 0, count=99, budgets=("b",)), Record(who="x"), by_price)  # type: ignore[arg-type]
    assert record.placed == 3
    assert follow(standing(3, 0, count=99, budgets=("b",)), Record(who="x"), by_price).placed == 2  # type: ignore[arg-type]


def test_who_plans_anew_cuts_leases_short_and_has_paid_for_them_in_vain() -> None:
    def latest(problem: Problem) -> object:
        return by_price(replace(problem, asks=tuple(sorted(problem.asks, key=lambda ask: -ask.created))[:2]))

    record = follow(standing(2, 2), Record(who="x"), latest, kept=Kept.ANEW)  # type: ignore[arg-type]  # a plan
    assert (record.placed, record.cut) == (4, 2)
    # Two leases earn eight dollars each; two others ran for one tick of their two, at a dollar a tick.
    assert record.welfare == (2 * 8 - 2 * 1) * DOLLAR


def test_a_lease_that_moves_pays_for_its_data_and_for_half_an_hour_twice() -> None:
    """One request for two hours in two ticks; two dollars an hour at first, then a group at half of that."""
    wish = ask("a", 2, duration_s=7200, value_micros=100 * DOLLAR, transfer_micros={"us": 3 * DOLLAR})
    dear, cheap = group("dear", 2), group("cheap", 2, price_micros=DOLLAR // 2, region="us")
    whole = Problem(groups=(dear, cheap), asks=(wish,), aim=Aim.WELFARE)
    replay = Replay(whole=whole, arrivals=((wish,), ()), lasts={"a": 2})

    def by_turns(problem: Problem) -> object:
        wanted = "dear" if problem.asks[0].duration_s == 7200 else "cheap"
        return by_price(replace(problem, groups=tuple(each for each in problem.groups if each.id == wanted)))

    record = follow(replay, Record(who="x"), by_turns, kept=Kept.ANEW)  # type: ignore[arg-type]  # a plan
    assert (record.moved, record.cut) == (1, 0)
    # An hour at two dollars; the data for three; an hour at one dollar, and half an hour of it once more.
    assert record.welfare == 100 * DOLLAR - 2 * DOLLAR - 3 * DOLLAR - DOLLAR - DOLLAR // 2


def test_a_lease_that_stays_pays_what_it_would_have_paid_undisturbed() -> None:
    made = standing(2, 0, 0)
    fixed = follow(made, Record(who="x"), by_price)  # type: ignore[arg-type]  # a plan
    anew = follow(made, Record(who="x"), by_price, kept=Kept.ANEW)  # type: ignore[arg-type]  # a plan
    assert anew.moved == 0
    assert anew.welfare == fixed.welfare


def told(problem: Problem) -> object:
    return solve(problem, time_limit_s=2.0).placements


def test_who_is_told_what_runs_moves_a_lease_only_where_that_saves_more_than_it_costs() -> None:
    """As above, but the cheap group comes free in the second tick: its guest's lease is over."""
    dear, cheap = group("dear", 2), group("cheap", 2, price_micros=DOLLAR // 2)
    guest = ask("guest", 2, duration_s=3600, value_micros=100 * DOLLAR, matched=frozenset({"cheap"}))

    def moves(duration_s: int) -> Record:
        wish = ask("a", 2, duration_s=duration_s, value_micros=100 * DOLLAR)
        whole = Problem(groups=(dear, cheap), asks=(guest, wish), aim=Aim.WELFARE)
        replay = Replay(whole=whole, arrivals=((guest, wish), ()), lasts={"guest": 1, "a": 2})
        return follow(replay, Record(who="x"), told, kept=Kept.TOLD)  # type: ignore[arg-type]  # a plan

    # Four hours: two are left, and save two dollars; half an hour twice is told as one dollar, and costs half of it.
    long = moves(4 * 3600)
    assert (long.moved, long.cut) == (1, 0)
    assert long.welfare == 200 * DOLLAR - DOLLAR - 4 * DOLLAR - 2 * DOLLAR - DOLLAR // 2
    # One hour: half an hour is left, and saves half a dollar.
    short = moves(3600)
    assert (short.moved, short.cut) == (0, 0)
    assert short.welfare == 200 * DOLLAR - DOLLAR - 2 * DOLLAR


def test_who_is_told_what_runs_cuts_a_lease_short_only_for_more_than_all_it_would_have_earned() -> None:
    only = group("g", 2)

    def cut(worth: int) -> Record:
        first = ask("first", 2, duration_s=7200, value_micros=50 * DOLLAR)
        second = ask("second", 2, duration_s=7200, value_micros=worth * DOLLAR)
        whole = Problem(groups=(only,), asks=(first, second), aim=Aim.WELFARE)
        replay = Replay(whole=whole, arrivals=((first,), (second,)), lasts={"first": 2, "second": 2})
        return follow(replay, Record(who="x"), told, kept=Kept.TOLD)  # type: ignore[arg-type]  # a plan

    # What runs has cost two dollars in vain, where the new one earns its value less four.
    assert (cut(53).cut, cut(53).welfare) == (1, (53 - 4 - 2) * DOLLAR)
    assert (cut(51).cut, cut(51).welfare) == (0, (50 - 4) * DOLLAR)


def test_a_plan_that_breaks_a_promise_ends_the_replay() -> None:
    def twice(problem: Problem) -> object:
        return by_price(replace(problem, groups=(replace(problem.groups[0], count=99),)))

    with pytest.raises(AssertionError, match="Group 'g' has 4 units; the plan takes 6"):
        follow(standing(3), Record(who="x"), twice)  # type: ignore[arg-type]  # a plan


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
@pytest.mark.parametrize("budgets", [False, True])
def test_nobody_passes_the_clairvoyant_bound_and_every_plan_of_the_replay_is_valid(budgets: bool) -> None:
    made = replayed(1.25, budgets=budgets, population=100, groups=50, ticks=4)
    assert [len(arrivals) for arrivals in made.arrivals] == [100, 5, 5, 5]
    bound = clairvoyant(made)
    assert violations(made.whole, {}) == ()
    for who, (plan, kept) in planners().items():
        assert 0 < follow(made, Record(who=who), plan, kept=kept).welfare <= bound, who
