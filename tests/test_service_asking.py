"""What a request can ask for beyond devices, time and price: gangs of workers, windows and deadlines."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from broker.domain.errors import BadTerms
from broker.wire.requests import NodeShare, Reason, RequestState, RequestView
from tests.test_service_placing import answer, nodes_of, shelf, why
from tests.world import ADMIN, START, World, devices, offer, pair, wish


def helping(view: RequestView) -> dict[str, Any]:
    """What would help: one field of the request → to what."""
    aside = {"offer", "cost", "cluster", "of", "per"}
    changes = [reason.change for reason in view.reasons if reason.reason == "would-fit" and reason.change]
    return {key: value for change in changes for key, value in change.items() if key not in aside}


def told(view: RequestView, reason: str) -> Reason:
    return next(each for each in view.reasons if each.reason == reason)


# --- gangs ------------------------------------------------------------------------------------------------------------


async def test_a_gang_is_one_lease_with_each_workers_devices_in_one_node(here: World) -> None:
    lender, _ = await pair(here, offer([*devices("n1", "n2"), *devices("n3", each=5)]))
    view = await answer(here, count=4, devices={"workers": 5, "same_node": True})
    assert view.placement is not None
    assert (view.placement.devices, view.placement.workers) == (20, 5)
    assert view.placement.nodes == [
        NodeShare(node="n1", devices=8, workers=2),
        NodeShare(node="n2", devices=8, workers=2),
        NodeShare(node="n3", devices=4, workers=1),
    ]
    assert view.placement.cost.amount == 20 * 2_000_000
    (wanted,) = await lender.desired()
    assert Counter(each.node for each in wanted.lease.devices) == {"n1": 8, "n2": 8, "n3": 4}


async def test_a_gang_that_does_not_fit_whole_gets_nothing_and_hears_how_many_workers_would(here: World) -> None:
    lender, _ = await pair(here, offer(devices("n1", "n2", "n3", each=5)))
    view = await answer(here, count=4, devices={"workers": 4, "same_node": True})
    assert (view.state, "node" in why(view)) == (RequestState.REFUSED, True)
    assert helping(view)["workers"] == 3
    assert any("3 workers instead of 4" in reason.detail for reason in view.reasons)
    assert await lender.desired() == []
    fewer = await answer(here, count=4, devices={"workers": 3, "same_node": True})
    assert fewer.state is RequestState.PLACED


async def test_without_same_node_a_gang_takes_what_there_is(here: World) -> None:
    await pair(here, offer(devices("n1", "n2", "n3", each=5)))
    view = await answer(here, count=7, devices={"workers": 2})
    assert view.placement is not None
    assert sum(share.devices for share in view.placement.nodes) == 14
    assert {share.workers for share in view.placement.nodes} == {None}
    more = await answer(here, count=1, devices={"workers": 8})
    assert helping(more) == {"workers": 1}, "of one device each, nothing smaller than a worker"


async def test_what_a_gang_may_not_have_is_told_for_each_worker(here: World) -> None:
    await pair(here, offer(devices("n1", "n2")))
    view = await answer(here, count=9, devices={"workers": 2, "same_node": True})
    assert helping(view)["devices"] == 8
    assert any("8 devices for each of its 2 workers" in reason.detail for reason in view.reasons)


async def test_devices_that_only_go_together_go_to_one_worker(here: World) -> None:
    lender, _ = await pair(here, offer(devices("t1", "t2", "t3", each=4), unit=4))
    dear = await answer(here, count=1, devices={"workers": 3}, price_cap={"amount": "7.99"})
    assert helping(dear)["price_cap"] == "8.00", "the price of a requested device-hour has the whole unit in it"
    view = await answer(here, count=1, devices={"workers": 3}, price_cap={"amount": "8.00"})
    assert view.placement is not None
    assert (view.placement.devices, view.placement.cost.amount) == (12, 12 * 2_000_000)
    (wanted,) = await lender.desired()
    assert len(wanted.lease.devices) == 12


async def test_a_lease_never_has_more_devices_than_a_lease_can_hold(here: World) -> None:
    """1,000 workers with one device each would take 1,000 whole units of eight."""
    nodes = [f"t{at}" for at in range(1_000)]
    await pair(here, offer(devices(*nodes), unit=8))
    view = await answer(here, count=1, devices={"workers": 1_000}, price_cap={"amount": "16"})
    assert view.state is RequestState.REFUSED
    assert "1,024" in told(view, "lease-size").detail
    assert helping(view) == {"workers": 128}
    placed = await answer(here, count=1, devices={"workers": 128}, price_cap={"amount": "16"})
    assert placed.placement is not None
    assert placed.placement.devices == 1_024


@pytest.mark.parametrize("fields", [{"workers": 0}, {"workers": 10**6}, {"workers": -1}, {"workers": 1.5}])
def test_a_number_of_workers_that_makes_no_sense_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="workers"):
        wish(devices=fields)


def test_the_limit_of_devices_is_of_all_workers_together() -> None:
    assert wish(count=8, devices={"workers": 128}).devices.total == 1_024
    with pytest.raises(ValidationError, match="129 workers with 8 devices each are 1,032 devices"):
        wish(count=8, devices={"workers": 129})


async def test_a_gang_is_tried_again_without_the_devices_that_failed_it(here: World) -> None:
    lender, borrower = await pair(here, offer(devices("n1", "n2", "n3", each=4)))
    await here.submitted(borrower.principal, wish(count=4, devices={"workers": 2, "same_node": True}))
    (first,) = await lender.desired()
    taken = first.lease.devices[0]
    await lender.say("conflict", devices=[f"{taken.driver}/{taken.pool}/{taken.name}"], reason="a local pod has it")
    await here.broker.place()
    (second,) = [each for each in await lender.desired() if each.id != first.id]
    assert {each.node for each in second.lease.devices} == {"n2", "n3"}


def test_workers_sit_on_as_few_nodes_as_hold_them() -> None:
    assert nodes_of(shelf(a=8, b=6, c=4).take(6, same_node=True, workers=2)) == {"b": 6}
    assert nodes_of(shelf(a=8, b=6, c=4).take(12, same_node=True, workers=3)) == {"a": 8, "c": 4}
    assert nodes_of(shelf(a=7, b=7).take(8, same_node=True, workers=2)) == {"a": 4, "b": 4}
    stock = shelf(a=7, b=3)
    assert stock.take(8, same_node=True, workers=2) is None
    assert stock.free() == 10


def test_workers_go_where_the_solver_put_them_though_it_names_a_node_for_each() -> None:
    assert nodes_of(shelf(a=8, b=8).take(8, same_node=True, workers=2, at=((1, 4), (1, 4)))) == {"b": 8}
    assert nodes_of(shelf(a=8, b=4).take(8, same_node=True, workers=2, at=((1, 4), (1, 4)))) == {"a": 8}


# --- windows ----------------------------------------------------------------------------------------------------------


def at(**by: float) -> str:
    """A time so much after the clock's start, as people write it."""
    return (START + timedelta(**by)).isoformat()


async def look(here: World, request: str, **by: float) -> RequestView:
    """How it stands after a while and a round."""
    here.clock.advance(**by)
    await here.broker.place()
    return await here.broker.request(ADMIN, request)


async def asked(here: World, **fields: Any) -> RequestView:
    """Asked for without a word about patience."""
    return await here.submitted(await here.user("team-a"), wish(**{"wait": None, **fields}))


async def test_nothing_is_started_before_the_time_it_names(here: World) -> None:
    lender, _ = await pair(here)
    view = await asked(here, not_before=at(minutes=30))
    assert (view.state, why(view)) == (RequestState.OPEN, {"not-yet"})
    assert "12:30:00 UTC" in view.message
    assert here.broker.next_start == START + timedelta(minutes=30)
    assert await lender.desired() == []
    await lender.advertise(offer(devices("n1", "n2")))
    early = await look(here, view.id, minutes=29, seconds=59)
    assert early.state is RequestState.OPEN
    await lender.advertise(offer(devices("n1", "n2")))
    assert (await look(here, view.id, seconds=1)).state is RequestState.PLACED
    assert here.broker.next_start is None


async def test_what_fits_nothing_when_its_time_has_come_is_refused_then(here: World) -> None:
    lender, _ = await pair(here)
    view = await asked(here, not_before=at(minutes=30), count=17)
    patient = await asked(here, not_before=at(minutes=30), count=17, wait="5m")
    assert view.state is patient.state is RequestState.OPEN
    here.clock.advance(minutes=30)
    await lender.advertise(offer(devices("n1", "n2")))
    assert "count" in why(await look(here, view.id))
    assert (await look(here, view.id)).state is RequestState.REFUSED
    assert (await look(here, patient.id)).state is RequestState.OPEN
    assert (await look(here, patient.id, minutes=5)).state is RequestState.REFUSED


@pytest.mark.parametrize("window", [{"start_by": at(hours=1)}, {"finish_by": at(hours=2)}])
async def test_who_names_a_latest_start_waits_till_then_and_is_told_so(here: World, window: dict[str, str]) -> None:
    lender, _ = await pair(here, offer(devices("n1", each=4)))
    view = await asked(here, **window)
    assert (view.state, "count" in why(view)) == (RequestState.OPEN, True)
    here.clock.advance(minutes=59)
    await lender.advertise(offer(devices("n1", each=4)))
    assert (await look(here, view.id)).state is RequestState.OPEN
    here.clock.advance(minutes=1)
    await lender.advertise(offer(devices("n1", each=4)))
    last = await look(here, view.id)
    assert last.state is RequestState.REFUSED
    assert why(last) >= {"window", "count"}
    (said,) = window.values()
    assert f"by {datetime.fromisoformat(said):%Y-%m-%d %H:%M:%S} UTC" in last.message


async def test_a_last_look_is_in_time_and_a_later_one_is_not(here: World) -> None:
    lender, _ = await pair(here, offer(devices("n1", each=4)))
    lucky, late = await asked(here, start_by=at(seconds=30)), await asked(here, start_by=at(seconds=30))
    here.clock.advance(seconds=30)
    await lender.advertise(offer(devices("n1")))
    await here.broker.place()
    states = {(await look(here, view.id)).state for view in (lucky, late)}
    assert states == {RequestState.PLACED, RequestState.REFUSED}
    too_late = await asked(here, start_by=at(seconds=31), count=9)
    here.clock.advance(seconds=2)
    await lender.advertise(offer(devices("n1", "n2", "n3")))
    view = await look(here, too_late.id)
    assert (view.state, view.reasons[0].reason) == (RequestState.REFUSED, "window")
    assert "count" in why(view), "what stood in the way is still told"


async def test_wait_may_end_before_the_window_does(here: World) -> None:
    await pair(here, offer(devices("n1", each=4)))
    view = await asked(here, start_by=at(hours=1), wait="0s")
    assert (view.state, "window" in why(view)) == (RequestState.REFUSED, False)


async def test_what_fits_at_once_does_not_wait_for_its_deadline(here: World) -> None:
    await pair(here)
    assert (await asked(here, finish_by=at(hours=9))).state is RequestState.PLACED
    assert (await asked(here, finish_by=at(hours=1))).state is RequestState.PLACED, "just in time is in time"


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"start_by": at(seconds=-1)}, "/start_by", "start_by 2026-11-23 11:59:59 UTC has passed"),
        ({"start_by": at(hours=1), "not_before": at(hours=2)}, "/start_by", "before not_before"),
        ({"finish_by": at(minutes=59)}, "/finish_by", "It could with finish_by 2026-11-23 13:00:00 UTC or later, or"),
        ({"finish_by": at(minutes=59)}, "/finish_by", "or with a duration of 59m at most"),
        ({"finish_by": at(hours=2), "not_before": at(minutes=61)}, "/finish_by", "a duration of 59m at most"),
        ({"finish_by": at(hours=-2)}, "/finish_by", "It could with finish_by 2026-11-23 13:00:00 UTC or later."),
    ],
)
async def test_what_cannot_be_in_time_is_refused_at_once_with_what_would_be(
    here: World, fields: dict[str, str], pointer: str, words: str
) -> None:
    await pair(here)
    user = await here.user("team-a")
    for call in (here.broker.submit, here.broker.quote):
        with pytest.raises(BadTerms) as caught:
            await call(user, wish(**fields))
        assert caught.value.errors[0]["pointer"] == pointer
        assert words in caught.value.detail
    assert (await here.broker.requests(user)).items == []


@pytest.mark.parametrize(
    "time",
    ["2026-11-23T14:00:00", "2026-11-23", "14:00", "tomorrow", 1_764_000_000, "1764000000", "0001-01-01T00:00:00Z"],
)
def test_a_time_needs_its_offset_and_to_be_one(time: object) -> None:
    with pytest.raises(ValidationError, match="not_before"):
        wish(not_before=time)


async def test_a_quote_for_later_says_what_would_fit_now(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    view = await here.broker.quote(user, wish(not_before=at(hours=1), start_by=at(hours=2)))
    assert view.placement is not None
    assert "now, not what will at not_before" in view.message
    assert view.request.not_before == START + timedelta(hours=1)
    plain = await here.broker.quote(user, wish(start_by=at(hours=2)))
    assert "not_before" not in plain.message
