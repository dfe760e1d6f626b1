"""Leases as their parties use them, time's part in it, and the watches that tell everybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from broker.chores import Chores
from broker.domain.access import Once
from broker.domain.errors import BadTerms, BudgetExhausted, Conflict, IllegalTransition, MissingScope, TooOld, WasSilent
from broker.domain.rules import Rules
from broker.kit import jose
from broker.service.answers import Change
from broker.service.placing import Round
from broker.wire.agents import LeaseReport
from broker.wire.burst import BurstPolicySpec
from broker.wire.leases import LeaseState, LeaseView, Reclaim, Renewal, Revocation
from broker.wire.requests import RequestState, Step
from tests.world import ADMIN, Agent, World, devices, offer, pair, wish, world


def renewal(text: str) -> Renewal:
    return Renewal.model_validate({"duration": text})


async def lent(here: World, **terms: str) -> tuple[Agent, Agent, str]:
    """An active lease of an hour, mirrored on both sides."""
    lender, borrower = await pair(here, offer(devices("n1", "n2"), **terms))
    await here.submitted(await here.user("team-a"), wish())
    return lender, borrower, await here.lend(lender, borrower)


def claims(view: LeaseView, here: World) -> dict[str, object]:
    signed: dict[str, object] = json.loads(
        jose.verify(view.token or "", typ=jose.LEASE, jwks=here.broker.jwks()["keys"])
    )
    return signed


async def test_a_renewal_is_signed_anew_and_never_passes_the_lenders_maximum(here: World) -> None:
    lender, borrower, lease = await lent(here, max_duration="90m")
    user = await here.user("team-a")
    here.clock.advance(minutes=30)
    view = await here.broker.renew(user, lease, renewal("45m"))
    assert view.expires_at == here.clock() + timedelta(minutes=45)
    assert (view.generation, claims(view, here)["generation"]) == (2, 2)
    assert claims(view, here)["exp"] == int(view.expires_at.timestamp())
    assert {each.generation for each in (*await lender.desired(), *await borrower.desired())} == {2}
    most = await here.broker.renew(user, lease, renewal("24h"))
    assert most.active_at is not None
    assert most.expires_at == most.active_at + timedelta(minutes=90)
    with pytest.raises(BadTerms, match="nothing to gain"):
        await here.broker.renew(user, lease, renewal("24h"))


async def test_a_renewal_stays_within_what_the_request_and_its_policy_allow(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    await here.submitted(user, wish(total_cap={"amount": "20.00"}))
    lease = await here.lend(lender, borrower)
    with pytest.raises(BudgetExhausted, match=r"total_cap is \$20\.00"):
        await here.broker.renew(user, lease, renewal("90m"))
    assert (await here.broker.renew(user, lease, renewal("70m"))).cost.amount == 18_666_667

    spec = {"tiers": [{"name": "any", "price_cap": {"amount": "3.00"}}], "max_duration": "2h"}
    await here.broker.put_burst_policy(user, "a", "nights", BurstPolicySpec.model_validate(spec))
    asked = await here.submitted(user, wish(policy="nights"))
    assert asked.lease is not None
    await lender.say("held", asked.lease)
    with pytest.raises(BadTerms, match="allows 2h at most"):
        await here.broker.renew(user, asked.lease, renewal("3h"))


async def test_a_retried_renewal_renews_once(here: World) -> None:
    _, _, lease = await lent(here)
    user = await here.user("team-a")
    once = Once(key="more", fingerprint="same")
    first = await here.broker.renew(user, lease, renewal("2h"), once)
    here.clock.advance(minutes=5)
    assert await here.broker.renew(user, lease, renewal("2h"), once) == first
    assert (await here.broker.lease(user, lease)).generation == 2


async def test_a_reclaim_warns_both_sides_and_takes_back_after_the_notice(here: World) -> None:
    lender, borrower, lease = await lent(here, reclaim_notice="5m", minimum_runtime="20m")
    landlord = await here.user("team-b")
    here.clock.advance(minutes=5)
    view = await here.broker.reclaim(landlord, lease, Reclaim(reason="our own training run"))
    assert view.state is LeaseState.ACTIVE
    for agent in (lender, borrower):
        (each,) = await agent.desired()
        assert (each.want, each.ending, each.drain_from) == ("lent", "reclaimed", here.clock() + timedelta(minutes=15))
    with pytest.raises(Conflict, match="taken back"):
        await here.broker.renew(await here.user("team-a"), lease, renewal("2h"))
    here.clock.advance(minutes=15, seconds=-1)
    await here.broker.expire()
    assert (await here.broker.lease(landlord, lease)).state is LeaseState.ACTIVE
    here.clock.advance(seconds=1)
    await here.broker.expire()
    ended = await here.broker.lease(landlord, lease)
    assert (ended.state, ended.ending, ended.message) == (LeaseState.DRAINING, "reclaimed", "our own training run")


async def test_an_administrator_ends_a_lease_at_once(here: World) -> None:
    lender, borrower, lease = await lent(here)
    view = await here.broker.revoke(ADMIN, lease, Revocation(reason="key lost"))
    assert (view.state, view.ending, view.message) == (LeaseState.DRAINING, "revoked", "key lost")
    assert [each.want for each in (*await lender.desired(), *await borrower.desired())] == ["gone", "gone"]
    with pytest.raises(IllegalTransition):
        await here.broker.revoke(ADMIN, lease, Revocation(reason="again"))


async def test_returning_twice_is_fine_and_counts_once(here: World) -> None:
    lender, _, lease = await lent(here)
    user = await here.user("team-a")
    first = await here.broker.return_lease(user, lease)
    here.clock.advance(minutes=9)
    assert await here.broker.return_lease(user, lease) == first
    await lender.say("released")
    assert (await here.broker.return_lease(user, lease)).state is LeaseState.ENDED


async def test_a_lease_expires_by_itself_and_costs_its_whole_time(here: World) -> None:
    lender, borrower, lease = await lent(here)
    user = await here.user("team-a")
    due = await here.broker.expire()
    assert due == here.clock() + timedelta(hours=1)
    here.clock.advance(hours=1)
    await here.broker.expire()
    view = await here.broker.lease(user, lease)
    assert (view.state, view.ending) == (LeaseState.DRAINING, "expired")
    await lender.say("released")
    await borrower.say("gone", role="borrower")
    ended = await here.broker.lease(user, lease)
    assert (ended.state, ended.cost.amount) == (LeaseState.ENDED, 8 * 2_000_000)
    assert (await here.broker.request(user, ended.request)).state is RequestState.CLOSED


async def test_many_leases_expire_together(here: World) -> None:
    lender, _ = await pair(here, offer(devices("n1", "n2", "n3", "n4")))
    user = await here.user("team-a")
    for _ in range(32):
        await here.broker.submit(user, wish(count=1))
    assert len((await here.broker.place()).placed) == 32
    for each in await lender.desired():
        await lender.say("held", each.id)
    here.clock.advance(hours=1)
    assert await here.broker.expire() is not None  # the quarantine, should the lender never answer
    states = {view.state for view in (await here.broker.leases(user, limit=100)).items}
    assert states == {LeaseState.DRAINING}


async def test_rules_that_changed_while_the_broker_was_away_hold_for_what_it_finds(database_url: str) -> None:
    async with world(database_url, rules=Rules(hold=timedelta(seconds=60))) as first:
        await pair(first)
        await first.submitted(await first.user("team-a"), wish())
    longer = Rules(hold=timedelta(seconds=60), drain=timedelta(seconds=600))
    first.clock.advance(seconds=60)
    async with world(database_url, clock=first.clock, ids=first.broker.ids) as second:
        await second.broker.expire()
        first.clock.advance(seconds=55)
    async with world(database_url, clock=first.clock, ids=first.broker.ids, rules=longer) as third:
        due = await third.broker.expire()
        assert due == first.clock() + timedelta(seconds=570)
        assert (await third.broker.leases(ADMIN)).items[0].state is LeaseState.DRAINING


async def test_the_log_tells_the_whole_story_and_nothing_secret(here: World) -> None:
    lender, _, lease = await lent(here)
    await here.broker.return_lease(await here.user("team-a"), lease)
    await lender.say("released")
    entries = await here.store.read(lambda unit: unit.log.after(0, most=1_000))
    story = [entry.type for entry in entries if entry.lease == lease]
    assert story == [
        "lease.reserved",
        "lease.prepared",
        "lease.active",
        "lease.mirrored",
        "lease.mirrored",
        "lease.draining",
        "lease.ended",
    ]
    assert {entry.subject for entry in entries if entry.type == "lease.active"} == {"cluster:b"}
    text = " ".join(entry.data for entry in entries)
    assert "sealed" not in text
    assert lender.credential not in text


# --- watches -------------------------------------------------------------------------------------------------------


async def take(stream: AsyncIterator[Change], until: str) -> list[Change]:
    """Changes up to the first of that type."""
    got: list[Change] = []
    async with asyncio.timeout(20):
        async for change in stream:
            got.append(change)
            if change.type == until:
                return got
    raise AssertionError("the stream ended")


async def test_a_watch_tells_every_change_that_is_yours_and_no_other(here: World) -> None:
    lender, _ = await pair(here)
    user, stranger = await here.user("team-a"), await here.user("team-z")
    mine = here.broker.changes(user, "leases", 0)
    theirs = asyncio.create_task(take(here.broker.changes(stranger, "leases", 0), "lease.active"))
    asked = await here.submitted(user, wish())
    (first,) = await take(mine, "lease.reserved")
    assert (first.object.id, first.object.state) == (asked.lease, LeaseState.RESERVED)
    await lender.say("held")
    changes = await take(mine, "lease.active")
    assert changes[-1].object.token is not None
    assert changes[-1].revision > first.revision
    assert not theirs.done()
    theirs.cancel()
    await asyncio.gather(theirs, return_exceptions=True)


async def test_a_watch_resumes_where_it_was_left(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    asked = await here.submitted(user, wish())
    first = (await take(here.broker.changes(user, "requests", 0), "request.placed"))[-1]
    await here.lend(lender, borrower)
    resumed = await take(here.broker.changes(user, "requests", first.revision), "lease.mirrored")
    assert all(change.revision > first.revision for change in resumed)
    assert resumed[-1].object.id == asked.id
    assert resumed[-1].object.step is Step.MIRRORED


async def test_agents_hear_what_is_wanted_of_them(here: World) -> None:
    lender, borrower = await pair(here)
    at = (await here.broker.desired(lender.principal)).revision
    await here.submitted(await here.user("team-a"), wish())
    (told,) = await take(here.broker.changes(lender.principal, "desired", at), "lease.reserved")
    assert (told.object.role, told.object.want) == ("lender", "held")
    await lender.say("held")
    told = (await take(here.broker.changes(borrower.principal, "desired", at), "lease.active"))[-1]
    assert (told.object.role, told.object.want) == ("borrower", "lent")
    with pytest.raises(MissingScope):
        await anext(here.broker.changes(ADMIN, "desired", 0))


async def test_an_agent_that_was_silent_is_told_to_say_first_how_things_stand(here: World) -> None:
    lender, borrower, lease = await lent(here)
    at = (await here.broker.desired(lender.principal)).revision
    stream = here.broker.changes(lender.principal, "desired", at)
    here.clock.advance(seconds=50)
    await borrower.report()
    assert await here.broker.find_silent() == ["b"]
    with pytest.raises(WasSilent, match="resync"):
        await take(stream, "nothing")
    fence = (await lender.desired())[0].lease.devices[0].fence
    line = LeaseReport(lease=lease, role="lender", generation=1, phase="lent", fence=fence)
    await lender.report(line, resync=True)
    at = (await here.broker.desired(lender.principal)).revision
    told = asyncio.create_task(take(here.broker.changes(lender.principal, "desired", at), "lease.draining"))
    await here.broker.return_lease(await here.user("team-a"), lease)
    assert (await told)[-1].object.want == "gone"


async def test_a_lender_that_drains_by_itself_is_believed(here: World) -> None:
    lender, borrower, lease = await lent(here)
    await lender.say("draining", reason="node is going down")
    view = await here.broker.lease(ADMIN, lease)
    assert (view.state, view.ending, view.message) == (LeaseState.DRAINING, "lost", "node is going down")
    assert [each.want for each in await borrower.desired()] == ["gone"]


async def test_watchers_of_offers_hear_of_adverts_leases_and_withdrawals(here: World) -> None:
    lender, _ = await pair(here)
    user = await here.user("team-a")
    stream = here.broker.changes(user, "offers", 0)
    assert (await take(stream, "offer.new"))[-1].object.devices == 16
    await here.submitted(user, wish())
    assert (await take(stream, "lease.reserved"))[-1].object.devices == 8
    await lender.advertise()
    assert (await take(stream, "offer.withdrawn"))[-1].object.devices == 0


async def test_a_watch_from_before_what_is_kept_is_told_to_list_again(here: World) -> None:
    await pair(here)
    here.clock.advance(days=8)
    await here.broker.forget()
    user = await here.user("team-a")
    # As after a restart: what this process remembers in memory doesn't reach back either.
    here.broker.feed._recent.clear()
    with pytest.raises(TooOld, match="list again"):
        await anext(here.broker.changes(user, "offers", 0))
    with pytest.raises(TooOld):
        await anext(here.broker.changes(user, "offers", 10_000))


@pytest.mark.postgres
async def test_watchers_hear_of_what_another_broker_wrote(postgres_url: str) -> None:
    async with world(postgres_url) as one, world(postgres_url, ids=one.broker.ids, clock=one.clock) as two:
        lender, _ = await pair(one)
        user = await one.user("team-a")
        seen = asyncio.create_task(take(two.broker.changes(user, "leases", 0), "lease.active"))
        await one.submitted(user, wish())
        await lender.say("held")
        assert (await seen)[-1].object.state is LeaseState.ACTIVE


@pytest.mark.postgres
async def test_a_revocation_counts_at_the_other_broker_too(postgres_url: str) -> None:
    from broker.domain.errors import Unauthenticated
    from broker.wire.access import TokenRequest

    async with world(postgres_url) as one, world(postgres_url, ids=one.broker.ids, clock=one.clock) as two:
        made = await one.broker.create_token(
            ADMIN, TokenRequest.model_validate({"name": "x", "tenant": "team-a", "scopes": ["read"]})
        )
        await two.broker.feed.after(0)
        await two.broker.authenticate(made.secret)
        revoked = await one.broker.revoke_token(ADMIN, made.id)
        assert revoked.revoked_at is not None
        heard = two.broker.feed.after(await one.store.read(lambda unit: unit.revision) - 1)
        async with asyncio.timeout(20):
            await heard
        with pytest.raises(Unauthenticated):
            await two.broker.authenticate(made.secret)


# --- chores --------------------------------------------------------------------------------------------------------


async def test_the_chores_place_and_expire_by_themselves(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    chores = Chores(here.broker)
    async with chores.running():
        await here.broker.submit(user, wish())
        await take(here.broker.changes(user, "leases", 0), "lease.reserved")
        lease = await here.lend(lender, borrower)
        at = here.broker.feed.last
        here.clock.advance(hours=1)
        chores.expiry.nudge()  # its own alarm is set by a clock that stands still here
        ended = (await take(here.broker.changes(user, "leases", at), "lease.draining"))[-1].object
        assert (ended.id, ended.ending) == (lease, "expired")


async def test_requests_that_come_together_are_thought_about_together(here: World) -> None:
    await pair(here)
    user = await here.user("team-a")
    rounds: list[Round] = []
    answered = asyncio.Event()

    def placed(round_: Round) -> None:
        rounds.append(round_)
        if sum(len(each.placed) for each in rounds) == 16:
            answered.set()

    async with Chores(here.broker, placed=placed).running():
        await asyncio.gather(*(here.broker.submit(user, wish(count=1)) for _ in range(16)))
        await answered.wait()
    assert len(rounds) < 16
