"""Whoever watches is woken for what concerns them, misses none of it, and for nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.log import Entry
from broker.service.feed import Topic, concerns, topics
from tests.world import World, devices, offer, pair, wish

NAMES = st.sampled_from(["a", "b", None])
ENTRIES = st.builds(
    Entry,
    revision=st.just(1),
    at=st.just(datetime(2026, 11, 23, tzinfo=UTC)),
    type=st.just("lease.active"),
    cluster=NAMES,
    peer=NAMES,
    tenant=NAMES,
    peer_tenant=NAMES,
    offer=NAMES,
)
EVERY: list[Topic | None] = [None, ("offers", ""), ("cluster", "a"), ("cluster", "b"), ("tenant", "a"), ("tenant", "b")]


@given(ENTRIES)
def test_an_entry_is_news_under_exactly_the_topics_it_concerns(entry: Entry) -> None:
    assert set(topics(entry)) == {topic for topic in EVERY if concerns(entry, topic)}


async def test_who_waits_is_woken_for_their_topic_alone_and_hears_all_of_it(here: World) -> None:
    _, borrower = await pair(here)
    feed = here.broker.feed
    began = feed.last
    b = asyncio.create_task(feed.news(began, ("cluster", "b")))
    c = asyncio.create_task(feed.news(began, ("cluster", "c")))
    everything = asyncio.create_task(feed.news(began))
    await asyncio.sleep(0)
    await here.submitted(borrower.principal, wish(count=1))
    upto, first = await everything
    assert upto == first[-1].revision
    upto, heard = await b
    while heard[-1].type != "lease.reserved":
        upto, more = await feed.news(upto, ("cluster", "b"))
        heard += more
    assert {entry.cluster for entry in heard} == {"b"}
    assert not c.done(), "nothing happened to it"
    await (await here.agent("c")).advertise(offer(devices("m1")))
    _, others = await c
    assert {entry.cluster for entry in others} == {"c"}
    late = await feed.news(began, ("cluster", "c"))
    assert late[1][: len(others)] == others, "who comes late finds the same in memory"


async def test_who_goes_away_while_waiting_leaves_nothing_behind(here: World) -> None:
    feed = here.broker.feed
    waits = [asyncio.create_task(feed.news(feed.last, ("tenant", f"t{at}"))) for at in range(3)]
    await asyncio.sleep(0)
    assert len(feed._waiting) == 3
    for wait in waits:
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
    assert feed._waiting == {}
