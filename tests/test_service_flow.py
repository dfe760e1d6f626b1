"""The way of a request through the broker: asked, placed, held, signed, mirrored, given back."""

from __future__ import annotations

import json

from broker.kit import jose
from broker.wire.leases import Ending, LeaseState
from broker.wire.requests import RequestState, Step
from tests.world import World, devices, offer, pair, wish


async def test_a_request_becomes_a_signed_lease_that_both_sides_mirror_and_that_ends_when_returned(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")

    placed = await here.submitted(user, wish())
    assert (placed.state, placed.step) == (RequestState.PLACED, Step.RESERVED)
    assert placed.placement is not None
    assert placed.placement.cost.amount == 8 * 2_000_000

    (wanted,) = await lender.desired()
    assert (wanted.role, wanted.want, len(wanted.lease.devices)) == ("lender", "held", 8)
    assert len({device.node for device in wanted.lease.devices}) == 1
    assert wanted.peer_sealing_key is not None
    assert await borrower.desired() == []

    await lender.say("held", sealed_credential="for A only", credential_serial=1)
    (theirs,) = await borrower.desired()
    assert (theirs.role, theirs.want, theirs.sealed_credential) == ("borrower", "lent", "for A only")
    payload = json.loads(jose.verify(theirs.token or "", typ=jose.LEASE, jwks=here.broker.jwks()["keys"]))
    assert payload["jti"] == wanted.id
    assert payload["exp"] == payload["iat"] + 3600
    assert (await here.broker.request(user, placed.id)).step is Step.ACTIVE

    await lender.say("lent")
    await borrower.say("mirrored", role="borrower")
    assert (await here.broker.request(user, placed.id)).step is Step.MIRRORED
    lease = await here.broker.lease(user, wanted.id)
    assert (lease.state, lease.mirrored.lender, lease.mirrored.borrower) == (LeaseState.ACTIVE, True, True)
    assert (await here.broker.offers(user)).items[0].devices == 8

    here.clock.advance(minutes=30)
    returned = await here.broker.return_lease(user, wanted.id)
    assert (returned.state, returned.ending) == (LeaseState.DRAINING, Ending.RETURNED)
    assert [each.want for each in await lender.desired()] == ["gone"]
    assert [each.want for each in await borrower.desired()] == ["gone"]
    assert (await here.broker.offers(user)).items[0].devices == 8

    await lender.say("released")
    await borrower.say("gone", role="borrower")
    ended = await here.broker.lease(user, wanted.id)
    assert (ended.state, ended.ending) == (LeaseState.ENDED, Ending.RETURNED)
    assert ended.cost.amount == 8 * 1_000_000
    assert (await here.broker.request(user, placed.id)).state is RequestState.CLOSED
    assert await lender.desired() == await borrower.desired() == []
    await lender.advertise(offer(devices("n1", "n2")))
    assert (await here.broker.offers(user)).items[0].devices == 16
