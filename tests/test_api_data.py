"""Data that has to be brought along: its way is part of what devices cost, in plans, caps, leases and budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.api_world import Caller, World, settings, world
from tests.test_api import until, watching
from tests.test_api_asking import PLAIN, both, wrong

NEAR, FAR = "eu-north", "us-east"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings(tmp_path, egress={NEAR: {FAR: "0.02"}})) as found:
        yield found


def offer(name: str, region: str, price: str) -> dict[str, Any]:
    devices = [{"driver": "gpu.nvidia.com", "pool": name, "name": f"gpu-{n}", "node": name} for n in range(8)]
    kind = {"driver": "gpu.nvidia.com", "model": "H100", "attributes": {"productName": {"string": "H100"}}}
    terms = {"max_duration": "24h"}
    return {
        "name": name,
        "policy": "idle",
        "kind": kind,
        "price": {"amount": price},
        "terms": terms,
        "place": {"region": region},
        "devices": devices,
    }


async def two(broker: World) -> Caller:
    """Eight devices near the data at $2.40, and eight far from it at $2.00."""
    return (await both(broker, offers=[offer("near", NEAR, "2.40"), offer("far", FAR, "2.00")]))[0]


def brought(gb: int, **more: Any) -> dict[str, Any]:
    return {**PLAIN, "data": {"region": NEAR, "gb": gb}, **more}


async def placed(person: Caller, body: dict[str, Any]) -> dict[str, Any]:
    view = await person.post("/v1/quotes", body)
    assert view["placement"] is not None, view["reasons"]
    found: dict[str, Any] = view["placement"]
    return found


async def test_devices_near_the_data_beat_cheaper_ones_once_its_way_costs_more(broker: World) -> None:
    person = await two(broker)
    cheapest = await placed(person, PLAIN)
    assert (cheapest["price"]["amount"], cheapest["cost"]["amount"], cheapest["transfer"]) == ("2.00", "16.00", None)
    little = await placed(person, brought(100))
    assert (little["price"]["amount"], little["cost"]["amount"]) == ("2.00", "18.00")
    assert little["transfer"]["amount"] == "2.00"
    much = await placed(person, brought(1_000))
    assert (much["price"]["amount"], much["cost"]["amount"], much["transfer"]) == ("2.40", "19.20", None)


async def test_what_is_not_on_the_list_costs_the_price_for_every_other_way(broker: World) -> None:
    person = await two(broker)
    found = await placed(person, {**PLAIN, "price_cap": {"amount": "9"}, "data": {"region": "ap-south", "gb": 100}})
    assert (found["cost"]["amount"], found["transfer"]["amount"]) == ("25.00", "9.00")


async def test_a_price_cap_is_for_everything_the_way_of_the_data_too(broker: World) -> None:
    person = await two(broker)
    asked = brought(1_000, where={"regions": [FAR]})
    refused = await person.post("/v1/quotes", asked)
    assert refused["placement"] is None
    (cap,) = (each["change"]["price_cap"] for each in refused["reasons"] if "price_cap" in (each["change"] or {}))
    assert cap == "4.50"
    assert (await placed(person, {**asked, "price_cap": {"amount": cap}}))["cost"]["amount"] == "36.00"
    assert (await person.post("/v1/quotes", {**asked, "price_cap": {"amount": "4.49"}}))["placement"] is None
    total = {**asked, "price_cap": {"amount": "9"}, "total_cap": {"amount": "35.99"}}
    assert (await person.post("/v1/quotes", total))["placement"] is None


async def test_a_tier_takes_what_it_can_pay_for_with_the_way_of_the_data(broker: World) -> None:
    person = await two(broker)
    tiers = [
        {"name": "cheap", "price_cap": {"amount": "2.20"}},
        {"name": "dear", "price_cap": {"amount": "5.00"}},
    ]
    asked = {key: value for key, value in brought(1_000).items() if key != "price_cap"} | {"tiers": tiers}
    assert (await placed(person, {**asked, "data": {"region": NEAR, "gb": 10}}))["tier"] == "cheap"
    far = {**asked, "where": {"regions": [FAR]}}
    assert (await placed(person, far))["tier"] == "dear"


async def test_a_lease_and_the_budget_that_pays_for_it_hold_the_way_of_the_data(broker: World) -> None:
    person = await two(broker)
    spec = {"tiers": [{"name": "any", "price_cap": {"amount": "9.00"}}], "budget": {"amount": "36.00"}}
    answer = await person.call("PUT", "/v1/burst-policies/team-a/nights", spec)
    assert answer.status in (200, 201), answer.text
    asked = {key: value for key, value in brought(100, policy="nights").items() if key != "price_cap"}
    async with watching(person, "/v1/requests/watch") as requests:
        mine = await person.post("/v1/requests", asked)
        view = await until(requests, lambda view: view["id"] == mine["id"] and view["state"] != "Open")
    lease = await person.get(f"/v1/leases/{view['lease']}")
    assert (lease["cost"]["amount"], lease["transfer"]["amount"], lease["price"]["amount"]) == ("18.00", "2.00", "2.00")
    # What is left is 18.00, and near devices would do it for 19.20.
    refused = await person.post("/v1/quotes", asked)
    assert refused["placement"] is None
    (more,) = (each["change"]["budget"] for each in refused["reasons"] if "budget" in (each["change"] or {}))
    assert more == "1.20"


@pytest.mark.parametrize(
    ("data", "pointer", "words"),
    [
        ({"region": NEAR, "gb": 0}, "/data/gb", "must be at least 1"),
        ({"region": NEAR, "gb": 10**9 + 1}, "/data/gb", "must be at most 1000000000"),
        ({"region": NEAR, "gb": "5"}, "/data/gb", "must be a whole number"),
        ({"region": NEAR}, "/data/gb", ""),
        ({"gb": 5}, "/data/region", ""),
        ({"region": "far away", "gb": 5}, "/data/region", ""),
    ],
)
async def test_data_that_makes_no_sense_is_an_error_that_says_where(
    broker: World, data: dict[str, Any], pointer: str, words: str
) -> None:
    person = await two(broker)
    (said,) = await wrong(person, data=data)
    assert said.startswith(f"{pointer}: ")
    assert words in said


async def test_the_most_data_there_can_be_is_counted_and_refused(broker: World) -> None:
    person = await two(broker)
    refused = await person.post("/v1/quotes", brought(10**9, where={"regions": [FAR]}))
    assert refused["placement"] is None
    assert [each["reason"] for each in refused["reasons"] if each["offers"]] != []
