"""What a process keeps of the market is what reading everything anew would say, and little of it is made again."""

from __future__ import annotations

import random
from datetime import timedelta

from sqlalchemy import text
from structlog.testing import capture_logs

from broker.domain.shelf import Shelf
from broker.service.market import Market, Snapshot
from broker.service.selectors import Matcher
from broker.store.unit import Unit
from tests.world import H100, World, device, devices, offer, pair, wish


def told(snapshot: Snapshot) -> object:
    """Everything a round or a page could see of it."""
    return (
        {name: (shown.row, shown.lot, dict(shown.devices)) for name, shown in snapshot.shown.items()},
        {name: snapshot.shelf(name).nodes for name in snapshot.shown},
        {name: refs for name, refs in snapshot.taken.items() if refs},
        dict(snapshot.clusters),
        snapshot.catalogue.match(driver="gpu.nvidia.com", selector=None),
        set(snapshot.stock()),
    )


async def test_what_is_kept_is_what_reading_everything_anew_would_say(here: World) -> None:
    dice = random.Random(7)
    lenders = [await here.agent(name) for name in ("b", "c", "d")]
    borrower = await here.agent("a")
    for _ in range(25):
        match dice.randrange(6):
            case 0 | 1:
                made = [
                    offer(devices(f"n{at}", each=dice.randint(1, 8)), name=f"o{at}", price=f"{dice.randint(1, 3)}.00")
                    for at in dice.sample(range(4), dice.randint(0, 3))
                ]
                await dice.choice(lenders).advertise(*made)
            case 2 | 3:
                await here.submitted(borrower.principal, wish(count=dice.randint(1, 8), wait=None))
            case 4:
                for lender in lenders:
                    for lease in await lender.desired():
                        await lender.say(
                            "held" if lease.want == "held" else "released", lease.id, **_sealed(lease.want)
                        )
            case _:
                here.clock.advance(seconds=dice.choice((0.2, 3, 20)))
        kept = await here.broker.snapshot()
        fresh = await here.store.read(lambda unit: Market().look(unit, now=here.clock()))
        later = await here.store.read(
            lambda unit: here.broker.market.look(unit, now=here.clock() + timedelta(seconds=1))
        )
        assert told(kept)[:3] == told(fresh)[:3]  # type: ignore[index]  # a tuple
        assert told(later)[3] == told(fresh)[3]  # type: ignore[index]


def _sealed(want: str) -> dict[str, object]:
    return {"sealed_credential": "sealed", "credential_serial": 1} if want == "held" else {}


async def test_offers_that_did_not_change_are_the_same_objects_from_look_to_look(here: World) -> None:
    _, borrower = await pair(here, offer(devices("n1")), offer(devices("n2"), name="other", price="2.50"))
    other = await here.agent("c")
    await other.advertise(offer(devices("m1"), price="9.00"))
    before = await here.broker.snapshot()
    await here.submitted(borrower.principal, wish(count=2))
    after = await here.broker.snapshot()
    of = {name: shown.lot.cluster for name, shown in before.shown.items()}
    assert {of[name] for name in before.stalls if before.stalls[name] is after.stalls[name]} == {"c"}
    assert all(before.shown[name] is after.shown[name] for name in before.shown), "nobody advertised"
    assert after.catalogue is before.catalogue
    assert sum(after.shelf(name).free() for name in after.shown) == 22


async def test_taking_from_a_snapshots_stock_changes_no_other_look(here: World) -> None:
    await pair(here)
    snapshot = await here.broker.snapshot()
    (name,) = snapshot.shown
    stock = snapshot.stock()
    assert stock.to_take_from(name).take(8, same_node=True)
    assert stock[name].free() == 8
    assert snapshot.shelf(name).free() == snapshot.stock()[name].free() == 16


async def test_offers_that_had_run_out_are_seen_at_once_when_their_lender_repeats_them(here: World) -> None:
    """Nothing of the offers changed, so only the return itself is logged; who waits is placed because of it."""
    lender, borrower = await pair(here)
    here.clock.advance(seconds=61)
    first = await here.submitted(borrower.principal, wish(count=1, wait="600s"))
    assert first.lease is None
    before = await here.store.read(lambda unit: unit.revision)
    await lender.advertise(offer(devices("n1", "n2")))
    assert [entry.type for entry in await here.store.read(lambda unit: unit.log.after(before, most=9))] == [
        "member.ready"
    ]
    await here.broker.place()
    assert (await here.broker.request(borrower.principal, first.id)).lease is not None


async def test_an_offer_that_cannot_be_read_is_named_and_stops_nobody(here: World) -> None:
    _, borrower = await pair(here, offer(devices("n1")), offer(devices("n2"), name="bad"))
    bad = next(name for name, shown in (await here.broker.snapshot()).shown.items() if shown.offer.name == "bad")

    def spoil(unit: Unit) -> None:
        unit.change(text("UPDATE offers SET body = '{}' WHERE id = :bad"), {"bad": bad})

    await here.store.write(spoil)
    here.broker.market = Market()  # as after a restart
    with capture_logs() as said:
        placed = await here.submitted(borrower.principal, wish(count=8))
        await here.broker.snapshot()
    assert placed.placement is not None
    assert [line["offer"] for line in said if line["event"] == "offer unreadable"] == [bad], "once, and by its name"
    assert {view.name for view in (await here.broker.offers(borrower.principal)).items} == {"h100"}


async def test_a_log_that_does_not_reach_back_so_far_costs_one_look_at_everything(here: World) -> None:
    lender, borrower = await pair(here)
    await here.broker.snapshot()
    await lender.advertise(offer(devices("n9", each=4)))

    def forget(unit: Unit) -> None:
        unit.change(text("DELETE FROM events WHERE revision < (SELECT max(revision) FROM events)"))

    await here.submitted(borrower.principal, wish(count=1, wait=None, price_cap={"amount": "0.01"}))
    await here.store.write(forget)
    kept, fresh = Market(), Market()
    kept._known = None
    await here.store.read(lambda unit: kept.look(unit, now=here.clock()))
    snapshot = await here.broker.snapshot()
    assert told(snapshot) == told(await here.store.read(lambda unit: fresh.look(unit, now=here.clock())))


def test_what_a_selector_said_is_remembered_within_bounds() -> None:
    matcher = Matcher()
    kinds = [H100.model_copy(update={"model": f"model {number}"}) for number in range(5_000)]
    for number, kind in enumerate(kinds):
        matcher.view(str(number), kind)
    assert len(matcher._views) <= 4_096
    seen = matcher.view("0", kinds[0])
    assert matcher("0", seen, driver="gpu.nvidia.com", selector=None), "forgotten is not lost"


def test_a_thousand_nodes_are_taken_one_after_the_other() -> None:
    """Far more nodes than any request needs: each is looked at a few times, not once for every other."""
    from tests.test_service_placing import shelf

    stock = shelf(**{f"n{number:04d}": 1 + number % 3 for number in range(1_000)})
    refs = stock.take(1_999, same_node=False)
    assert refs is not None
    assert len(set(refs)) == 1_999
    assert isinstance(stock, Shelf)
    assert stock.free() == 0
    assert device("n", 1).ref("b") == "b/gpu.nvidia.com/n/gpu-1"
