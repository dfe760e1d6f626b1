"""An advert that says what the last one said costs no parsing, and counts for all that an advert counts for."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from broker.domain.errors import Malformed, UntrustedMessage
from broker.kit import jose
from broker.service import adverts
from broker.service.adverts import Adverts
from broker.wire.base import price
from broker.wire.leases import LeaseState
from broker.wire.offers import Advert, AdvertisedOffer, InventoryCounts
from tests.world import ADMIN, START, Agent, World, devices, offer, pair, wish


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the offers that were read closely."""
    found: list[str] = []

    class Counting(AdvertisedOffer):
        @classmethod
        def model_validate_json(cls, *args: Any, **how: Any) -> Any:
            made = AdvertisedOffer.model_validate_json(*args, **how)
            found.append(made.name)
            return made

    monkeypatch.setattr(adverts, "AdvertisedOffer", Counting)
    return found


def said(*offers: AdvertisedOffer, **fields: Any) -> bytes:
    """An advert's bytes as an agent writes them."""
    whole = {"cluster": "b", "sequence": 1, "sent_at": START, "valid_until": START, **fields}
    return Advert(**whole, offers=offers).model_dump_json().encode()


async def test_an_unchanged_advert_is_not_read_again_and_counts_all_the_same(here: World, read: list[str]) -> None:
    mine = offer(devices("n1")), offer(devices("n2"), name="dear", price="5.00")
    lender, _ = await pair(here, *mine)
    read.clear()
    here.clock.advance(seconds=20)
    heard = await lender.advertise(*mine, sequence=70)
    assert (heard.applied, heard.sequence, read) == (True, 70, [])
    now = here.clock()
    stands = await here.store.read(lambda unit: unit.clusters.find("b"))
    assert stands is not None
    assert (stands.advert_sequence, stands.last_seen_at, stands.valid_until) == (70, now, now + timedelta(minutes=1))

    heard = await lender.advertise(*mine, sequence=71, sent_at=now - timedelta(minutes=1))
    assert not heard.clock_safe, "its clock is measured"
    assert not (await lender.advertise(*mine, sequence=71)).applied, "a replay is one"
    assert read == []


async def test_of_a_changed_advert_only_what_changed_is_read(here: World, read: list[str]) -> None:
    mine = offer(devices("n1")), offer(devices("n2"), name="dear", price="5.00"), offer(devices("n3"), name="third")
    lender, _ = await pair(here, *mine)
    read.clear()
    before = await here.store.read(lambda unit: unit.revision)
    await lender.advertise(mine[0], offer(devices("n2", each=5), name="dear", price="5.00"), mine[2])
    assert read == ["dear"]
    assert {view.name: view.devices for view in (await here.broker.offers(ADMIN)).items} == {
        "h100": 8,
        "dear": 5,
        "third": 8,
    }
    entries = await here.store.read(lambda unit: unit.log.after(before, most=10))
    assert [entry.type for entry in entries] == ["offer.changed"]


async def test_an_offer_that_comes_back_with_the_same_bytes_is_on_offer_again(here: World) -> None:
    mine = offer(devices("n1")), offer(devices("n2"), name="dear")
    lender, _ = await pair(here, *mine)
    await lender.advertise(mine[0])
    await lender.advertise(*mine)
    assert {view.name: view.devices for view in (await here.broker.offers(ADMIN)).items} == {"h100": 8, "dear": 8}


async def test_what_the_store_lost_is_written_again_though_the_advert_is_the_same(here: World, read: list[str]) -> None:
    """A cluster that was removed and joins again; a database that was restored: the store alone knows what is there."""
    lender, _ = await pair(here, offer(devices("n1")))
    await here.broker.remove_cluster(ADMIN, "b")
    assert (await here.broker.offers(ADMIN)).items == []
    again = await here.agent("b")
    read.clear()
    await again.advertise(offer(devices("n1")), sequence=90)
    assert read == ["h100"], "once, because the store has it no more"
    assert [view.devices for view in (await here.broker.offers(ADMIN)).items] == [8]
    assert lender.cluster == again.cluster


async def test_an_unchanged_advert_ends_a_quarantine(here: World) -> None:
    lender, borrower = await pair(here, offer(devices("n1")))
    user = await here.user("team-a")
    await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    here.clock.advance(minutes=1)
    await here.broker.find_silent()
    expires = (await here.broker.lease(user, lease)).expires_at
    assert expires is not None
    here.clock.at = expires + timedelta(seconds=54)
    await here.broker.expire()
    await lender.report(resync=True)
    await lender.advertise(offer(devices("n1")))
    assert (await here.broker.lease(user, lease)).state is LeaseState.ORPHANED, "idle, but too early"
    here.clock.advance(seconds=1)
    await here.broker.expire()
    assert (await here.broker.lease(user, lease)).state is LeaseState.QUARANTINED
    await lender.advertise(offer(devices("n1")))
    assert (await here.broker.lease(user, lease)).state is LeaseState.ENDED


async def test_a_cluster_that_joined_again_is_heard_under_its_new_key_alone(here: World) -> None:
    lender, _ = await pair(here)
    again = await Agent(here, "b", "team-b").join()
    await again.report(resync=True)
    assert (await again.advertise(offer(devices("n1")))).applied
    with pytest.raises(UntrustedMessage):
        await lender.advertise(offer(devices("n1", each=2)), sequence=99)
    assert [view.devices for view in (await here.broker.offers(ADMIN)).items] == [8]


HEAD = b'{"cluster":"b","sequence":1,"sent_at":"2026-11-23T12:00:00Z","valid_until":"2026-11-23T12:00:00Z"'
GOOD = offer(devices("n1", each=2)).model_dump_json().encode()
OTHER = offer(devices("n2", each=2), name="other").model_dump_json().encode()
NESTED = offer(devices("n1", each=1)).model_copy(
    update={"kind": offer([]).kind.model_copy(update={"attributes": {"x": {"list": [{"a": 1}, {"name": "y"}]}}})}
)


@pytest.mark.parametrize(
    "payload",
    [
        said(),
        said(offer(devices("n1")), offer(devices("n2"), name="other")),
        said(NESTED, offer([], name="none")),
        said(offer(devices("n1")), counts=InventoryCounts(total=8, free=8)),
        json.dumps(json.loads(said(offer(devices("n1")), offer([], name="other"))), indent=1).encode(),
        HEAD + b"}",
        HEAD + b',"offers":[' + GOOD + b"]}",
        HEAD + b',"offers":[' + GOOD + b'],"offers":[' + OTHER + b'],"counts":{"total":3}}',
        HEAD + b',"offers":[],"counts":{"total":1},"offers":[' + OTHER + b'],"counts":{"total":3}}',
        HEAD + b',"offers":[' + GOOD + b'],"counts":{"total":3},"offers":[' + OTHER + b"]}",
        HEAD + b',"counts":{"total":3},"offers":[' + GOOD + b"," + OTHER + b"]}",
        HEAD + b',"offers":[' + GOOD + b",\n" + OTHER + b'],"counts":{"total":3}}',
        HEAD + b',"offers":[' + GOOD + b"" + OTHER + b'],"counts":{"total":3}}',
        HEAD + b',"offers":[' + GOOD + b'},{"name":"x"],"counts":{}}',
        HEAD + b',"offers":[' + GOOD + b'],"counts":{}},{"name":"x"],"counts":{}}',
        HEAD + b',"offers":[' + b",".join([GOOD] * 600) + b'],"counts":{}}',
        HEAD.replace(b'"b"', b'"\\"offers\\":["') + b',"offers":[],"counts":{}}',
        b'{"cluster":' + HEAD + b',"offers":[],"counts":{}}}',
        b'["offers":[],"counts":{}]',
        b'"offers":[],"counts":{',
        b"",
    ],
)
def test_an_advert_means_the_same_in_pieces_as_in_one(payload: bytes) -> None:
    """Also the second time, when the pieces are known."""
    reader = Adverts()
    try:
        whole = Advert.model_validate_json(payload)
        if len({each.name for each in whole.offers}) != len(whole.offers):
            raise ValueError("the same name twice")
    except (ValidationError, ValueError):
        for _ in range(2):
            with pytest.raises(Malformed):
                reader.read(payload, cluster="b")
        return
    for _ in range(2):
        found = reader.read(payload, cluster="b")
        assert found.advert == whole.model_copy(update={"offers": ()})
        assert {name: found.row(name, START).body for name in found.digests} == {
            each.name: each.model_dump_json() for each in whole.offers
        }
        assert {name: found.row(name, START).digest for name in found.digests} == found.digests
        assert found.refs("b") == {device.ref("b") for each in whole.offers for device in each.devices}


def test_known_bytes_do_not_vouch_for_another_name() -> None:
    """Two offers of one name are refused, known or not."""
    reader = Adverts()
    reader.read(HEAD + b',"offers":[' + GOOD + b'],"counts":{}}', cluster="b")
    with pytest.raises(Malformed, match="two offers named h100"):
        reader.read(HEAD + b',"offers":[' + GOOD + b"," + GOOD + b'],"counts":{}}', cluster="b")


def test_a_dearer_price_is_seen_in_bytes_that_differ_in_one_digit() -> None:
    reader = Adverts()
    reader.read(said(offer(devices("n1"), price="2.00")), cluster="b")
    found = reader.read(said(offer(devices("n1"), price="2.01")), cluster="b")
    told = AdvertisedOffer.model_validate_json(found.row("h100", START).body)
    assert told.price == price(2_010_000)


def test_a_message_is_believed_only_under_its_own_key() -> None:
    mine, theirs = jose.SigningKey.generate(), jose.SigningKey.generate()
    token = mine.sign(b"{}", typ=jose.ADVERT)
    for _ in range(2):
        assert jose.verify(token, typ=jose.ADVERT, jwks=[theirs.public_jwk(), mine.public_jwk()]) == b"{}"
        with pytest.raises(jose.BadSignature):
            jose.verify(token, typ=jose.ADVERT, jwks=[theirs.public_jwk()])
