"""What a request can ask for, over HTTPS and by the command, as its callers meet it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.domain.access import LEND, READ, REQUEST
from tests.api_world import Agent, Caller, World, settings, world
from tests.test_api import lent, until, watching

PLAIN: dict[str, Any] = {
    "cluster": "team-a",
    "devices": {"count": 8},
    "duration": "1h",
    "price_cap": {"amount": "2.50"},
}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings(tmp_path)) as found:
        yield found


async def both(broker: World, devices: int = 16, **more: Any) -> tuple[Caller, Agent]:
    """Somebody who may ask, and a lender's agent that offers so many devices."""
    person = await broker.person("blue", READ, REQUEST)
    await broker.agent("team-a", tenant="blue")
    lender = await broker.agent("team-b", tenant="green")
    await lender.is_ready()
    await lender.says("/v1/agent/advert", lender.advert(devices, **more))
    return person, lender


async def wrong(person: Caller, **fields: Any) -> list[str]:
    """The sentences of the refusal, the same for a quote and for a request."""
    said = []
    for path in ("/v1/quotes", "/v1/requests"):
        answer = await person.call("POST", path, {**PLAIN, **fields})
        assert answer.status == 422, answer.text
        said.append([f"{each['pointer']}: {each['detail']}" for each in answer.json["errors"]])
    assert said[0] == said[1]
    assert (await person.get("/v1/requests"))["items"] == []
    return said[0]


async def test_a_gang_is_quoted_with_the_nodes_of_its_workers(broker: World) -> None:
    person, _ = await both(broker, 20)
    quote = await person.post("/v1/quotes", {**PLAIN, "devices": {"count": 4, "workers": 5, "same_node": True}})
    placed = quote["placement"]
    assert (placed["devices"], placed["workers"], placed["cost"]["amount"]) == (20, 5, "40.00")
    assert [(each["node"], each["devices"], each["workers"]) for each in placed["nodes"]] == [
        ("node-0", 8, 2),
        ("node-1", 8, 2),
        ("node-2", 4, 1),
    ]


@pytest.mark.parametrize(
    ("devices", "pointer", "words"),
    [
        ({"count": 1, "workers": 0}, "/devices/workers", "must be at least 1"),
        ({"count": 1, "workers": 10**6}, "/devices/workers", "must be at most 1024"),
        ({"count": 1, "workers": "4"}, "/devices/workers", "must be a whole number"),
        ({"count": 9, "workers": 114}, "/devices", "114 workers with 9 devices each are 1,026 devices"),
    ],
)
async def test_a_gang_that_makes_no_sense_is_an_error_that_says_where(
    broker: World, devices: dict[str, Any], pointer: str, words: str
) -> None:
    person, _ = await both(broker)
    (said,) = await wrong(person, devices=devices)
    assert said.startswith(f"{pointer}: ")
    assert words in said


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2026-12-01T14:00:00", "needs its offset from UTC"),
        ("2026-13-01T14:00:00Z", "must be a time such as 2026-12-01T14:00:00Z (RFC 3339)"),
        (1_764_000_000, "a time is a text with its offset"),
    ],
)
async def test_a_time_that_is_none_is_an_error_that_says_how_to_write_one(
    broker: World, time: object, words: str
) -> None:
    person, _ = await both(broker)
    for field in ("not_before", "start_by", "finish_by"):
        (said,) = await wrong(person, **{field: time})
        assert said.startswith(f"/{field}: ")
        assert words in said


async def test_a_deadline_that_cannot_be_kept_is_refused_with_the_one_that_could(broker: World) -> None:
    person, _ = await both(broker)
    soon = datetime.now(UTC) + timedelta(minutes=20)
    answer = await person.call("POST", "/v1/requests", {**PLAIN, "finish_by": soon.isoformat()})
    assert answer.is_problem(422)
    assert "It could with finish_by" in answer.json["detail"]
    assert re.search(r"or with a duration of 19m5\ds at most", answer.json["detail"])


# --- uninterrupted ----------------------------------------------------------------------------------------------------


def helping(view: dict[str, Any]) -> dict[str, Any]:
    """What would help: one field of the request → to what."""
    changes = [each["change"] for each in view["reasons"] if each["reason"] == "would-fit"]
    return {
        key: change[key] for change in changes for key in change if key in ("price_cap", "duration", "interruptible")
    }


async def test_who_must_not_be_interrupted_gets_only_what_is_surely_left_alone(broker: World) -> None:
    terms = {"max_duration": "24h", "minimum_runtime": "30m", "reclaim_notice": "5m"}
    person, _ = await both(broker, terms=terms)
    asked = {**PLAIN, "interruptible": False}
    refused = await person.post("/v1/quotes", asked)
    assert refused["placement"] is None
    assert [each["reason"] for each in refused["reasons"] if each["offers"]] == ["interruptible"]
    assert helping(refused) == {"interruptible": True, "duration": "30m"}
    for change in helping(refused).items():
        assert (await person.post("/v1/quotes", {**asked, **dict([change])}))["placement"] is not None
    assert (await person.post("/v1/quotes", PLAIN))["placement"] is not None, "left out, it may be interrupted"


async def test_a_notice_as_long_as_the_lease_leaves_it_alone_too(broker: World) -> None:
    person, _ = await both(broker, terms={"max_duration": "24h", "minimum_runtime": "0s", "reclaim_notice": "1h"})
    assert (await person.post("/v1/quotes", {**PLAIN, "interruptible": False}))["placement"] is not None
    longer = await person.post("/v1/quotes", {**PLAIN, "interruptible": False, "duration": "3601s"})
    assert longer["placement"] is None


async def test_a_lender_that_reclaims_what_it_said_it_leaves_alone_gets_it_at_its_end(broker: World) -> None:
    terms = {"max_duration": "24h", "minimum_runtime": "1h", "reclaim_notice": "5m"}
    person, lender, _, lease = await lent(broker, terms=terms, body={**PLAIN, "interruptible": False})
    owner = await broker.person("green", READ, LEND)
    after = await owner.post(f"/v1/leases/{lease['id']}/reclaim", {"reason": "our own work"})
    (wanted,) = (await lender.get("/v1/agent/desired"))["leases"]
    assert (after["state"], after["expires_at"]) == ("Active", lease["expires_at"])
    assert datetime.fromisoformat(wanted["drain_from"]) >= datetime.fromisoformat(lease["expires_at"])
    assert (await person.get(f"/v1/requests/{lease['request']}"))["request"]["interruptible"] is False


async def test_a_burst_policy_that_refuses_interruption_refuses_it_for_all_its_requests(broker: World) -> None:
    person, _ = await both(broker)
    spec = {"tiers": [{"name": "any", "price_cap": {"amount": "9.00"}}], "interruptible": False}
    answer = await person.call("PUT", "/v1/burst-policies/team-a/nights", spec)
    assert answer.status in (200, 201), answer.text
    asked = {key: value for key, value in PLAIN.items() if key != "price_cap"} | {"policy": "nights"}
    refused = await person.post("/v1/quotes", asked)
    assert refused["placement"] is None
    assert "interruptible" in [each["reason"] for each in refused["reasons"]]


async def test_interruptible_is_yes_or_no(broker: World) -> None:
    person, _ = await both(broker)
    (said,) = await wrong(person, interruptible="spot")
    assert said == "/interruptible: must be true or false"


async def test_a_request_begins_by_itself_when_its_time_comes(broker: World) -> None:
    person, _ = await both(broker)
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    asked = await person.post("/v1/requests", {**PLAIN, "not_before": soon.isoformat()})
    async with watching(person, "/v1/requests/watch") as requests:
        view = await until(requests, lambda view: view["id"] == asked["id"] and view["state"] != "Open")
    assert view["state"] == "Placed"
    assert datetime.fromisoformat(view["updated_at"]) >= soon
