"""The API as its callers meet it: a whole broker over real HTTPS, on both databases where that can differ."""

import asyncio
import base64
import json
import os
import ssl
import stat
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import pytest
import structlog

from broker.app import running
from broker.domain.access import LEND, READ, REQUEST
from broker.kit.jose import ADVERT, LEASE, verify
from broker.store.database import BadDatabase
from broker.web import examples
from broker.web.call import ANYBODY, OPEN, Signed
from broker.web.routes import ROUTES
from tests.api_world import H100, Caller, World, settings, world
from tests.web_room import Events

EIGHT = {
    "cluster": "team-a",
    "devices": {"count": 8, "selector": f"device.attributes['gpu.nvidia.com'].productName == '{H100}'"},
    "duration": "1h",
    "price_cap": {"amount": "2.50"},
    "wait": "10m",
}


@pytest.fixture
async def broker(tmp_path):
    """A broker on its embedded default, and an administrator."""
    async with world(settings(tmp_path)) as found:
        yield found


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def either(request, tmp_path):
    """The same on SQLite and on PostgreSQL."""
    more = {} if request.param == "sqlite" else {"database_url": request.getfixturevalue("postgres_url")}
    async with world(settings(tmp_path, **more)) as found:
        yield found


@asynccontextmanager
async def watching(caller, path, **headers):
    async with caller.open("GET", path, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        events = Events(answer)
        assert await events.comment() == "watching"
        yield events


async def until(events: Events, condition) -> dict:
    """The first object on a stream that fits."""
    async with asyncio.timeout(20):
        while True:
            event = await events.next()
            assert event["event"] != "refused", event
            if condition(found := json.loads(event["data"])):
                return found


async def lent(broker: World, *, agents_at: World | None = None, terms: Any = None, body: Any = None):
    """A lease that is active: (borrower's person, lender's agent, borrower's agent, lease)."""
    person = await broker.person("blue", READ, REQUEST)
    borrower = await (agents_at or broker).agent("team-a", tenant="blue")
    lender = await (agents_at or broker).agent("team-b", tenant="green")
    for agent in (borrower, lender):
        await agent.is_ready()
    await lender.says("/v1/agent/advert", lender.advert(12, terms=terms))
    async with watching(person, "/v1/requests/watch") as requests:
        asked = await person.post("/v1/requests", body or EIGHT)
        placed = await until(requests, lambda view: view["id"] == asked["id"] and view["state"] != "Open")
        assert placed["state"] == "Placed", placed
    async with watching(lender, "/v1/agent/watch?after=0") as orders:
        desired = await until(orders, lambda order: order["want"] == "held")
    held = {"lease": desired["id"], "role": "lender", "generation": desired["generation"], "phase": "held"}
    fence = max(device["fence"] for device in desired["lease"]["devices"])
    await lender.says("/v1/agent/report", lender.report({**held, "fence": fence}))
    lease = await person.get(f"/v1/leases/{desired['id']}")
    assert lease["state"] == "Active", lease
    return person, lender, borrower, lease


# --- the flow ---------------------------------------------------------------------------------------------


async def test_a_request_becomes_a_signed_lease_is_mirrored_and_comes_back(either):
    broker = either
    person, lender, borrower, lease = await lent(broker)

    jwks = await broker.nobody().get("/.well-known/jwks.json")
    claims = json.loads(verify(lease["token"], typ=LEASE, jwks=jwks["keys"]))
    assert claims["iss"] == broker.running.url
    assert (claims["jti"], claims["sub"], claims["aud"]) == (lease["id"], "team-a", ["team-b", "team-a"])
    assert len(claims["lease"]["devices"]) == 8

    (offer,) = (await person.get("/v1/offers"))["items"]
    assert offer["devices"] == 4

    wanted = {agent.name: (await agent.get("/v1/agent/desired"))["leases"][0] for agent in (lender, borrower)}
    assert [(each["role"], each["want"]) for each in wanted.values()] == [("lender", "lent"), ("borrower", "lent")]
    fence = claims["lease"]["devices"][0]["fence"]
    for agent, phase in ((lender, "lent"), (borrower, "mirrored")):
        each = wanted[agent.name]
        told = {"lease": each["id"], "role": each["role"], "generation": each["generation"], "phase": phase}
        await agent.says("/v1/agent/report", agent.report({**told, "fence": fence}))
    assert (await person.get(f"/v1/requests/{lease['request']}"))["step"] == "mirrored"
    assert (await person.get(f"/v1/leases/{lease['id']}"))["mirrored"] == {"lender": True, "borrower": True}

    async with watching(lender, "/v1/agent/watch") as orders:
        returned = await person.post(f"/v1/leases/{lease['id']}/return")
        assert returned["state"] == "Draining"
        gone = await until(orders, lambda order: order["want"] == "gone")
    told = {"lease": gone["id"], "role": "lender", "generation": gone["generation"], "phase": "released"}
    await lender.says("/v1/agent/report", lender.report({**told, "fence": fence}))
    ended = await person.get(f"/v1/leases/{lease['id']}")
    assert (ended["state"], ended["ending"]) == ("Ended", "returned")
    assert (await person.get("/v1/offers"))["items"][0]["devices"] == 12


async def test_a_quote_answers_like_a_request_and_leaves_nothing_behind(broker):
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    lender = await broker.agent("team-b", tenant="green")
    await lender.is_ready()
    await lender.says("/v1/agent/advert", lender.advert(8))
    quote = await person.post("/v1/quotes", EIGHT)

    assert quote["placement"]["cost"]["amount"] == "16.00"
    assert (await person.get("/v1/requests"))["items"] == []
    assert (await person.get("/v1/offers"))["items"][0]["devices"] == 8
    assert (await person.call("GET", f"/v1/requests/{quote['id']}")).is_problem(404)


async def test_what_does_not_fit_is_refused_with_reasons_as_data(broker):
    person, *_ = await lent(broker)
    async with watching(person, "/v1/requests/watch") as requests:
        asked = await person.post("/v1/requests", {**EIGHT, "wait": "0s"})
        refused = await until(requests, lambda view: view["id"] == asked["id"] and view["state"] != "Open")
    assert refused["state"] == "Refused"
    assert refused["reasons"][0]["reason"]
    assert refused["message"]


# --- who may do what --------------------------------------------------------------------------------------


def call_of(route, ids: dict[str, str]):
    """(path, body) of a good call of ``route`` about the objects in ``ids``."""
    path = route.path
    for name in route.segments:
        path = path.replace("{" + name + "}", ids[name])
    body = "e30.e30.e30" if route.body is Signed else examples.BODIES.get(route.name)
    return path, body


NOWHERE = {"request": "req-x", "lease": "lse-x", "offer": "ofr-x", "cluster": "team-x", "policy": "p", "token": "tok-x"}


@pytest.mark.parametrize("secret", [None, "lmt_" + "0" * 43, "lmc_" + "0" * 43, "lmj_" + "0" * 43])
async def test_without_a_good_credential_every_route_but_the_open_ones_is_401(broker, secret):
    caller = broker.nobody()
    caller.secret = secret
    for route in ROUTES:
        path, body = call_of(route, NOWHERE)
        answer = await caller.call(route.method, path, body)
        if route.needs == OPEN and route.name != "join":
            assert answer.status == 200, path
        else:
            assert answer.is_problem(401, "unauthenticated"), (route.method, path, answer.text)


async def test_a_token_can_only_do_what_its_scopes_say(broker):
    people = {scope: await broker.person("blue", scope) for scope in ("read", "request", "lend", "metrics", "admin")}
    agent = await broker.agent("team-a", tenant="blue")
    for route in ROUTES:
        if route.needs in (OPEN, ANYBODY):
            continue
        path, body = call_of(route, NOWHERE)
        for scope, caller in [*people.items(), ("agent", agent)]:
            may = scope == route.needs or (scope == "admin" and route.needs != "agent")
            may = may or (scope == "agent" and route.needs in ("read", "request", "lend"))
            if may and route.watch:
                continue
            answer = await caller.call(route.method, path, body)
            assert answer.is_problem(403, "missing-scope") != may, (scope, route.method, path, answer.text)


async def test_what_belongs_to_another_tenant_is_not_there(broker):
    """For every route with something in its path, and for every list and watch."""
    person, lender, _, lease = await lent(broker)
    await lender.says("/v1/agent/advert", lender.advert(12, price="1.00"))
    policy = examples.BODIES["put_burst_policy"]
    await (await broker.person("blue", REQUEST)).call("PUT", "/v1/burst-policies/team-a/overflow", policy)
    tokens = (await broker.admin.get("/v1/tokens"))["items"]
    ids = {
        "request": lease["request"],
        "lease": lease["id"],
        "offer": (await person.get("/v1/offers"))["items"][0]["id"],
        "cluster": "team-a",
        "policy": "overflow",
        "token": tokens[0]["id"],
    }
    stranger = await broker.person("red", READ, REQUEST, LEND)
    their_agent = await broker.agent("team-r", tenant="red")
    before = await everything(broker)
    for caller in (stranger, their_agent):
        for route in ROUTES:
            if not route.segments or route.name == "get_offer":  # this offer is open to every tenant
                continue
            path, body = call_of(route, ids)
            answer = await caller.call(route.method, path, body)
            assert answer.status in (403, 404), (route.method, path, answer.text)
            assert answer.is_problem(answer.status)
        for path in ("/v1/requests", "/v1/leases", "/v1/leases?cluster=team-a", "/v1/burst-policies"):
            assert (await caller.get(path))["items"] == [], path
        clusters = [each["name"] for each in (await caller.get("/v1/clusters"))["items"]]
        assert clusters == ["team-r"]
        for body in (EIGHT, {**EIGHT, "cluster": "team-b"}):
            for path in ("/v1/requests", "/v1/quotes"):
                answer = await caller.call("POST", path, body)
                assert answer.status in (403, 404), answer.text
    assert await everything(broker) == before


async def everything(broker: World) -> dict[str, str]:
    """All that an administrator sees, to show that nothing changed."""
    paths = ("/v1/requests", "/v1/leases", "/v1/clusters", "/v1/burst-policies", "/v1/tokens")
    return {path: (await broker.admin.get(path))["items"] for path in paths}


async def test_a_watch_shows_nothing_of_another_tenant(broker):
    stranger = await broker.person("red", READ)
    async with watching(stranger, "/v1/leases/watch") as leases, watching(stranger, "/v1/requests/watch") as requests:
        *_, lease = await lent(broker)
        agent = await broker.agent("team-r", tenant="red")
        await agent.is_ready()
        person = await broker.person("red", REQUEST)
        asked = await person.post("/v1/requests", {**EIGHT, "cluster": "team-r", "wait": "0s"})
        seen = await until(requests, lambda view: True)
        assert seen["id"] == asked["id"]
        assert lease["id"] not in json.dumps(seen)
        await broker.admin.post(f"/v1/leases/{lease['id']}/revoke", {"reason": "test"})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(leases.next(), 0.3)


async def test_an_offer_for_some_tenants_is_not_there_for_others(broker):
    await broker.agent("team-a", tenant="blue")
    guest, stranger = await broker.person("blue", READ, REQUEST), await broker.person("red", READ, REQUEST)
    lender = await broker.agent("team-b", tenant="green")
    await lender.is_ready()
    async with watching(guest, "/v1/offers/watch") as for_guest, watching(stranger, "/v1/offers/watch") as for_stranger:
        terms = {"max_duration": "24h", "allowed_borrowers": ["blue"]}
        await lender.says("/v1/agent/advert", lender.advert(8, terms=terms))
        offer = await until(for_guest, lambda view: view["devices"] == 8)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(for_stranger.next(), 0.3)
    assert (await guest.get(f"/v1/offers/{offer['id']}"))["id"] == offer["id"]
    assert (await stranger.call("GET", f"/v1/offers/{offer['id']}")).is_problem(404)
    assert (await stranger.get("/v1/offers"))["items"] == []


async def test_the_lender_may_reclaim_but_not_return_and_the_borrower_the_other_way_round(broker):
    person, *_, lease = await lent(broker)
    owner = await broker.person("green", READ, REQUEST, LEND)
    assert (await owner.get(f"/v1/leases/{lease['id']}"))["id"] == lease["id"]
    assert (await owner.call("POST", f"/v1/leases/{lease['id']}/return")).is_problem(404)
    assert (await owner.call("POST", f"/v1/leases/{lease['id']}/renew", {"duration": "2h"})).is_problem(404)
    borrowers = await broker.person("blue", READ, LEND)
    assert (await borrowers.call("POST", f"/v1/leases/{lease['id']}/reclaim", {})).is_problem(404)
    renewed = await person.post(f"/v1/leases/{lease['id']}/renew", {"duration": "2h"})
    assert renewed["expires_at"] > lease["expires_at"]


async def test_a_revoked_token_and_a_removed_cluster_are_refused_at_once(either):
    broker = either
    person = await broker.person("blue", READ)
    agent = await broker.agent("team-a", tenant="blue")
    (mine,) = [each for each in (await broker.admin.get("/v1/tokens"))["items"] if each["tenant"] == "blue"]
    async with watching(person, "/v1/leases/watch") as events:
        revoked = await broker.admin.call("DELETE", f"/v1/tokens/{mine['id']}")
        assert revoked.json["revoked_at"]
        assert (await person.call("GET", "/v1/me")).is_problem(401)
        assert (await events.next())["event"] == "refused"
    assert (await agent.call("GET", "/v1/me")).status == 200
    assert (await broker.admin.call("DELETE", "/v1/clusters/team-a")).status == 200
    assert (await agent.call("GET", "/v1/me")).is_problem(401)
    assert (await agent.call("PUT", "/v1/agent/advert", agent.advert(1))).is_problem(401)


# --- joining ----------------------------------------------------------------------------------------------


async def test_a_join_token_works_once_and_only_for_its_cluster(either):
    broker = either
    token = (await broker.admin.post("/v1/join-tokens", {"cluster": "team-b", "tenant": "green"}))["secret"]
    body = {**examples.BODIES["join"], "token": token}
    nobody = broker.nobody()
    assert (await nobody.call("POST", "/v1/join", {**body, "cluster": "team-x"})).is_problem(403, "not-your-cluster")
    first = await nobody.call("POST", "/v1/join", body, key="join-1")
    assert first.status == 201
    again = await nobody.call("POST", "/v1/join", body, key="join-1")
    assert again.json["credential"] == first.json["credential"]
    assert (await nobody.call("POST", "/v1/join", body)).is_problem(401)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "OKP", "crv": "X25519", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "short"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {},
    ],
    ids=["another curve", "small order", "too short", "symmetric", "nothing"],
)
async def test_a_key_that_is_no_good_does_not_join(broker, key):
    token = (await broker.admin.post("/v1/join-tokens", {"cluster": "team-b", "tenant": "green"}))["secret"]
    answer = await broker.nobody().call(
        "POST", "/v1/join", {**examples.BODIES["join"], "token": token, "signing_key": key}
    )
    assert answer.is_problem(422, "untrusted-message")
    assert (await broker.admin.get("/v1/clusters"))["items"] == []


async def test_an_agent_cannot_speak_for_another_cluster_nor_with_another_key(broker):
    agent = await broker.agent("team-a", tenant="blue")
    other = await broker.agent("team-b", tenant="green")
    assert (await agent.call("PUT", "/v1/agent/advert", agent.advert(8, cluster="team-b"))).is_problem(403)
    assert (await agent.call("PUT", "/v1/agent/advert", other.advert(8))).is_problem(422, "untrusted-message")
    assert (await agent.call("PUT", "/v1/agent/advert", agent.report())).is_problem(422, "untrusted-message")
    changed = agent.advert(8)
    assert (await agent.call("PUT", "/v1/agent/advert", changed[:-4] + "AAAA")).is_problem(422, "untrusted-message")
    assert (await broker.admin.get("/v1/offers"))["items"] == []


BAD_ADVERTS = {
    "an unknown field": {"prize": "2"},
    "no offers but a text": {"offers": "many"},
    "a device twice over": {"offers": [{"name": "x"}] * 600},
    "U+0000": {"offers": [{"name": "a\u0000b"}]},
    "a sequence beyond 63 bits": {"sequence": 1 << 63},
    "a name of half a megabyte": {"x" * (1 << 19): 1},
}


@pytest.mark.parametrize("what", BAD_ADVERTS)
async def test_a_signed_message_that_makes_no_sense_is_refused_shortly_and_changes_nothing(broker, what):
    agent = await broker.agent("team-b", tenant="green")
    await agent.is_ready()
    answer = await agent.call("PUT", "/v1/agent/advert", agent.advert(8, **BAD_ADVERTS[what]))
    assert answer.is_problem(422, "malformed"), answer.text[:500]
    assert len(answer.text) < 5_000
    assert (await broker.admin.get("/v1/offers"))["items"] == []
    assert (await agent.says("/v1/agent/advert", agent.advert(8)))["applied"]


async def test_an_advert_may_be_larger_than_other_bodies_but_not_without_end(broker):
    agent = await broker.agent("team-b", tenant="green")
    await agent.is_ready()
    large = agent.advert(10_000)
    assert 1 << 20 < len(large) < 4 << 20
    assert (await agent.call("PUT", "/v1/agent/advert", BytesIO(large.encode()))).json["applied"]
    too_large = BytesIO(agent.advert(0)[:-1].encode() + b"A" * (4 << 20))
    assert (await agent.call("PUT", "/v1/agent/advert", too_large)).is_problem(413)
    assert (await broker.admin.get("/v1/offers"))["items"][0]["devices"] == 10_000


async def test_what_an_agent_reports_is_kept_by_either_database_or_refused(either):
    agent = await either.agent("team-b", tenant="green")
    line = {"lease": "lse-x", "role": "lender", "generation": 1, "phase": "refused"}
    strange = await agent.call("PUT", "/v1/agent/report", agent.report({**line, "reason": "a\u0000b"}))
    assert strange.is_problem(422, "malformed")
    deep: dict = {}
    for _ in range(150):
        deep = {"a": deep}
    advert = json.loads(base64url(agent.advert(8).split(".")[1]))
    advert["offers"][0]["kind"]["attributes"] = {"x": deep}
    advert["offers"][0]["kind"]["model"] = "💾" * 64
    answer = await agent.call("PUT", "/v1/agent/advert", agent.signed(advert, typ=ADVERT))
    assert answer.status in (200, 422), answer.text
    assert (await either.admin.call("GET", "/v1/offers")).status == 200


def base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_a_message_heard_before_changes_nothing(broker):
    agent = await broker.agent("team-b", tenant="green")
    await agent.is_ready()
    old, new = agent.advert(8), agent.advert(4)
    assert (await agent.says("/v1/agent/advert", new))["applied"]
    for replay in (old, new):
        assert not (await agent.says("/v1/agent/advert", replay))["applied"]
    assert (await broker.admin.get("/v1/offers"))["items"][0]["devices"] == 4


# --- once -------------------------------------------------------------------------------------------------


async def test_the_same_key_and_body_have_one_effect_and_one_answer_also_at_once(either):
    broker = either
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    answers = await asyncio.gather(*(person.call("POST", "/v1/requests", EIGHT, key="wish-1") for _ in range(8)))

    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len((await person.get("/v1/requests"))["items"]) == 1


async def test_the_same_key_with_another_body_or_path_is_refused(broker):
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    await person.post("/v1/requests", EIGHT, key="wish-1")
    other = await person.call("POST", "/v1/requests", {**EIGHT, "duration": "2h"}, key="wish-1")
    assert other.is_problem(422, "idempotency-key-reused")
    elsewhere = await person.call("POST", "/v1/leases/lse-x/return", key="wish-1")
    assert elsewhere.is_problem(422, "idempotency-key-reused") or elsewhere.is_problem(404)
    assert len((await person.get("/v1/requests"))["items"]) == 1


async def test_a_key_is_its_callers_own(broker):
    await broker.agent("team-a", tenant="blue")
    people = [await broker.person("blue", READ, REQUEST) for _ in range(2)]
    ids = {(await person.post("/v1/requests", EIGHT, key="wish-1"))["id"] for person in people}
    assert len(ids) == 2


async def test_a_secret_is_shown_again_to_whoever_repeats_the_call_and_to_nobody_else(broker):
    body = {"name": "ci", "tenant": "blue", "scopes": ["read"]}
    one, again = [await broker.admin.post("/v1/tokens", body, key="token-1") for _ in range(2)]
    assert one["secret"] == again["secret"]
    assert one["secret"] not in json.dumps(await broker.admin.get("/v1/tokens"))


# --- lists and watches ------------------------------------------------------------------------------------


async def test_pages_give_everything_once_also_when_something_new_comes_between(either):
    broker = either
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    asked = [(await person.post("/v1/requests", EIGHT))["id"] for _ in range(5)]
    found, path = [], "/v1/requests?limit=2"
    while True:
        page = await person.get(path)
        assert len(page["items"]) <= 2
        found += [each["id"] for each in page["items"]]
        await person.post("/v1/requests", EIGHT)
        if page["cursor"] is None:
            break
        path = f"/v1/requests?limit=2&cursor={page['cursor']}"
    assert len(set(found)) == len(found)
    assert set(asked) <= set(found)


@pytest.mark.parametrize("cursor", ["!", "AAAA", "x" * 512, "4oKs", "Jycn", "JzsgZHJvcCB0YWJsZSBsZWFzZXM"])
async def test_a_cursor_nobody_gave_out_is_a_problem_or_an_empty_page(broker, cursor):
    for path in ("/v1/requests", "/v1/leases", "/v1/offers", "/v1/clusters", "/v1/tokens", "/v1/burst-policies"):
        answer = await broker.admin.call("GET", f"{path}?cursor={cursor}")
        assert answer.is_problem(422, "bad-cursor") or answer.json["items"] in ([], answer.json["items"]), path


async def test_a_watch_resumed_gets_exactly_what_it_missed(either):
    broker = either
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    async with watching(person, "/v1/requests/watch") as events:
        first = await person.post("/v1/requests", EIGHT)
        while json.loads((event := await events.next())["data"])["id"] != first["id"]:
            pass
    missed = [(await person.post("/v1/requests", EIGHT))["id"] for _ in range(3)]
    async with watching(person, "/v1/requests/watch", **{"Last-Event-ID": event["id"]}) as events:
        seen = []
        while not set(missed) <= set(seen):
            got = await events.next()
            assert int(got["id"]) > int(event["id"])
            seen.append(json.loads(got["data"])["id"])
    assert first["id"] not in seen or (await person.get(f"/v1/requests/{first['id']}"))["revision"] > int(event["id"])


async def test_list_then_watch_misses_nothing(broker):
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    listed = await person.get("/v1/requests")
    asked = await person.post("/v1/requests", EIGHT)
    async with watching(person, f"/v1/requests/watch?after={listed['revision']}") as events:
        assert json.loads((await events.next())["data"])["id"] == asked["id"]


async def test_a_watch_from_the_future_lists_again(broker):
    async with watching(broker.admin, "/v1/leases/watch?after=999999999") as events:
        last = await events.next()
    assert last["event"] == "refused"
    assert json.loads(last["data"])["type"].endswith("/too-old")


# --- bad input --------------------------------------------------------------------------------------------

BAD_REQUESTS = {
    "CEL that doesn't compile": {**EIGHT, "devices": {"count": 1, "selector": "device.attributes["}},
    "CEL that is no condition": {**EIGHT, "devices": {"count": 1, "selector": "1 + 1"}},
    "CEL about nothing we know": {**EIGHT, "devices": {"count": 1, "selector": "pod.name == 'x'"}},
    "no price cap": {key: value for key, value in EIGHT.items() if key != "price_cap"},
    "no duration": {**EIGHT, "duration": "0s"},
    "another currency": {**EIGHT, "price_cap": {"amount": "2", "currency": "EUR"}},
    "two tiers of one name": {**EIGHT, "tiers": [{"name": "t", "price_cap": {"amount": "1"}}] * 2},
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
async def test_a_request_that_makes_no_sense_is_refused_and_changes_nothing(broker, what):
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    for path in ("/v1/requests", "/v1/quotes"):
        answer = await person.call("POST", path, BAD_REQUESTS[what])
        assert answer.is_problem(422), answer.text
        assert len(answer.json["detail"]) < 600
    assert (await person.get("/v1/requests"))["items"] == []


async def test_a_duration_beyond_the_lenders_maximum_is_refused_with_that_reason(broker):
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    lender = await broker.agent("team-b", tenant="green")
    await lender.is_ready()
    await lender.says("/v1/agent/advert", lender.advert(8))
    quote = await person.post("/v1/quotes", {**EIGHT, "duration": "48h"})
    assert quote["state"] == "Refused"
    assert quote["reasons"][0]["reason"] == "too-long"
    assert {"duration": "1d"}.items() <= next(
        reason["change"] for reason in quote["reasons"] if reason["change"]
    ).items()


async def test_nothing_secret_is_logged_whatever_is_sent(broker):
    secrets = [broker.admin.secret]
    with structlog.testing.capture_logs() as lines:
        made = await broker.admin.post("/v1/tokens", {"name": "x", "tenant": "blue", "scopes": ["read"]})
        joining = await broker.admin.post("/v1/join-tokens", {"cluster": "team-b", "tenant": "green"})
        secrets += [made["secret"], joining["secret"]]
        body = {**examples.BODIES["join"], "token": joining["secret"]}
        joined = await broker.nobody().call("POST", "/v1/join", body)
        secrets.append(joined.json["credential"])
        await broker.nobody().call("POST", "/v1/join", {**body, "oops": joining["secret"]})
        await broker.admin.call("GET", f"/v1/offers?model={made['secret']}")
    written = json.dumps(lines, default=str)
    assert len([line for line in lines if line["event"] == "request"]) == 5
    assert not [secret for secret in secrets if secret in written]


# --- the house --------------------------------------------------------------------------------------------


async def test_metrics_count_requests_and_show_the_federation(broker):
    await lent(broker)
    scraper = await broker.person("ops", "metrics")
    assert (await scraper.call("GET", "/v1/leases")).is_problem(403)
    answer = await scraper.call("GET", "/metrics")
    assert answer.status == 200
    text = answer.text
    assert 'lendmesh_requests_total{method="POST",operation="submit_request",status="201"} 1.0' in text
    assert 'lendmesh_request_seconds_count{operation="submit_request"} 1.0' in text
    assert 'lendmesh_leases{state="Active"} 1.0' in text
    assert "lendmesh_offers 1.0" in text
    assert "lendmesh_devices_on_offer 4.0" in text
    assert "lendmesh_solve_seconds_count" in text
    assert "lendmesh_solve_gap" in text
    assert "lendmesh_log_revision" in text
    assert 'lendmesh_cluster_last_seen_timestamp_seconds{cluster="team-b"}' in text


async def test_the_first_start_makes_everything_and_the_second_keeps_it(tmp_path):
    directory = tmp_path / "data"
    async with world(settings(directory)) as broker:
        token = broker.admin.secret
        ca = broker.running.ca.read_bytes()
        jwks = await broker.nobody().get("/.well-known/jwks.json")
        assert (directory / "url").read_text().strip() == broker.running.url
        await broker.agent("team-a", tenant="blue")
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(directory / "admin-token").st_mode) == 0o600
    async with world(settings(directory)) as broker:
        assert broker.admin.secret == token
        assert broker.running.ca.read_bytes() == ca
        assert await broker.nobody().get("/.well-known/jwks.json") == jwks
        assert [each["name"] for each in (await broker.admin.get("/v1/clusters"))["items"]] == ["team-a"]


async def test_the_admin_token_is_not_in_the_log(tmp_path):
    with structlog.testing.capture_logs() as lines:
        async with running(settings(tmp_path)) as broker:
            token = broker.admin_token
    assert token not in json.dumps(lines, default=str)
    assert [line["event"] for line in lines if line["event"].startswith("broker.")][-1] == "broker.ended"


async def test_a_second_broker_on_the_same_file_is_refused(tmp_path):
    async with running(settings(tmp_path)):
        with pytest.raises(BadDatabase):
            async with running(settings(tmp_path)):
                pass


@pytest.mark.postgres
async def test_two_brokers_on_one_postgresql_are_one_broker(tmp_path, postgres_url):
    """A person asks the one, the agents talk to the other; watches, keys and revocations hold on both."""
    shared = {"database_url": postgres_url, "lease_keys_file": tmp_path / "lease-keys.json", "watch_heartbeat": "1s"}
    async with (
        world(settings(tmp_path / "one", **shared)) as one,
        world(settings(tmp_path / "two", **shared)) as two,
    ):
        person, *_, lease = await lent(one, agents_at=two)
        assert lease["state"] == "Active"
        elsewhere = Caller(two.session, two.running.url, person.secret)
        assert (await elsewhere.get(f"/v1/leases/{lease['id']}"))["token"] == lease["token"]

        answers = await asyncio.gather(
            *(caller.call("POST", "/v1/requests", EIGHT, key="wish-2") for caller in (person, elsewhere) * 4)
        )
        assert {answer.status for answer in answers} == {201}
        assert len({answer.json["id"] for answer in answers}) == 1

        async with watching(elsewhere, "/v1/requests/watch") as events:
            asked = await person.post("/v1/requests", EIGHT)
            await until(events, lambda view: view["id"] == asked["id"])
            mine = next(each for each in (await one.admin.get("/v1/tokens"))["items"] if each["tenant"] == "blue")
            await one.admin.call("DELETE", f"/v1/tokens/{mine['id']}")
            async with asyncio.timeout(20):
                while (last := await events.next())["event"] != "refused":
                    pass
        assert json.loads(last["data"])["status"] == 401
        assert (await elsewhere.call("GET", "/v1/me")).is_problem(401)


async def test_a_broker_that_ends_lets_its_watchers_go_first(tmp_path):
    async with aiohttp.ClientSession() as session:
        async with running(settings(tmp_path)) as broker:
            trust = ssl.create_default_context(cafile=broker.ca)
            headers = {"Authorization": f"Bearer {broker.admin_token}"}
            answer = await session.get(f"{broker.url}/v1/leases/watch", headers=headers, ssl=trust)
            events = Events(answer)
            await events.comment()
        assert (await events.next())["event"] == "closing"
        with pytest.raises(EOFError):
            await events.next()
