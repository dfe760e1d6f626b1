"""A session with an API server that misbehaves: what is retried, what is refused, and what is never told.

The server is a real one, on a socket; only its answers are made up.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from clusteragent.kube.interface import (
    CONFIG_MAPS,
    RESOURCE_CLAIMS,
    SECRETS,
    Conflict,
    Event,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    Obj,
)
from clusteragent.kube.real import NoWayIn, RealKube
from clusteragent.kube.refusals import refusal
from clusteragent.kube.watching import Listing, list_then_watch

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(answer: Answer, tmp_path: Path, *, user: Obj | None = None) -> AsyncIterator[RealKube]:
    """A connection to an API server that answers everything with ``answer``."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig(f"http://127.0.0.1:{port}", user or {"token": "good"})))
    kube = await RealKube.from_kubeconfig(file)
    try:
        yield kube
    finally:
        await kube.close()
        await runner.cleanup()


def kubeconfig(url: str, user: Obj) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }


def status(code: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": "no"}, status=code)


def listing(*names: str, version: str = "1", more: str = "") -> web.Response:
    items = [{"metadata": {"name": name}} for name in names]
    return web.json_response({"metadata": {"resourceVersion": version, "continue": more}, "items": items})


async def test_a_list_is_read_page_by_page(tmp_path: Path) -> None:
    pages = {None: listing("a", more="next"), "next": listing("b", version="7")}
    async with server(lambda request: answered(pages[request.query.get("continue")]), tmp_path) as kube:
        assert [obj["metadata"]["name"] for obj in await kube.list(CONFIG_MAPS)] == ["a", "b"]


async def test_a_list_whose_pages_expired_is_read_anew_in_one_piece(tmp_path: Path) -> None:
    asked: list[Obj] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        if "continue" in request.query:
            return status(410, "Expired")
        return listing("a", more="next") if "limit" in request.query else listing("a", "b")

    async with server(answer, tmp_path) as kube:
        assert [obj["metadata"]["name"] for obj in await kube.list(CONFIG_MAPS)] == ["a", "b"]
    assert len(asked) == 3


async def answered(response: web.Response) -> web.Response:
    return response


async def test_a_busy_server_is_asked_again_after_the_time_it_names(tmp_path: Path) -> None:
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=429, headers={"Retry-After": "0"}) if asked < 3 else web.json_response({"a": 1})

    async with server(answer, tmp_path) as kube:
        assert await kube.create(CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "y"}}) == {"a": 1}
    assert asked == 3


async def test_a_server_that_stays_busy_is_believed_in_the_end(tmp_path: Path) -> None:
    async with server(
        lambda request: answered(web.Response(status=429, headers={"Retry-After": "0"})), tmp_path
    ) as kube:
        with pytest.raises(KubeError) as refused:
            await kube.get(CONFIG_MAPS, "a", "b")
    assert refused.value.status == 429


async def test_a_credential_that_ran_out_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] == "Bearer new":
            return web.json_response({"a": 1})
        return status(401, "Unauthorized")

    async with server(answer, tmp_path, user={"tokenFile": str(token)}) as kube:
        with pytest.raises(Forbidden):
            await kube.get(CONFIG_MAPS, "a", "b")
        token.write_text("new")
        assert await kube.get(CONFIG_MAPS, "a", "b") == {"a": 1}


async def test_an_older_cluster_is_spoken_to_in_its_own_version_and_read_in_ours(tmp_path: Path) -> None:
    asked: list[tuple[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, (await request.json()).get("apiVersion") if request.can_read_body else None))
        if request.path == "/apis/resource.k8s.io":
            return web.json_response({"versions": [{"version": "v1beta2"}, {"version": "v1beta1"}]})
        if request.path == "/apis/resource.k8s.io/v1beta2":
            return web.json_response({"resources": [{"name": "resourceclaims"}]})
        return web.json_response({"apiVersion": "resource.k8s.io/v1beta2", "kind": "ResourceClaim"})

    async with server(answer, tmp_path) as kube:
        made = await kube.create(RESOURCE_CLAIMS, {"metadata": {"name": "x", "namespace": "y"}})
        assert made["apiVersion"] == "resource.k8s.io/v1"
        await kube.get(RESOURCE_CLAIMS, "x", "y")
    path = "/apis/resource.k8s.io/v1beta2/namespaces/y/resourceclaims"
    assert asked[2:] == [(path, "resource.k8s.io/v1beta2"), (f"{path}/x", None)]


async def test_a_kind_that_no_version_serves_is_not_found(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        group = request.path == "/apis/resource.k8s.io"
        return web.json_response({"versions": [{"version": "v1"}]} if group else {"resources": []})

    async with server(answer, tmp_path) as kube:
        with pytest.raises(NotFound, match="does not serve resourceclaims"):
            await kube.list(RESOURCE_CLAIMS)


@pytest.mark.parametrize(
    ("code", "reason", "family"),
    [(400, "BadRequest", Invalid), (403, "Forbidden", Forbidden), (409, "Conflict", Conflict), (410, "Gone", Gone)],
)
def test_a_refusal_becomes_the_error_it_means(code: int, reason: str, family: type[KubeError]) -> None:
    body = json.dumps({"kind": "Status", "reason": reason, "message": "because"}).encode()
    error = refusal(code, body)
    assert type(error) is family
    assert "because" in str(error)


@pytest.mark.parametrize("body", [b"<html>secret</html>", b'{"kind": "Secret", "message": "secret"}', b'["secret"]'])
def test_a_body_that_is_no_status_is_never_quoted(body: bytes) -> None:
    assert "secret" not in str(refusal(502, body))


async def test_no_body_goes_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with server(lambda request: answered(web.json_response({"data": {"token": "c2VjcmV0"}})), tmp_path) as kube:
        await kube.get(SECRETS, "a", "b")
    assert "c2VjcmV0" not in caplog.text


# -- kubeconfigs of others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {"command": "touch", "args": ["/tmp/owned"], "apiVersion": "client.authentication.k8s.io/v1"}},
        {"tokenFile": "/etc/passwd"},
        {"client-key": "/etc/passwd"},
        {"auth-provider": {"name": "gcp"}},
    ],
)
async def test_a_kubeconfig_from_elsewhere_runs_no_program_and_reads_no_file(user: Obj) -> None:
    with pytest.raises(NoWayIn, match="not taken from others"):
        await RealKube.from_text(yaml.safe_dump(kubeconfig("https://192.0.2.1", user)))


@pytest.mark.parametrize(
    "change",
    [
        {"server": "http://192.0.2.1"},
        {"insecure-skip-tls-verify": True},
        {"proxy-url": "http://192.0.2.2"},
        {"certificate-authority": "/etc/passwd"},
    ],
)
async def test_a_kubeconfig_from_elsewhere_is_reached_directly_and_over_tls(change: Obj) -> None:
    config = kubeconfig("https://192.0.2.1", {"token": "t"})
    config["clusters"][0]["cluster"] |= change
    with pytest.raises(NoWayIn):
        await RealKube.from_text(yaml.safe_dump(config))


@pytest.mark.parametrize("text", ["", "[]", "a: [", "clusters: 3", "{clusters: [], users: []}"])
async def test_what_is_no_kubeconfig_is_said_to_be_none(text: str) -> None:
    with pytest.raises(NoWayIn):
        await RealKube.from_text(text)


async def test_a_plain_kubeconfig_from_elsewhere_is_taken() -> None:
    kube = await RealKube.from_text(yaml.safe_dump(kubeconfig("https://192.0.2.1:6443", {"token": "t"})))
    assert kube.server == "https://192.0.2.1:6443"
    await kube.close()


# -- watching ----------------------------------------------------------------------------------------------------------


class Script:
    """A source of listings and streams as the test wants them; exceptions in it are raised."""

    def __init__(self, *, listings: list[Any], streams: list[list[Any]]) -> None:
        self.listings, self.streams = listings, streams
        self.from_versions: list[str] = []

    async def listing(self) -> Listing:
        turn = self.listings.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return Listing([named(name) for name in turn[0]], turn[1])

    async def stream(self, version: str) -> Any:
        self.from_versions.append(version)
        if not self.streams:
            await asyncio.Event().wait()
        for turn in self.streams.pop(0):
            if isinstance(turn, Exception):
                raise turn
            yield turn


def named(name: str, version: str = "1") -> Obj:
    return {"metadata": {"name": name, "resourceVersion": version}}


def told(event: Event) -> str:
    return f"{event.type} {event.obj['metadata']['name']}" if event.obj else event.type


async def events_of(script: Script, count: int) -> tuple[list[str], list[int]]:
    """The first events of a watch, and what its pauses heard."""
    pauses: list[int] = []

    async def wait(failures: int) -> None:
        pauses.append(failures)

    events: list[str] = []
    async with asyncio.timeout(10), aclosing(list_then_watch(script, what="test", wait=wait)) as watch:  # type: ignore[type-var]
        async for event in watch:
            events.append(told(event))
            if len(events) == count:
                break
    return events, pauses


async def test_a_lost_watch_goes_on_from_the_last_bookmark() -> None:
    bookmark = {"type": "BOOKMARK", "object": named("", "9")}
    script = Script(
        listings=[(["a"], "5")],
        streams=[
            [{"type": "MODIFIED", "object": named("a", "6")}, bookmark, ConnectionResetError()],
            [{"type": "DELETED", "object": named("a", "10")}],
        ],
    )
    events, pauses = await events_of(script, 4)
    assert events == ["ADDED a", "LISTED", "MODIFIED a", "DELETED a"]
    assert script.from_versions == ["5", "9"]
    assert pauses == [1]


@pytest.mark.parametrize("code", [410, 504])
async def test_a_watch_refused_for_its_version_lists_again(code: int) -> None:
    """410: too old. 504: too new, after etcd was restored from a backup."""
    error = {"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": "Expired", "message": "no"}}
    script = Script(listings=[(["a"], "5"), (["b"], "3")], streams=[[error]])
    events, _ = await events_of(script, 5)
    assert events == ["ADDED a", "LISTED", "RELISTING", "ADDED b", "LISTED"]


async def test_failures_in_a_row_make_the_pause_longer_and_success_ends_it() -> None:
    down = ConnectionRefusedError()
    script = Script(
        listings=[down, Forbidden(403, "Forbidden", "no"), down, (["a"], "5")],
        streams=[[{"type": "MODIFIED", "object": named("a", "6")}, down], []],
    )
    events, pauses = await events_of(script, 3)
    assert events == ["ADDED a", "LISTED", "MODIFIED a"]
    assert pauses == [1, 2, 3]


async def test_a_server_that_ends_watches_at_once_is_not_stormed() -> None:
    script = Script(listings=[(["a"], "5")], streams=[[], [], [{"type": "MODIFIED", "object": named("a", "6")}]])
    events, pauses = await events_of(script, 3)
    assert events[-1] == "MODIFIED a"
    assert pauses == [1, 2]


async def test_a_mistake_of_ours_is_not_taken_for_network_trouble() -> None:
    script = Script(listings=[(["a"], "5")], streams=[[KeyError("a bug")]])
    with pytest.raises(KeyError):
        await events_of(script, 3)


async def test_a_connection_that_breaks_is_an_os_error(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with server(answer, tmp_path) as kube:
        with pytest.raises(OSError, match=r"Disconnected|reset"):
            await kube.create(CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "y"}})


async def test_a_watch_cut_in_the_middle_of_an_event_goes_on(tmp_path: Path) -> None:
    cut = [b'{"type": "MODIFIED", "obj', json.dumps({"type": "DELETED", "object": named("a", "6")}).encode() + b"\n"]

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return listing("a", version="5")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(cut.pop(0))
        return response

    async with server(answer, tmp_path) as kube, asyncio.timeout(10):
        events = []
        async with aclosing(kube.watch(CONFIG_MAPS)) as watch:  # type: ignore[type-var]
            async for event in watch:
                events.append(told(event))
                if len(events) == 3:
                    break
    assert events == ["ADDED a", "LISTED", "DELETED a"]
