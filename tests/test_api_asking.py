"""What a request can ask for, over HTTPS and by the command, as its callers meet it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.domain.access import READ, REQUEST
from tests.api_world import Agent, Caller, World, settings, world

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
