"""How the web room meets HTTP: what it refuses before anybody is asked, and how it says so."""

import asyncio
import gzip
import json
from io import BytesIO

import pytest
import structlog

from broker.domain.errors import Overloaded, Refusal
from broker.kit import strict_json
from broker.service.answers import Change
from broker.web import problems
from broker.wire.access import Me
from broker.wire.base import Problem
from tests.web_room import Events, Shelf, bearer, room, streams_of

READER = bearer("lmt_reader")
GOOD = {"cluster": "a", "devices": {"count": 1}, "duration": "1h"}


def post(**headers: str) -> dict[str, str]:
    return {**READER, "Idempotency-Key": "k-1", "Content-Type": "application/json", **headers}


async def problem(answer) -> Problem:
    assert answer.content_type == "application/problem+json"
    found = Problem.model_validate_json(await answer.read())
    assert found.status == answer.status
    return found


# --- problems -----------------------------------------------------------------------------------------------


def test_every_refusal_has_a_status_and_a_name_of_its_own():
    kinds = list(problems.leaves())

    assert len(kinds) > 25
    assert {kind: problems.status_of(kind) for kind in kinds if problems.status_of(kind) == 500} == {}
    assert len({problems.name_of(kind) for kind in kinds}) == len(kinds)
    assert all(kind.title != Refusal.title for kind in kinds)


async def test_an_unforeseen_error_tells_the_caller_nothing_but_where_to_look():
    shelf = Shelf()
    shelf.failure = RuntimeError("password=hunter2 in /srv/broker")
    with structlog.testing.capture_logs() as lines:
        async with room(shelf) as (session, _), session.get("/v1/offers", headers=READER) as answer:
            text = await answer.text()
            found = await problem(answer)

    assert (found.status, found.type) == (500, "about:blank")
    assert "hunter2" not in text
    assert "/srv" not in text
    assert found.instance == answer.headers["X-Request-Id"]
    assert any(line["event"] == "request.failed" and line["request_id"] == found.instance for line in lines)


async def test_a_path_nobody_knows_and_a_method_it_hasnt_are_problems_too():
    async with room(Shelf()) as (session, _):
        async with session.get("/v2/anything") as answer:
            assert (await problem(answer)).type.endswith("/no-such-page")
        async with session.put("/v1/offers") as answer:
            assert (await problem(answer)).status == 405
            assert answer.headers["Allow"] == "GET, HEAD"


async def test_busy_says_when_to_come_back():
    shelf = Shelf()
    shelf.failure = Overloaded()
    async with room(shelf) as (session, _), session.get("/v1/offers", headers=READER) as answer:
        assert (await problem(answer)).status == 503
        assert answer.headers["Retry-After"] == "1"


async def test_a_broker_that_cannot_serve_is_alive_but_not_ready():
    class Unready(Shelf):
        async def ready(self):
            return "the database doesn't answer"

    async with room(Unready()) as (session, _):
        async with session.get("/healthz") as answer:
            assert answer.status == 200
        async with session.get("/readyz") as answer:
            assert "the database doesn't answer" in (await problem(answer)).detail
            assert answer.status == 503


async def test_what_can_be_no_name_of_ours_is_not_asked_for():
    async with room(Shelf()) as (session, _):
        for path in ("/v1/offers/%00", "/v1/offers/..%2f..%2fetc", "/v1/offers/" + "a" * 200, "/v1/offers/a%20b"):
            async with session.get(path, headers=READER) as answer:
                assert (await problem(answer)).status == 404


# --- bodies -------------------------------------------------------------------------------------------------

MALFORMED = {
    "not JSON": b"{cluster: a}",
    "nothing": b"",
    "half": b'{"cluster": "a"',
    "two values": b"{} {}",
    "NaN": b'{"cluster": NaN}',
    "Infinity": b'{"cluster": -Infinity}',
    "a byte order mark": b'\xef\xbb\xbf{"cluster": "a"}',
    "UTF-16": '{"cluster": "a"}'.encode("utf-16"),
    "Latin-1": b'{"cluster": "\xe9"}',
    "a key twice": b'{"cluster": "a", "cluster": "b"}',
    "200,000 levels": b"[" * 200_000 + b"]" * 200_000,
    "33 levels": b"[" * 33 + b"]" * 33,
    "deep objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "U+0000": rb'{"cluster": "a\u0000b"}',
    "U+0000 in a key": rb'{"a\u0000": 1}',
    "half a surrogate": rb'{"cluster": "\ud800"}',
    "5,000 digits": b'{"count": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_body_that_is_not_json_as_we_accept_it_is_a_clear_400(what):
    shelf = Shelf()
    async with (
        room(shelf) as (session, _),
        session.post("/v1/quotes", data=MALFORMED[what], headers=post()) as answer,
    ):
        found = await problem(answer)

    assert (found.status, found.type) == (400, problems.TYPE_PREFIX + "bad-json")
    assert len(found.detail) < 200
    assert shelf.posted == []


def test_json_may_be_nested_as_deep_as_the_limit_and_has_every_character_but_one():
    deep = b"[" * 32 + b'"x"' + b"]" * 32
    assert strict_json.loads(deep) == json.loads(deep)
    assert strict_json.loads(rb'{"\u00e9": "\ud83d\ude00 \\u0000"}') == {"é": "😀 \\u0000"}


INVALID = {
    "an unknown field": ({**GOOD, "prize_cap": "2"}, "/prize_cap"),
    "a wrong unit": ({**GOOD, "duration": "1 hour"}, "/duration"),
    "a bare number": ({**GOOD, "duration": 3600}, "/duration"),
    "a negative count": ({**GOOD, "devices": {"count": -1}}, "/devices/count"),
    "a huge count": ({**GOOD, "devices": {"count": 10**30}}, "/devices/count"),
    "a count that is a text": ({**GOOD, "devices": {"count": "8"}}, "/devices/count"),
    "a count that is true": ({**GOOD, "devices": {"count": True}}, "/devices/count"),
    "another currency": ({**GOOD, "price_cap": {"amount": "2", "currency": "EUR"}}, "/price_cap/currency"),
    "a price that is a float": ({**GOOD, "price_cap": {"amount": 2.4}}, "/price_cap/amount"),
    "a price below zero": ({**GOOD, "price_cap": {"amount": "-2"}}, "/price_cap/amount"),
    "a duration for ever": ({**GOOD, "duration": "9999999999d"}, "/duration"),
    "a selector too long": ({**GOOD, "devices": {"count": 1, "selector": "a" * 10_241}}, "/devices/selector"),
    "a name that is none": ({**GOOD, "cluster": "Team A"}, "/cluster"),
    "a list": ([GOOD], ""),
    "null": (None, ""),
}


@pytest.mark.parametrize("what", INVALID)
async def test_json_that_is_not_what_the_route_takes_says_where_and_what(what):
    body, pointer = INVALID[what]
    shelf = Shelf()
    async with room(shelf) as (session, _), session.post("/v1/quotes", data=json.dumps(body), headers=post()) as answer:
        found = await problem(answer)

    assert (found.status, found.type) == (422, problems.TYPE_PREFIX + "invalid-input")
    assert found.errors[0]["pointer"] == pointer
    assert found.errors[0]["detail"]
    assert shelf.posted == []


async def test_an_answer_to_bad_input_is_short_and_repeats_no_secret():
    secret = "lmj_" + "s3cret" * 20
    body = {"token": [secret], secret * 100: 1, **{f"unknown{i}/~": 1 for i in range(1_000)}}
    with structlog.testing.capture_logs() as lines:
        async with room(Shelf()) as (session, _), session.post("/v1/join", json=body, headers=post()) as answer:
            text = await answer.text()
            found = await problem(answer)

    assert len(found.errors) == 20
    assert "/unknown0~1~0" in [error["pointer"] for error in found.errors]
    assert len(text) < 8_000
    assert secret not in text
    assert "s3cret" not in json.dumps(lines, default=str)


async def test_a_body_too_large_is_refused_whether_it_says_so_or_not():
    async def without_length():
        for _ in range(40):
            yield b" " * 65_536

    async with room(Shelf()) as (session, _):
        for data in (BytesIO(b" " * (1 << 20) + b"{}"), without_length()):
            async with session.post("/v1/quotes", data=data, headers=post()) as answer:
                assert (await problem(answer)).status == 413


async def test_a_body_of_a_mebibyte_is_read_but_one_text_in_it_may_not_be_as_long():
    body = json.dumps({**GOOD, "labels": {"a": "x" * ((1 << 20) - 200)}})
    async with room(Shelf()) as (session, _), session.post("/v1/quotes", data=body, headers=post()) as answer:
        found = await problem(answer)
        assert (found.status, found.errors[0]["pointer"]) == (422, "/labels/a")
        assert len(await answer.text()) < 1_000


async def test_a_body_that_does_not_come_is_not_waited_for():
    async def never_whole():
        yield b"{"
        await asyncio.Event().wait()

    async with (
        room(Shelf(), body_timeout=0) as (session, _),
        session.post("/v1/quotes", data=never_whole(), headers=post()) as answer,
    ):
        assert (await problem(answer)).status == 408
        assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity"},
    ],
)
async def test_another_content_type_or_any_encoding_is_415(headers):
    data = gzip.compress(json.dumps(GOOD).encode()) if headers.get("Content-Encoding") == "gzip" else json.dumps(GOOD)
    shelf = Shelf()
    async with room(shelf) as (session, _), session.post("/v1/quotes", data=data, headers=post(**headers)) as answer:
        assert (await problem(answer)).status == 415
    assert shelf.posted == []


# --- keys, query strings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "a b", "ä", "x" * 129, "tab\there"])
async def test_a_post_without_a_usable_key_is_refused(key):
    headers = {name: value for name, value in post().items() if name != "Idempotency-Key"}
    if key is not None:
        headers["Idempotency-Key"] = key
    shelf = Shelf()
    async with room(shelf) as (session, _), session.post("/v1/quotes", json=GOOD, headers=headers) as answer:
        assert (await problem(answer)).type.endswith("/idempotency-key-missing")
    assert shelf.posted == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=ten", "limit=1&limit=2", "page=2", "model=%00", "region=a%0Ab", "cursor="],
)
async def test_a_query_string_that_makes_no_sense_is_422(query):
    async with room(Shelf()) as (session, _), session.get(f"/v1/offers?{query}", headers=READER) as answer:
        found = await problem(answer)
        assert found.status == 422
        assert found.errors[0]["pointer"] == "/" + query.partition("=")[0]


# --- who is calling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer lmt_other",
        "Basic bG10X3JlYWRlcg==",
        "lmt_reader",
        "Bearer lmt_reader.and-more",
        "Bearer lmt_" + "a" * 300,
    ],
)
async def test_without_a_good_credential_nothing_is_said_but_how_to_show_one(authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    async with room(Shelf()) as (session, _), session.get("/v1/me", headers=headers) as answer:
        assert (await problem(answer)).status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="lendmesh"'


# --- the line in the log, and headers -----------------------------------------------------------------------


async def test_a_request_is_one_line_with_who_and_what_and_nothing_secret():
    with structlog.testing.capture_logs() as lines:
        async with (
            room(Shelf()) as (session, _),
            session.get("/v1/offers?model=h100&cursor=c0ffee", headers=READER) as answer,
        ):
            assert answer.status == 200

    (line,) = [line for line in lines if line["event"] == "request"]
    assert line | {"ms": 0} == {
        "event": "request",
        "log_level": "info",
        "request_id": "req-0001",
        "operation": "list_offers",
        "method": "GET",
        "route": "/v1/offers",
        "about": [],
        "status": 200,
        "problem": None,
        "subject": "token:reader",
        "tenant": "blue",
        "peer": "127.0.0.1",
        "ms": 0,
    }


async def test_a_secret_that_strays_into_a_path_is_neither_looked_up_nor_logged():
    with structlog.testing.capture_logs() as lines:
        async with room(Shelf()) as (session, _):
            async with session.delete("/v1/tokens/lmt_admin", headers=bearer("lmt_admin")) as answer:
                assert (await problem(answer)).status == 404
            async with session.get("/v1/offers/ofr-1/lmt_admin", headers=READER) as answer:
                assert (await problem(answer)).status == 404
    assert "lmt_" not in json.dumps(lines)


async def test_a_caller_who_goes_in_the_middle_of_a_body_is_no_error_of_ours():
    with structlog.testing.capture_logs() as lines:
        async with room(Shelf()) as (session, _):
            _, writer = await asyncio.open_connection(session._base_url.host, session._base_url.port)
            writer.write(b"POST /v1/quotes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer lmt_reader\r\n")
            writer.write(b"Idempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
            writer.transport.abort()
            async with session.get("/healthz"):
                pass
    assert [line["status"] for line in lines if line["event"] == "request" and line["operation"] == "quote"] in (
        [499],
        [],
    )
    assert not [line for line in lines if line["event"] == "request.failed"]


async def test_every_answer_says_what_a_browser_may_do_with_it_and_not_what_we_run():
    async with room(Shelf()) as (session, _):
        for path in ("/v1/me", "/docs", "/nowhere", "/healthz"):
            async with session.get(path) as answer:
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-store"
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Request-Id"]
                assert "Server" not in answer.headers


async def test_what_is_open_is_open_and_also_to_head():
    async with room(Shelf()) as (session, _):
        for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/.well-known/jwks.json"):
            for method in ("GET", "HEAD"):
                async with session.request(method, path) as answer:
                    assert answer.status == 200, path


# --- watching -----------------------------------------------------------------------------------------------


def change(revision: int) -> Change:
    return Change(revision, "lease.active", Me(subject=f"lease-{revision}", tenant="blue", scopes=[]))


async def test_a_watch_that_comes_back_gets_exactly_what_it_missed():
    shelf = Shelf()
    async with room(shelf) as (session, _):
        async with session.get("/v1/leases/watch", headers=READER) as answer:
            assert answer.content_type == "text/event-stream"
            events = Events(answer)
            await events.comment()
            await shelf.write(change(7), change(9))
            assert [(await events.next())["id"] for _ in range(2)] == ["7", "9"]
        await shelf.write(change(10), change(12))
        for resume in ({"headers": READER | {"Last-Event-ID": "9"}}, {"headers": READER, "params": {"after": "9"}}):
            async with session.get("/v1/leases/watch", **resume) as answer:
                events = Events(answer)
                missed = [await events.next() for _ in range(2)]
                assert [event["id"] for event in missed] == ["10", "12"]
                assert missed[0]["event"] == "lease.active"
                assert json.loads(missed[0]["data"])["subject"] == "lease-10"


async def test_a_watch_from_before_the_log_is_told_to_list_again():
    shelf = Shelf()
    shelf.oldest = 50
    async with (
        room(shelf) as (session, _),
        session.get("/v1/leases/watch?after=3", headers=READER) as answer,
    ):
        events = Events(answer)
        last = await events.next()
        assert last["event"] == "refused"
        assert Problem.model_validate_json(last["data"]).type.endswith("/too-old")
        with pytest.raises(EOFError):
            await events.next()


@pytest.mark.parametrize("after", ["-1", "x", "1" * 19, "1&after=2", "1&since=2"])
async def test_a_watch_from_nowhere_is_422(after):
    async with room(Shelf()) as (session, _), session.get(f"/v1/leases/watch?after={after}", headers=READER) as answer:
        assert (await problem(answer)).status == 422


async def test_a_quiet_watch_is_kept_alive_and_its_credential_looked_at_again():
    shelf = Shelf()
    async with (
        room(shelf, watch_heartbeat=0.01) as (session, _),
        session.get("/v1/leases/watch", headers=READER) as answer,
    ):
        events = Events(answer)
        assert await events.comment() == "watching"
        assert await events.comment() == "still here"
        del shelf.people["lmt_reader"]
        last = await events.next()
        assert last["event"] == "refused"
        assert Problem.model_validate_json(last["data"]).status == 401


async def test_a_revoked_credential_ends_its_watch_at_once():
    shelf = Shelf()
    async with (
        room(shelf, watch_heartbeat=3_600) as (session, app),
        session.get("/v1/leases/watch", headers=READER) as answer,
        asyncio.timeout(20),
    ):
        events = Events(answer)
        await events.comment()
        async with session.delete("/v1/tokens/lmt-reader", headers=bearer("lmt_admin")):
            pass
        assert (await events.next())["event"] == "refused"
        with pytest.raises(EOFError):
            await events.next()
        assert len(streams_of(app)) == 0
        assert shelf.watchers == 0


async def test_a_broker_that_ends_says_goodbye_to_its_watchers():
    shelf = Shelf()
    async with room(shelf) as (session, app):
        answer = await session.get("/v1/leases/watch", headers=READER)
        events = Events(answer)
        await events.comment()
        streams_of(app).close()
        assert (await events.next())["event"] == "closing"
        with pytest.raises(EOFError):
            await events.next()


async def test_a_watcher_that_does_not_read_is_cut_off_and_holds_little_memory():
    shelf = Shelf()
    big = Me(subject="x" * 100_000, tenant="blue", scopes=[])
    async with room(shelf, watch_patience=0.05) as (session, _):
        host, port = session._base_url.host, session._base_url.port
        reader, writer = await asyncio.open_connection(host, port, limit=1_024)
        writer.write(b"GET /v1/leases/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer lmt_reader\r\n\r\n")
        await reader.readline()
        for revision in range(1, 201):
            await shelf.write(Change(revision, "lease.active", big))
        await shelf.left.wait()
        received = bytearray()
        while chunk := await reader.read(65_536):
            received += chunk
        writer.close()
        assert b"event: slow" in received
        assert len(received) < 150 * 100_000


async def test_an_error_in_the_middle_of_a_watch_tells_nothing():
    class Broken(Shelf):
        async def changes(self, p, kind, after=None):
            yield change(1)
            raise RuntimeError("password=hunter2")

    async with room(Broken()) as (session, _), session.get("/v1/leases/watch", headers=READER) as answer:
        events = Events(answer)
        await events.next()
        last = await events.next()
        assert last["event"] == "refused"
        assert "hunter2" not in last["data"]
        assert Problem.model_validate_json(last["data"]).status == 500
