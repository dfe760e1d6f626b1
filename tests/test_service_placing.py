"""Requests find their place or the reasons why not: caps, terms, selectors, nodes, tiers, budgets, quotes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from broker.domain.errors import BadSelector, BadTerms, BudgetExhausted, NotFound, Overloaded, OwnedByObject
from broker.domain.lease import Lease
from broker.domain.placing import Plan
from broker.domain.request import Request
from broker.domain.shelf import Lot, Shelf
from broker.service import thinking
from broker.service.market import Snapshot
from broker.service.placing import Grant, Round
from broker.service.thinking import Lane
from broker.store.unit import Unit
from broker.wire.agents import BurstPolicyReport
from broker.wire.burst import BurstPolicySpec
from broker.wire.devices import Confidential, Kind
from broker.wire.leases import LeaseView, Renewal
from broker.wire.requests import RequestState, RequestView, Step
from optimizer.problem import Problem
from optimizer.solution import Solution
from tests.world import ADMIN, H100, World, device, devices, offer, pair, wish

A100 = Kind(driver="gpu.nvidia.com", model="NVIDIA A100", attributes={"architecture": {"string": "Ampere"}})


async def answer(here: World, **fields: Any) -> RequestView:
    """Asked with no patience: placed, or refused with reasons."""
    return await here.submitted(await here.user("team-a"), wish(wait=None, **fields))


def why(view: RequestView) -> set[str]:
    return {reason.reason for reason in view.reasons}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"price_cap": {"amount": "1.99"}}, "price-cap"),
        ({"total_cap": {"amount": "15.99"}}, "total-cap"),
        ({"count": 17}, "count"),
        ({"duration": "25h"}, "too-long"),
        ({"duration": "59s"}, "too-short"),
        ({"where": {"regions": ["us-east"]}}, "region"),
        ({"where": {"jurisdictions": ["EU"]}}, "jurisdiction"),
        ({"where": {"clusters": ["c"]}}, "cluster"),
        ({"where": {"providers": ["someone"]}}, "provider"),
        ({"confidential": "require"}, "confidential"),
        ({"count": 9, "devices": {"same_node": True}}, "node"),
        ({"devices": {"driver": "gpu.amd.com"}}, "selector"),
        ({"devices": {"selector": 'device.attributes["gpu.nvidia.com"].architecture == "Ampere"'}}, "selector"),
    ],
)
async def test_what_cannot_be_placed_is_refused_at_once_with_the_reason(
    here: World, fields: dict[str, Any], reason: str
) -> None:
    await pair(here)
    view = await answer(here, **fields)
    assert (view.state, view.step) == (RequestState.REFUSED, Step.ENDED)
    assert reason in why(view)
    assert view.message
    assert all(each.detail.endswith(".") for each in view.reasons)


async def test_a_refusal_says_what_would_have_to_change(here: World) -> None:
    await pair(here)
    view = await answer(here, price_cap={"amount": "1.00"})
    changes = [reason.change for reason in view.reasons if reason.reason == "would-fit" and reason.change]
    assert {"2.00"} == {change["price_cap"] for change in changes if "price_cap" in change}
    raised = await answer(here, price_cap={"amount": "2.00"})
    assert raised.state is RequestState.PLACED


async def test_with_nobody_lending_it_says_so(here: World) -> None:
    await here.agent("a")
    view = await answer(here)
    assert view.state is RequestState.REFUSED
    assert view.reasons


async def test_a_cluster_never_borrows_from_itself(here: World) -> None:
    _, borrower = await pair(here, offer([]))
    await borrower.advertise(offer(devices("n1")))
    assert why(await answer(here)) >= {"own-cluster"}


async def test_a_tenant_that_a_lender_does_not_admit_gets_nothing_of_it(here: World) -> None:
    await pair(here, offer(devices("n1"), allowed_borrowers=["team-z"]))
    assert "tenant" in why(await answer(here))


async def test_the_reasons_for_a_placement_name_no_offer_that_is_not_there_for_the_tenant(here: World) -> None:
    await pair(here)
    other = await here.agent("c")
    await other.advertise(offer(devices("m1"), name="secret", price="2.50", allowed_borrowers=["team-z"]))
    placed = (await answer(here)).placement
    assert placed is not None
    assert [each.cluster for each in placed.alternatives] == []


async def test_the_cheaper_offer_wins_and_the_other_says_why_it_lost(here: World) -> None:
    await pair(here, offer(devices("n1"), price="2.50"), offer(devices("n2"), name="cheap", price="2.10"))
    view = await answer(here)
    assert view.placement is not None
    assert str(view.placement.price.amount) == "2100000"
    (lost,) = view.placement.alternatives
    assert (lost.reason, lost.price.amount) == ("costlier", 2_500_000)
    assert view.placement.solver["gap"] == 0.0
    lease = (await here.broker.leases(ADMIN)).items[0]
    assert lease.price.amount == 2_100_000


async def test_what_costs_millions_can_be_asked_for_and_read(here: World) -> None:
    """1,024 devices for a month at an ordinary price: nearly two million dollars."""
    lender, borrower = await pair(here, offer(devices(*(f"n{at}" for at in range(128))), max_duration="40d"))
    dear = await here.agent("c")
    await dear.advertise(offer(devices("n1"), unit=8, price="10000.00"))
    month = wish(count=1_024, duration="30d", total_cap={"amount": "2000000.00"})
    placed = await here.submitted(borrower.principal, month)
    assert placed.placement is not None
    assert placed.placement.cost.amount == 1_024 * 720 * 2_000_000
    await lender.say("held")
    assert placed.lease is not None
    told = (await here.broker.lease(ADMIN, placed.lease)).model_dump_json()
    assert LeaseView.model_validate_json(told).cost == placed.placement.cost


def test_a_price_that_can_only_be_a_mistake_is_refused() -> None:
    assert offer(devices("n1"), price="10000.00").price.micros == 10_000_000_000
    with pytest.raises(ValidationError, match="is the unit right"):
        offer(devices("n1"), price="10000.01")


async def test_a_selector_means_what_it_means_to_kubernetes(here: World) -> None:
    await pair(here, offer(devices("n1"), kind=A100, name="a100"), offer(devices("n2"), name="h100"))
    view = await answer(
        here,
        devices={
            "selector": 'device.driver == "gpu.nvidia.com" '
            '&& device.capacity["gpu.nvidia.com"].memory.compareTo(quantity("40Gi")) > 0'
        },
    )
    assert view.placement is not None
    assert view.placement.kind == H100


@pytest.mark.parametrize(
    "text", ["device.", "1 + 1", "device.attributes[", 'foo.bar == "x"', "true && ", "[1,2].all(x, x > 0) ? 1 : 2"]
)
async def test_a_selector_that_does_not_compile_is_refused_with_the_compilers_words(here: World, text: str) -> None:
    await pair(here)
    user = await here.user("team-a")
    for call in (here.broker.submit, here.broker.quote):
        with pytest.raises(BadSelector, match="doesn't compile") as caught:
            await call(user, wish(devices={"selector": text}))
        assert caught.value.errors[0]["pointer"] == "/devices/selector"
    assert (await here.broker.requests(user)).items == []


async def test_all_devices_of_one_node_when_asked_and_the_tightest_node_anyway(here: World) -> None:
    lender, _ = await pair(here, offer([*devices("big"), *devices("small", each=3), *devices("middle", each=5)]))
    for count, nodes in ((3, {"small"}), (5, {"middle"}), (8, {"big"})):
        await answer(here, count=count, devices={"same_node": True})
        newest = max(await lender.desired(), key=lambda each: each.id)
        assert {each.node for each in newest.lease.devices} == nodes


async def test_devices_that_only_go_together_go_together(here: World) -> None:
    lender, _ = await pair(here, offer(devices("t1", "t2", each=4), unit=4))
    view = await answer(here, count=4)
    assert view.state is RequestState.PLACED
    (wanted,) = await lender.desired()
    assert len({each.node for each in wanted.lease.devices}) == 1
    view = await answer(here, count=3)
    assert view.placement is not None
    assert view.placement.devices == 4, "a unit is lent, and paid, whole"


async def test_confidential_is_respected_and_the_lease_says_declared(here: World) -> None:
    declared = Confidential(tee="sev-snp", gpu="on")
    await pair(here, offer(devices("n1")), offer(devices("n2"), name="cc", price="2.90", confidential=declared))
    view = await answer(here, confidential="prefer")
    lease = (await here.broker.leases(ADMIN)).items[0]
    assert view.placement is not None
    assert lease.confidential == declared
    assert lease.confidential.basis == "declared"
    plain = await answer(here)
    assert plain.placement is not None
    other = await here.broker.lease(ADMIN, plain.lease or "")
    assert other.confidential is None


async def test_tiers_are_tried_in_order_each_under_its_own_cap(here: World) -> None:
    await pair(
        here,
        offer(devices("n1"), price="4.00", region="near"),
        offer(devices("n2"), name="far", price="1.00", region="far"),
    )
    tiers = [
        {"name": "near", "price_cap": {"amount": "5.00"}, "where": {"regions": ["near"]}},
        {"name": "far", "price_cap": {"amount": "1.00"}},
    ]
    first = await answer(here, price_cap=None, tiers=tiers)
    second = await answer(here, price_cap=None, tiers=tiers)
    assert [view.placement.tier for view in (first, second) if view.placement] == ["near", "far"]


async def test_data_that_must_stay_under_one_law_goes_nowhere_else(here: World) -> None:
    cheap = offer(devices("n1"), name="cheap", price="1.00", region="us-east", jurisdiction="US")
    lawful = offer(devices("n2"), name="lawful", price="2.00", region="eu-west", jurisdiction="EU")
    await pair(here, cheap, offer(devices("n3"), name="silent", price="1.50"), lawful)
    names = {view.id: view.name for view in (await here.broker.offers(ADMIN)).items}
    placed = await answer(here, where={"jurisdictions": ["EU", "CH"]})
    assert placed.placement is not None
    assert names[placed.placement.offer] == "lawful"
    refused = await answer(here, where={"jurisdictions": ["CH"]})
    assert refused.state is RequestState.REFUSED
    assert "US" in [reason.change.get("jurisdiction") for reason in refused.reasons if reason.change]


async def test_a_tier_and_a_policy_hold_to_the_law_they_name(here: World) -> None:
    cheap = offer(devices("n1"), name="cheap", price="1.00", jurisdiction="US")
    await pair(here, cheap, offer(devices("n2"), name="lawful", price="2.00", jurisdiction="EU"))
    tiers = [
        {"name": "home", "price_cap": {"amount": "5.00"}, "where": {"jurisdictions": ["EU"]}},
        {"name": "away", "price_cap": {"amount": "5.00"}},
    ]
    first, second = [await answer(here, price_cap=None, tiers=tiers) for _ in range(2)]
    assert [view.placement.tier for view in (first, second) if view.placement] == ["home", "away"]
    await here.broker.put_burst_policy(
        await here.user("team-a"), "a", "nights", policy(where={"jurisdictions": ["CH"]})
    )
    assert "jurisdiction" in why(await answer(here, policy="nights", where={"jurisdictions": ["EU", "US"]}))


async def test_higher_priority_goes_first_whatever_came_first(here: World) -> None:
    await pair(here, offer(devices("n1")))
    user = await here.user("team-a")
    low = await here.broker.submit(user, wish(priority=0))
    high = await here.broker.submit(user, wish(priority=10))
    await here.broker.place()
    assert (await here.broker.request(user, low.id)).state is RequestState.OPEN
    assert (await here.broker.request(user, high.id)).state is RequestState.PLACED


async def test_who_waits_is_placed_when_there_is_room_and_refused_when_time_is_up(here: World) -> None:
    lender, _ = await pair(here, offer(devices("n1", each=4)))
    user = await here.user("team-a")
    lucky = await here.submitted(user, wish(wait="5m"))
    assert (lucky.state, why(lucky) >= {"count"}) == (RequestState.OPEN, True)
    revision = await here.store.read(lambda unit: unit.revision)
    await here.broker.place()
    assert await here.store.read(lambda unit: unit.revision) == revision, "the same reasons are not told twice"

    await lender.advertise(offer(devices("n1")))
    await here.broker.place()
    assert (await here.broker.request(user, lucky.id)).state is RequestState.PLACED
    late = await here.submitted(user, wish(wait="30s"))
    here.clock.advance(seconds=30)
    await here.broker.place()
    assert (await here.broker.request(user, late.id)).state is RequestState.REFUSED


async def test_other_reasons_are_news_for_who_waits_and_no_reason_to_look_again(here: World) -> None:
    lender, borrower = await pair(here, offer(devices("n1", each=4)))
    seen = here.broker.feed.last
    asked = await here.submitted(borrower.principal, wish())
    await lender.advertise(offer(devices("n1", each=5)))
    for _ in range(3):
        await here.broker.place()
    entries = await here.store.read(lambda unit: unit.log.after(seen, most=100))
    mine = [entry.type for entry in entries if entry.request == asked.id]
    assert mine[:2] == ["request.open", "request.waiting"]
    assert set(mine[1:]) == {"request.waiting"}
    assert len(mine) <= 3, "the same reasons are said once"


async def test_a_stale_offer_gets_no_requests(here: World) -> None:
    await pair(here)
    here.clock.advance(seconds=61)
    view = await answer(here)
    assert view.state is RequestState.REFUSED


async def test_a_lease_is_never_granted_twice_for_one_request(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    await here.broker.submit(user, wish(count=1))
    opened, snapshot, policies, spent = await here.store.read(here.broker.look)
    plan = here.broker.plan(opened, snapshot, policies, spent)
    grants, others = here.broker.sort_out(opened, plan, snapshot)
    first = await here.store.write(lambda unit: here.broker.commit(unit, grants, others, snapshot))
    second = await here.store.write(lambda unit: here.broker.commit(unit, grants, others, snapshot))
    assert (len(first.placed), second.placed, len(second.lost)) == (1, [], 1)
    assert len((await here.broker.leases(user)).items) == 1


async def test_a_solver_that_promises_what_is_not_there_oversells_nothing(here: World) -> None:
    """Whatever the plan says, the picking and the constraint have the last word."""
    lender, _ = await pair(here, offer(devices("n1")))
    user = await here.user("team-a")
    for _ in range(6):
        await here.broker.submit(user, wish(count=3))
    honest = here.broker.solve

    def liar(problem: Problem, **how: Any) -> Solution:
        alone = honest(replace(problem, asks=problem.asks[:1]), **how)
        placement = next(iter(alone.placements.values()))
        return replace(alone, placements={ask.id: placement for ask in problem.asks}, unplaced={})

    here.broker.solve = liar
    done = await here.broker.place()
    assert (len(done.placed), len(done.lost)) == (2, 4)
    held = [each.ref("b") for want in await lender.desired() for each in want.lease.devices]
    assert len(held) == len(set(held)) == 6


async def test_a_request_that_breaks_the_solver_stops_no_other(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    made = [await here.broker.submit(user, wish(count=1, priority=7 if n == 2 else 0)) for n in range(5)]
    honest = here.broker.solve

    def fragile(problem: Problem, **how: Any) -> Solution:
        if any(ask.priority == 7 for ask in problem.asks):
            raise AssertionError("on purpose")
        return honest(problem, **how)

    here.broker.solve = fragile
    with capture_logs() as said:
        assert sorted((await here.broker.place()).placed) == [each.id for n, each in enumerate(made) if n != 2]
    assert {line["event"] for line in said} >= {"solve failed"}
    here.broker.solve = honest
    assert (await here.broker.place()).placed == [made[2].id]


async def test_a_request_on_which_the_solver_always_fails_is_refused_and_told_so(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    poor = await here.broker.submit(user, wish(priority=7))
    honest = here.broker.solve

    def fragile(problem: Problem, **how: Any) -> Solution:
        if any(ask.priority == 7 for ask in problem.asks):
            raise AssertionError("on purpose")
        return honest(problem, **how)

    here.broker.solve = fragile
    with capture_logs():
        rounds = [await here.broker.place() for _ in range(3)]
        quoted = await here.broker.quote(user, wish(priority=7))
    assert [(round_.failed, round_.refused) for round_ in rounds] == [([poor.id], []), ([poor.id], []), ([], [poor.id])]
    assert [round_.again for round_ in rounds] == [True, True, False], "a failure is tried again soon"
    for view in (await here.broker.request(user, poor.id), quoted):
        assert (view.state, why(view)) == (RequestState.REFUSED, {"solver"})
        assert "failed" in view.message


async def test_a_solve_that_never_ends_is_given_up_and_the_others_have_their_answer(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(here)
    user = await here.user("team-a")
    made = [await here.broker.submit(user, wish(count=1, priority=7 if n == 0 else 0)) for n in range(2)]
    monkeypatch.setattr(thinking, "OVERDUE_S", 0.2)
    honest, over = here.broker.solve, threading.Event()

    def stuck(problem: Problem, **how: Any) -> Solution:
        if any(ask.priority == 7 for ask in problem.asks):
            over.wait()
        return honest(problem, **how)

    here.broker.solve = stuck
    try:
        with capture_logs():
            done = await here.broker.place()
        assert (done.failed, done.placed) == ([made[0].id], [made[1].id])
    finally:
        over.set()


async def test_many_quotes_at_once_wait_for_each_other_and_are_all_answered(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    answers = await asyncio.gather(*(here.broker.quote(user, wish()) for _ in range(50)))
    assert {answer.state for answer in answers} == {RequestState.PLACED}


async def test_who_waited_for_their_turn_has_the_whole_time_that_others_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinking, "OVERDUE_S", 1.0)
    lane = Lane("test")
    over, began = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

    def work(at: int) -> int:
        began[at].set()
        assert over[at].wait(10)
        return at

    async with asyncio.TaskGroup() as tasks:
        first, second = (tasks.create_task(lane.run(partial(work, at))) for at in (0, 1))
        for end in over:
            await asyncio.sleep(0.6)
            end.set()
    assert (first.result(), second.result()) == (0, 1)
    lane.close()


async def test_who_goes_away_before_their_turn_is_not_thought_about() -> None:
    lane, over, thought = Lane("test"), threading.Event(), list[int]()
    first = asyncio.create_task(lane.run(lambda: over.wait(10)))
    gone = asyncio.create_task(lane.run(lambda: thought.append(1)))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    over.set()
    assert await first
    await lane.run(lambda: thought.append(2))
    assert thought == [2]
    lane.close()


async def test_refusals_are_saved_though_one_was_cancelled_meanwhile(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    made = [await here.broker.submit(user, wish(wait=None, count=600)) for _ in range(3)]
    sort_out = here.broker.sort_out

    def late(opened: Iterable[Request], plan: Plan | None, snapshot: Snapshot) -> Any:
        asyncio.run_coroutine_threadsafe(here.broker.cancel(user, made[1].id), loop).result(10)
        return sort_out(opened, plan, snapshot)

    loop = asyncio.get_running_loop()
    here.broker.sort_out = late  # type: ignore[method-assign]  # between the plan and its commit
    done = await here.broker.place()
    assert done.refused == [made[0].id, made[2].id]
    states = [(await here.broker.request(user, each.id)).state for each in made]
    assert states == [RequestState.REFUSED, RequestState.CANCELLED, RequestState.REFUSED]


async def test_quotes_that_cannot_be_answered_soon_are_told_to_come_back(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(here)
    user = await here.user("team-a")
    monkeypatch.setattr(thinking, "QUOTES", 0)
    with pytest.raises(Overloaded):
        await here.broker.quote(user, wish())
    monkeypatch.undo()
    assert (await here.broker.quote(user, wish())).state is RequestState.PLACED


async def test_what_a_plan_placed_and_the_store_refused_is_where_the_next_plan_starts(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    honest = here.broker.solve
    starts: list[set[str]] = []

    def watched(problem: Problem, *, previous: Solution | None, **how: Any) -> Solution:
        starts.append(set(previous.placements) if previous is not None else set())
        return honest(problem, previous=previous, **how)

    here.broker.solve = watched
    first = await here.broker.submit(user, wish(count=1))
    opened, snapshot, policies, spent = await here.store.read(here.broker.look)
    plan = here.broker.plan(opened, snapshot, policies, spent)
    here.broker.remember(plan, [first.id])
    await here.broker.submit(user, wish(count=1))
    await here.broker.place()
    await here.broker.submit(user, wish(count=1))
    await here.broker.place()
    assert starts == [set(), {first.id}, set()], "what was placed for good is nobody's start"


async def test_a_grant_that_cannot_be_written_stops_no_other(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair(here)
    user = await here.user("team-a")
    bad, good = [(await here.broker.submit(user, wish())).id for _ in range(2)]
    make = here.broker._lease

    def poisoned(grant: Grant, *rest: Any, **more: Any) -> Lease:
        if grant.request.id == bad:
            raise OverflowError("no database can keep this")
        return make(grant, *rest, **more)

    monkeypatch.setattr(here.broker, "_lease", poisoned)
    with capture_logs() as logs:
        done = await here.broker.place()
    assert (done.placed, done.again) == ([good], False)
    assert "grant failed" in [line["event"] for line in logs]
    assert (await here.broker.request(user, bad)).state is RequestState.OPEN


async def test_a_borrower_whose_agent_is_silent_gets_no_new_leases(here: World) -> None:
    lender, _ = await pair(here)
    here.clock.advance(seconds=50)
    await lender.advertise(offer(devices("n1")))
    assert await here.broker.find_silent() == ["a"]
    view = await answer(here)
    assert (view.state, why(view)) == (RequestState.REFUSED, {"borrower"})


async def test_a_cancelled_request_is_not_placed_and_one_being_placed_is_undone(here: World) -> None:
    lender, _ = await pair(here)
    user = await here.user("team-a")
    waiting = await here.broker.submit(user, wish())
    assert (await here.broker.cancel(user, waiting.id)).state is RequestState.CANCELLED
    assert (await here.broker.cancel(user, waiting.id)).state is RequestState.CANCELLED
    await here.broker.place()
    assert await lender.desired() == []

    placed = await here.submitted(user, wish())
    assert (await here.broker.cancel(user, placed.id)).state is RequestState.CANCELLED
    assert [each.want for each in await lender.desired()] == ["gone"]
    await lender.say("released")
    assert (await here.broker.leases(user)).items[0].ending == "cancelled"
    assert (await here.broker.request(user, placed.id)).state is RequestState.CANCELLED


async def test_what_a_request_lacks_is_said_before_anything_is_kept(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    tier = {"name": "t", "price_cap": {"amount": "1.00"}}
    for fields, says in (
        ({"price_cap": None}, "price_cap"),
        ({"duration": "0s"}, "at least 1s"),
        ({"tiers": [tier, tier]}, "same name"),
    ):
        with pytest.raises(BadTerms, match=says):
            await here.broker.submit(user, wish(**fields))
    for fields in ({"cluster": "nowhere"}, {"policy": "none"}):
        with pytest.raises(NotFound):
            await here.broker.submit(user, wish(**fields))
    assert (await here.broker.requests(user)).items == []


async def test_a_quote_answers_like_a_request_and_leaves_no_trace(here: World) -> None:
    lender, _ = await pair(here)
    user = await here.user("team-a")
    revision = await here.store.read(lambda unit: unit.revision)
    good = await here.broker.quote(user, wish())
    bad = await here.broker.quote(user, wish(price_cap={"amount": "0.10"}))
    assert (good.state, bad.state) == (RequestState.PLACED, RequestState.REFUSED)
    assert good.placement is not None
    assert "price-cap" in why(bad)
    assert "nothing was reserved" in good.message
    assert await here.store.read(lambda unit: unit.revision) == revision
    assert await lender.desired() == []
    assert (await here.broker.requests(user)).items == []


# --- which devices of an offer ---------------------------------------------------------------------------------------


def shelf(unit: int = 1, **nodes: int) -> Shelf:
    """Nodes with so many free devices each."""
    lot = Lot(
        id="ofr-1",
        cluster="b",
        tenant="team-b",
        kind="k",
        driver="d",
        price_micros=1,
        min_duration_s=0,
        max_duration_s=1,
        uninterrupted_s=0,
        allowed_tenants=None,
        region="",
        jurisdiction="",
        provider="",
        confidential=False,
        unit=unit,
        devices=tuple((f"{node}/{n}", node) for node, count in nodes.items() for n in range(count)),
    )
    return Shelf.of(lot, frozenset())


def nodes_of(refs: list[str] | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for ref in refs or []:
        node = ref.partition("/")[0]
        counts[node] = counts.get(node, 0) + 1
    return counts


def test_devices_come_from_the_node_that_fits_tightest() -> None:
    stock = shelf(big=8, middle=5, small=3)
    assert nodes_of(stock.take(3, same_node=False)) == {"small": 3}
    assert nodes_of(stock.take(4, same_node=False)) == {"middle": 4}
    assert nodes_of(stock.take(2, same_node=False)) == {"big": 2}
    assert stock.free() == 7


def test_what_no_node_has_comes_from_few_nodes_unless_one_is_wanted() -> None:
    assert nodes_of(shelf(a=8, b=8, c=4, d=1).take(12, same_node=False)) == {"a": 8, "c": 4}
    stock = shelf(a=4, b=4)
    assert stock.take(5, same_node=True) is None
    assert stock.take(9, same_node=False) is None
    assert stock.free() == 8, "what can't be taken whole is not taken at all"


def test_the_solvers_nodes_are_followed_where_they_still_have_the_devices() -> None:
    stock = shelf(a=4, b=4)
    assert nodes_of(stock.take(4, same_node=False, at=[(1, 4)])) == {"b": 4}
    assert nodes_of(stock.take(4, same_node=False, at=[(1, 4)])) == {"a": 4}


def test_what_a_request_excludes_it_does_not_get() -> None:
    stock = shelf(a=4, b=4)
    refs = stock.take(4, same_node=True, without={"a/0", "b/1", "b/2"})
    assert refs is None
    assert stock.take(3, same_node=True, without={"a/0", "b/1", "b/2"}) == ["a/1", "a/2", "a/3"]


def test_units_are_taken_whole_from_one_node_each() -> None:
    stock = shelf(unit=4, a=7, b=4)
    assert (stock.units, stock.free(), stock.largest()) == ((1, 1), 8, 4)
    assert nodes_of(stock.take(2, same_node=False)) == {"a": 4, "b": 4}
    assert stock.free() == 0


def test_devices_of_no_node_share_none() -> None:
    stock = shelf()
    stock = Shelf.of(replace(stock.lot, devices=(("x", None), ("y", None))), frozenset())
    assert (stock.free(), stock.largest()) == (2, 1)


# --- burst policies --------------------------------------------------------------------------------------------------


def policy(**fields: Any) -> BurstPolicySpec:
    return BurstPolicySpec.model_validate(
        {"tiers": [{"name": "any", "price_cap": {"amount": "3.00"}}], "max_duration": "2h", **fields}
    )


async def test_a_policys_budget_is_a_hard_stop_reserved_at_worst_case_and_settled_at_the_end(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    await here.broker.put_burst_policy(user, "a", "nights", policy(budget={"amount": "20.00"}))
    first = await answer(here, policy="nights", price_cap=None)
    assert first.state is RequestState.PLACED
    view = await here.broker.burst_policy(user, "a", "nights")
    assert (view.status.spend.month, view.status.spend.committed, view.status.live_leases) == ("2026-11", 16_000_000, 1)

    second = await answer(here, policy="nights", price_cap=None)
    assert second.state is RequestState.REFUSED
    assert "budget" in why(second)

    lease = await here.lend(lender, borrower)
    with pytest.raises(BudgetExhausted):
        await here.broker.renew(user, lease, Renewal.model_validate({"duration": "2h"}))
    here.clock.advance(minutes=15)
    await here.broker.return_lease(user, lease)
    assert (await here.broker.burst_policy(user, "a", "nights")).status.spend.committed == 4_000_000
    await lender.say("released")
    await lender.advertise(offer(devices("n1", "n2")))
    third = await answer(here, policy="nights", price_cap=None)
    assert third.state is RequestState.PLACED


async def test_racing_requests_never_overspend_a_budget(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    await here.broker.put_burst_policy(user, "a", "nights", policy(budget={"amount": "20.00"}))
    for _ in range(2):
        await here.broker.submit(user, wish(policy="nights", price_cap=None))
    opened, snapshot, policies, spent = await here.store.read(here.broker.look)
    lost: list[str] = []
    for request in opened:  # each alone with the same stale sum, but on devices of its own
        plan = here.broker.plan([request], snapshot, policies, spent)
        grants, _ = here.broker.sort_out([request], plan, snapshot)
        done = await here.store.write(partial(_committed, here, grants, snapshot))
        lost += done.lost
        snapshot = snapshot.without(grants[0].choice.refs)
    assert lost == [opened[1].id]
    assert (await here.broker.burst_policy(user, "a", "nights")).status.spend.committed == 16_000_000


def _committed(here: World, grants: Any, snapshot: Any, unit: Unit) -> Round:
    return here.broker.commit(unit, grants, [], snapshot)


async def test_a_policys_limits_hold_for_whoever_spends_from_it(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    await here.broker.put_burst_policy(user, "a", "nights", policy(where={"regions": ["us-east"]}))
    view = await answer(here, policy="nights")
    assert "region" in why(view)
    with pytest.raises(BadTerms, match="allows 2h at most, and 3h were"):
        await here.broker.submit(user, wish(policy="nights", duration="3h"))
    await here.broker.put_burst_policy(user, "a", "nights", policy(suspended=True))
    with pytest.raises(BadTerms, match="suspended"):
        await here.broker.submit(user, wish(policy="nights"))


async def test_who_spends_from_a_policy_names_no_tiers_of_their_own(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    await here.broker.put_burst_policy(user, "a", "nights", policy())
    own = [{"name": "mine", "price_cap": {"amount": "900.00"}}]
    with pytest.raises(BadTerms, match="leave out either"):
        await here.broker.submit(user, wish(policy="nights", price_cap=None, tiers=own))


@pytest.mark.parametrize("how", ["removed", "suspended"])
async def test_a_request_whose_policy_pays_no_more_is_not_placed_at_any_price(here: World, how: str) -> None:
    """Its caps and its budget were the policy's: without it there would be none."""
    lender, _ = await here.agent("b"), await here.agent("a")
    user = await here.user("team-a")
    await here.broker.put_burst_policy(user, "a", "nights", policy(budget={"amount": "20.00"}))
    asked = await here.submitted(user, wish(policy="nights", price_cap=None))
    await lender.advertise(offer(devices("n1")))
    opened, snapshot, policies, spent = await here.store.read(here.broker.look)
    plan = here.broker.plan(opened, snapshot, policies, spent)
    grants, _ = here.broker.sort_out(opened, plan, snapshot)
    if how == "removed":
        await here.broker.delete_burst_policy(user, "a", "nights")
    else:
        await here.broker.put_burst_policy(user, "a", "nights", policy(suspended=True))

    done = await here.store.write(partial(_committed, here, grants, snapshot))
    assert (done.placed, done.lost) == ([], [asked.id]), "planned before, too late to be written"
    await lender.advertise(offer(devices("n1"), price="900.00"))
    await here.broker.place()
    now = await here.broker.request(user, asked.id)
    assert (now.state, why(now)) == (RequestState.OPEN, {"policy"})
    assert "removed or suspended" in now.message


async def test_policies_that_are_objects_follow_their_objects(here: World) -> None:
    _, borrower = await pair(here)
    user = await here.user("team-a")
    await here.broker.put_burst_policy(user, "a", "mine", policy())
    spec = policy(budget={"amount": "10.00"})
    told = await here.broker.burst_policies_report(borrower.principal, BurstPolicyReport(policies={"theirs": spec}))
    assert set(told.policies) == {"theirs"}
    views = {view.name: view.source for view in (await here.broker.burst_policies(user)).items}
    assert views == {"mine": "api", "theirs": "object"}
    with pytest.raises(OwnedByObject):
        await here.broker.put_burst_policy(user, "a", "theirs", policy())
    with pytest.raises(OwnedByObject):
        await here.broker.delete_burst_policy(user, "a", "theirs")
    revision = await here.store.read(lambda unit: unit.revision)
    await here.broker.burst_policies_report(borrower.principal, BurstPolicyReport(policies={"theirs": spec}))
    assert await here.store.read(lambda unit: unit.revision) == revision
    await here.broker.burst_policies_report(borrower.principal, BurstPolicyReport(policies={}))
    assert [view.name for view in (await here.broker.burst_policies(user)).items] == ["mine"]
    with pytest.raises(NotFound):
        await here.broker.burst_policy(await here.user("team-z"), "a", "mine")
    await here.broker.delete_burst_policy(user, "a", "mine")
    assert (await here.broker.burst_policies(user)).items == []


async def test_lists_come_in_pages_that_lose_nothing(here: World) -> None:
    await pair(here, *(offer([device("n1", n)], name=f"o{n}") for n in range(7)))
    user = await here.user("team-a")
    for _ in range(7):
        await here.broker.submit(user, wish())
    for call in (here.broker.offers, here.broker.requests):
        seen: list[str] = []
        cursor = None
        while True:
            page = await call(user, cursor=cursor, limit=3)
            assert len(page.items) <= 3
            seen += [item.id for item in page.items]
            if page.cursor is None:
                break
            cursor = page.cursor
        assert len(seen) == len(set(seen)) == 7
