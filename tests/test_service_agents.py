"""What agents say is believed only when signed, numbered and about themselves; and what it does then."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import Malformed, NotYourCluster, UntrustedMessage
from broker.kit import jose
from broker.wire.agents import LeaseReport
from broker.wire.leases import LeaseState
from broker.wire.offers import Advert
from broker.wire.requests import RequestState
from tests.world import ADMIN, START, World, device, devices, offer, pair, wish, world


async def test_an_advert_replaces_the_one_before_and_says_what_changed(here: World) -> None:
    lender, _ = await pair(here, offer(devices("n1")), offer(devices("n2"), name="dear", price="5.00"))
    assert {view.name: view.devices for view in (await here.broker.offers(ADMIN)).items} == {"h100": 8, "dear": 8}
    before = await here.store.read(lambda unit: unit.revision)
    await lender.advertise(offer(devices("n1", each=3)))
    assert {view.name: view.devices for view in (await here.broker.offers(ADMIN)).items} == {"h100": 3}
    entries = await here.store.read(lambda unit: unit.log.after(before, most=10))
    assert sorted(entry.type for entry in entries) == ["offer.changed", "offer.withdrawn"]

    await lender.advertise(offer(devices("n1", each=3)))
    assert await here.store.read(lambda unit: unit.revision) == before + 2, "nothing changed, nothing is logged"

    ids = {view.name: view.id for view in (await here.broker.offers(ADMIN)).items}
    await lender.advertise(offer(devices("n1")))
    assert {view.name: view.id for view in (await here.broker.offers(ADMIN)).items} == ids, "an offer keeps its id"


async def test_a_replayed_or_reordered_advert_changes_nothing(here: World) -> None:
    lender, _ = await pair(here)
    old = lender.sign(
        Advert(cluster="b", sequence=50, sent_at=START, valid_until=START + timedelta(minutes=1), offers=()),
        jose.ADVERT,
    )
    await lender.advertise(offer(devices("n1")), sequence=60)
    for _ in range(2):
        heard = await here.broker.advert(lender.principal, old)
        assert (heard.applied, heard.sequence) == (False, 60)
    assert (await here.broker.offers(ADMIN)).items[0].devices == 8


async def test_a_replayed_report_changes_nothing(here: World) -> None:
    lender, _ = await pair(here)
    await here.submitted(await here.user("team-a"), wish())
    (wanted,) = await lender.desired()
    line = LeaseReport(lease=wanted.id, role="lender", generation=1, phase="conflict", fence=1)
    heard = await lender.report(line, sequence=1)
    assert not heard.applied
    assert (await here.broker.lease(ADMIN, wanted.id)).state is LeaseState.RESERVED


async def test_a_message_signed_by_another_cluster_or_for_another_purpose_is_refused(here: World) -> None:
    lender, other = await pair(here)
    advert = Advert(cluster="b", sequence=99, sent_at=START, valid_until=START + timedelta(minutes=1))
    for jws in (
        other.sign(advert, jose.ADVERT),
        lender.sign(advert, jose.REPORT),
        lender.sign(advert, jose.ADVERT)[:-4] + "AAAA",
        "not.a.jws",
        "",
        "e30.e30.",
    ):
        with pytest.raises(UntrustedMessage):
            await here.broker.advert(lender.principal, jws)
    assert (await here.broker.offers(ADMIN)).items[0].devices == 16


async def test_a_cluster_that_lies_about_its_name_is_told_so(here: World) -> None:
    lender, _ = await pair(here)
    lie = Advert(cluster="a", sequence=99, sent_at=START, valid_until=START + timedelta(minutes=1))
    with pytest.raises(NotYourCluster, match="cluster 'b'"):
        await here.broker.advert(lender.principal, lender.sign(lie, jose.ADVERT))


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"{}",
        b'{"cluster":"b","sequence":99,"sent_at":"2026-11-23T12:00:00Z","valid_until":"2026-11-23T13:00:00Z","extra":1}',
        b'{"cluster":"b","sequence":-1,"sent_at":"2026-11-23T12:00:00Z","valid_until":"2026-11-23T13:00:00Z"}',
        b'{"cluster":"b","sequence":99,"sent_at":"2026-11-23T12:00:00","valid_until":"2026-11-23T13:00:00Z"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
async def test_a_signed_message_of_the_wrong_shape_is_refused_and_changes_nothing(here: World, payload: bytes) -> None:
    lender, _ = await pair(here)
    revision = await here.store.read(lambda unit: unit.revision)
    with pytest.raises(Malformed):
        await here.broker.advert(lender.principal, lender.signing.sign(payload, typ=jose.ADVERT))
    assert await here.store.read(lambda unit: unit.revision) == revision


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("field", ["sent_at", "valid_until"])
async def test_a_time_that_no_calendar_has_in_utc_is_refused_and_stops_nobody(
    here: World, field: str, when: str
) -> None:
    lender, _ = await pair(here)
    advert = {"cluster": "b", "sequence": 9, "sent_at": START.isoformat(), "valid_until": START.isoformat()}
    payload = json.dumps({**advert, field: when}).encode()
    with pytest.raises(Malformed):
        await here.broker.advert(lender.principal, lender.signing.sign(payload, typ=jose.ADVERT))
    assert [view.name for view in (await here.broker.clusters(ADMIN)).items] == ["a", "b"]


@pytest.mark.parametrize("serial", [1 << 31, 1 << 70])
async def test_a_number_that_not_every_database_can_keep_is_refused(here: World, serial: int) -> None:
    lender, _ = await pair(here)
    line = {"lease": "lse-1", "role": "lender", "generation": 1, "phase": "held", "credential_serial": serial}
    payload = json.dumps({"cluster": "b", "sequence": 9, "sent_at": START.isoformat(), "leases": [line]}).encode()
    with pytest.raises(Malformed):
        await here.broker.report(lender.principal, lender.signing.sign(payload, typ=jose.REPORT))


async def test_an_advert_that_names_a_device_or_an_offer_twice_is_refused(here: World) -> None:
    lender, _ = await pair(here)
    with pytest.raises(Malformed, match="names a device twice"):
        await lender.advertise(offer([device("n1", 0), device("n1", 0)]))
    with pytest.raises(Malformed, match="two offers named h100"):
        await lender.advertise(offer(devices("n1")), offer(devices("n2")))


@pytest.mark.parametrize("off_s", [-3600, -6, 6, 3600])
async def test_a_cluster_whose_clock_is_off_gets_no_new_leases_and_is_told_so(here: World, off_s: int) -> None:
    lender, _ = await pair(here)
    user = await here.user("team-a")
    heard = await lender.advertise(offer(devices("n1")), sent_at=START + timedelta(seconds=off_s))
    assert heard.applied
    assert not heard.clock_safe
    assert "clock is off" in heard.message
    assert (await here.broker.cluster(ADMIN, "b")).state == "ClockUnsafe"
    assert (await here.submitted(user, wish())).state is RequestState.OPEN
    assert (await here.broker.offers(user)).items[0].stale

    heard = await lender.advertise(offer(devices("n1")))
    assert heard.clock_safe
    await here.broker.place()
    assert [each.want for each in await lender.desired()] == ["held"]


@pytest.mark.parametrize("off_s", [-5, 0, 5])
async def test_a_clock_within_the_bound_loses_nothing(here: World, off_s: int) -> None:
    lender, _ = await pair(here)
    heard = await lender.advertise(offer(devices("n1")), sent_at=START + timedelta(seconds=off_s))
    assert heard.clock_safe
    assert (await here.submitted(await here.user("team-a"), wish())).state is RequestState.PLACED


async def test_a_borrower_whose_clock_is_off_gets_no_new_leases_either(here: World) -> None:
    _, borrower = await pair(here)
    await borrower.report(sent_at=START - timedelta(minutes=5))
    asked = await here.submitted(await here.user("team-a"), wish(wait=None))
    assert asked.state is RequestState.REFUSED
    assert "clock is off" in asked.reasons[0].detail


async def test_a_lender_lends_nothing_before_it_has_said_what_it_knows(here: World) -> None:
    borrower = await here.agent("a")
    lender = await here.agent("b", resync=False)
    await lender.advertise(offer(devices("n1")))
    user = await here.user("team-a")
    assert (await here.broker.cluster(ADMIN, "b")).state == "Recovering"
    assert (await here.submitted(user, wish())).state is RequestState.OPEN
    await lender.report()
    await here.broker.place()
    assert await lender.desired() == []
    await lender.report(resync=True)
    await here.broker.place()
    assert len(await lender.desired()) == 1
    assert borrower.cluster == "a"


async def test_a_broker_that_starts_again_has_lost_nothing_and_waits_for_its_lenders(database_url: str) -> None:
    async with world(database_url) as first:
        lender, borrower = await pair(first)
        user = await first.user("team-a")
        await first.submitted(user, wish())
        lease = await first.lend(lender, borrower)
        waiting = await first.submitted(user, wish(count=16))
        clock = first.clock
        before = await first.broker.lease(user, lease)
        ids = first.broker.ids
    async with world(database_url, clock=clock, ids=ids) as second:
        assert await second.broker.lease(user, lease) == before
        lender.world = borrower.world = second
        lender.principal = await second.broker.authenticate(lender.credential)
        assert (await second.broker.request(user, waiting.id)).state is RequestState.OPEN
        assert (await second.broker.cluster(ADMIN, "b")).state == "Recovering"
        await lender.advertise(offer(devices("n1", "n2", "n3", "n4")))
        await second.broker.place()
        assert (await second.broker.request(user, waiting.id)).state is RequestState.OPEN
        await lender.report(resync=True)
        await second.broker.place()
        assert (await second.broker.request(user, waiting.id)).state is RequestState.PLACED


async def test_fences_go_on_above_the_highest_any_lender_has_seen(here: World) -> None:
    lender, _ = await pair(here)
    user = await here.user("team-a")
    await lender.report(resync=True, highest_fence=1_000)
    await here.submitted(user, wish(count=1))
    await here.submitted(user, wish(count=1))
    fences = sorted(device_.fence for each in await lender.desired() for device_ in each.lease.devices)
    assert fences == [1_001, 1_002]
    await lender.report(highest_fence=5)
    await here.submitted(user, wish(count=1))
    assert max(device_.fence for each in await lender.desired() for device_ in each.lease.devices) == 1_003
    with pytest.raises(Malformed, match="highest_fence"):
        await lender.report(highest_fence=(1 << 63) - 1)


async def test_a_lease_that_this_broker_does_not_know_frees_nothing_and_is_spoken_of(here: World) -> None:
    lender, _ = await pair(here)
    line = LeaseReport(lease="lse-from-before", role="lender", generation=1, phase="lent", fence=900)
    await lender.report(line, resync=True, highest_fence=900)
    assert "lse-from-before" in (await here.broker.cluster(ADMIN, "b")).message
    await here.submitted(await here.user("team-a"), wish(count=1))
    assert (await lender.desired())[0].lease.devices[0].fence == 901


async def test_a_word_about_somebody_elses_lease_changes_nothing(here: World) -> None:
    lender, borrower = await pair(here)
    stranger = await here.agent("z")
    await here.submitted(await here.user("team-a"), wish())
    lease = await here.lend(lender, borrower)
    fence = (await lender.desired())[0].lease.devices[0].fence
    for agent, role in ((stranger, "lender"), (stranger, "borrower"), (borrower, "lender"), (lender, "borrower")):
        for phase in ("released", "gone"):
            await agent.report(LeaseReport(lease=lease, role=role, generation=1, phase=phase, fence=fence))  # type: ignore[arg-type]
    assert (await here.broker.lease(ADMIN, lease)).state is LeaseState.ACTIVE


async def test_a_device_that_local_work_took_first_sends_the_request_elsewhere(here: World) -> None:
    lender, _ = await pair(here)
    user = await here.user("team-a")
    asked = await here.submitted(user, wish(count=8))
    (wanted,) = await lender.desired()
    nodes = {each.node for each in wanted.lease.devices}
    taken = wanted.lease.devices[0]
    await lender.say("conflict", devices=[f"{taken.driver}/{taken.pool}/{taken.name}"], reason="a local pod has it")
    first = await here.broker.lease(user, wanted.id)
    assert (first.state, first.ending) == (LeaseState.ENDED, "conflict")
    assert (await here.broker.request(user, asked.id)).state is RequestState.OPEN
    await here.broker.place()
    again = await here.broker.request(user, asked.id)
    assert (again.state, again.attempts) == (RequestState.PLACED, 2)
    (other,) = await lender.desired()
    assert taken.name not in {each.name for each in other.lease.devices if each.node in nodes}
    assert other.lease.devices[0].fence > taken.fence


async def test_a_conflict_with_nowhere_else_to_go_is_refused_with_the_reason(here: World) -> None:
    lender, _ = await pair(here, offer(devices("n1")))
    user = await here.user("team-a")
    asked = await here.submitted(user, wish(wait=None))
    (wanted,) = await lender.desired()
    await lender.say("conflict", devices=["gpu.nvidia.com/n1/gpu-3"], reason="a local pod has gpu-3")
    assert [each.id for each in await lender.desired()] == []
    await here.broker.place()
    refused = await here.broker.request(user, asked.id)
    assert refused.state is RequestState.REFUSED
    assert "a local pod has gpu-3" in refused.message
    assert refused.reasons
    assert wanted.id == (await here.broker.leases(user)).items[0].id


async def test_a_request_is_given_up_after_five_attempts(here: World) -> None:
    lender, _ = await pair(here, *(offer(devices(f"n{n}"), name=f"o{n}") for n in range(8)))
    user = await here.user("team-a")
    asked = await here.submitted(user, wish())
    for _ in range(5):
        await lender.say("refused", reason="quota")
        await here.broker.place()
    given_up = await here.broker.request(user, asked.id)
    assert (given_up.state, given_up.attempts) == (RequestState.REFUSED, 5)
    assert "Given up after 5 attempts" in given_up.message
    assert len((await here.broker.leases(user)).items) == 5


async def test_a_lender_that_does_not_answer_in_time_loses_the_request_but_its_devices_stay_reserved(
    here: World,
) -> None:
    lender, _ = await pair(here, offer(devices("n1")))
    slow = await here.agent("c")
    user = await here.user("team-a")
    asked = await here.submitted(user, wish())
    (wanted,) = await lender.desired()
    here.clock.advance(seconds=61)
    await lender.advertise(offer(devices("n1")))
    await slow.advertise(offer(devices("m1"), price="2.50"))
    await here.broker.expire()
    late = await here.broker.lease(user, wanted.id)
    assert (late.state, late.ending) == (LeaseState.DRAINING, "timed-out")
    await here.broker.place()
    assert (await here.broker.request(user, asked.id)).placement.cluster == "c"  # type: ignore[union-attr]
    views = {view.cluster: view.devices for view in (await here.broker.offers(user)).items}
    assert views == {"b": 0, "c": 0}

    await lender.say("held")  # too late: it is asked to give it back, not revived
    assert (await here.broker.lease(user, wanted.id)).state is LeaseState.DRAINING
    await lender.say("released")
    assert (await here.broker.lease(user, wanted.id)).state is LeaseState.ENDED


async def test_a_silent_lenders_leases_are_orphaned_and_come_back_with_it(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    here.clock.advance(seconds=50)
    await borrower.report()
    assert await here.broker.find_silent() == ["b"]
    assert await here.broker.find_silent() == []
    assert (await here.broker.lease(user, lease)).state is LeaseState.ORPHANED
    assert (await here.broker.cluster(ADMIN, "b")).state == "Silent"
    assert [each.want for each in await borrower.desired()] == ["lent"], "the borrower works on until exp - e"
    assert (await here.broker.offers(user)).items[0].stale

    fence = (await lender.desired())[0].lease.devices[0].fence
    line = LeaseReport(lease=lease, role="lender", generation=1, phase="lent", fence=fence)
    await lender.report(line, resync=True)
    assert (await here.broker.lease(user, lease)).state is LeaseState.ACTIVE
    assert (await here.broker.cluster(ADMIN, "b")).state == "Ready"


async def test_an_orphans_devices_are_granted_again_only_after_quarantine_and_when_reported_idle(here: World) -> None:
    lender, borrower = await pair(here, offer(devices("n1")))
    user = await here.user("team-a")
    await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    here.clock.advance(minutes=1)
    await borrower.report()
    await here.broker.find_silent()
    expires = (await here.broker.lease(user, lease)).expires_at
    assert expires is not None

    here.clock.at = expires + timedelta(seconds=54)
    await borrower.report()
    await here.broker.expire()
    assert (await here.broker.lease(user, lease)).state is LeaseState.ORPHANED
    await lender.report(resync=True)
    await lender.advertise(offer(devices("n1")))
    assert (await here.broker.lease(user, lease)).state is LeaseState.ORPHANED, "idle, but too early"
    assert (await here.submitted(user, wish())).state is RequestState.OPEN

    here.clock.advance(seconds=1)
    await here.broker.expire()
    assert (await here.broker.lease(user, lease)).state is LeaseState.QUARANTINED
    await here.broker.place()
    assert (await here.broker.offers(user)).items[0].devices == 0, "late enough, but not reported idle since"
    await lender.advertise(offer(devices("n1", each=7)))
    assert (await here.broker.lease(user, lease)).state is LeaseState.QUARANTINED, "not all of them"
    await lender.advertise(offer(devices("n1")))
    assert (await here.broker.lease(user, lease)).state is LeaseState.ENDED
    await here.broker.place()
    assert {each.want for each in await lender.desired()} == {"held"}


async def test_an_agent_that_still_has_what_has_ended_is_told_again_to_let_go(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    fence = (await lender.desired())[0].lease.devices[0].fence
    await here.broker.return_lease(user, lease)
    await lender.say("released")
    await borrower.say("gone", role="borrower")
    assert await lender.desired() == await borrower.desired() == []

    await lender.report(LeaseReport(lease=lease, role="lender", generation=1, phase="lent", fence=fence), resync=True)
    await borrower.report(LeaseReport(lease=lease, role="borrower", generation=1, phase="mirrored"), resync=True)
    assert [each.want for each in await lender.desired()] == ["gone"]
    assert [each.want for each in await borrower.desired()] == ["gone"]
    await lender.report(LeaseReport(lease=lease, role="lender", generation=1, phase="released", fence=fence))
    await borrower.report(LeaseReport(lease=lease, role="borrower", generation=1, phase="gone"))
    assert await lender.desired() == await borrower.desired() == []


async def test_a_borrower_that_gave_up_what_it_had_returns_the_lease(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    await borrower.say("gone", role="borrower", reason="somebody deleted the DeviceLease")
    view = await here.broker.lease(user, lease)
    assert (view.state, view.ending) == (LeaseState.DRAINING, "returned")
    assert await borrower.desired() == []


async def test_a_newer_sealed_credential_reaches_the_borrower_and_an_older_one_never_does(here: World) -> None:
    lender, borrower = await pair(here)
    await here.submitted(await here.user("team-a"), wish())
    await lender.say("held", sealed_credential="one", credential_serial=1)
    await lender.say("lent", sealed_credential="two", credential_serial=2)
    assert (await borrower.desired())[0].sealed_credential == "two"
    await lender.say("lent", sealed_credential="one", credential_serial=1)
    assert (await borrower.desired())[0].sealed_credential == "two"


async def test_an_agent_is_told_nothing_of_leases_that_are_not_its_own(here: World) -> None:
    lender, borrower = await pair(here)
    other = await here.agent("c")
    await here.submitted(await here.user("team-a"), wish())
    await here.lend(lender, borrower)
    assert await other.desired() == []
    text = json.dumps([each.model_dump(mode="json") for each in await lender.desired()])
    assert "sealed" not in text.replace("peer_sealing_key", "").replace('"sealed_credential": null', "")


async def test_every_state_of_a_member_has_a_sentence_for_whoever_wonders(here: World) -> None:
    await pair(here)
    row = await here.store.read(lambda unit: unit.clusters.find("b"))
    assert row is not None
    for changes in ({"revoked_at": START}, {"silent": True}, {"clock_safe": False}, {"resynced": False}):
        assert replace(row, **changes).why  # type: ignore[arg-type]
    assert (row.state, row.why) == ("Ready", "")
