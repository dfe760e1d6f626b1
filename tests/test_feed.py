"""Whoever watches is woken for what concerns them, misses none of it, and for nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.log import Entry
from broker.service.feed import Topic, concerns, topics
from broker.service.rows import LEASES, Rows
from tests.test_lease import pending
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


async def test_what_watchers_are_told_from_is_what_the_store_holds(here: World) -> None:
    lender, borrower = await pair(here)
    user = await here.user("team-a")
    asked = await here.submitted(user, wish())
    lease = await here.lend(lender, borrower)
    await here.broker.return_lease(user, lease)
    refused = await here.submitted(user, wish(count=600))
    stored = await here.store.read(lambda unit: unit.requests.by_id([asked.id, refused.id]))
    lent = await here.store.read(lambda unit: unit.leases.by_id([lease]))
    await here.broker.feed.after(max(row.revision for row in (*stored, *lent)) - 1)
    rows = here.broker.feed.rows
    assert [rows.request(row.id) for row in stored] == stored
    assert [rows.lease(row.id) for row in lent] == lent
    assert rows.with_lease(asked.id) == (next(row for row in stored if row.id == asked.id), lent[0])


async def test_a_row_that_another_broker_changed_since_is_not_believed(here: World) -> None:
    lender, borrower = await pair(here)
    asked = await here.submitted(await here.user("team-a"), wish())
    lease = await here.lend(lender, borrower)
    row = await here.store.read(lambda unit: unit.leases.find(lease))
    assert row is not None
    rows, entry = Rows(), Entry(revision=row.revision, at=row.created_at, type="lease.active", lease=lease)
    rows.keep([row])
    rows.heard([entry])
    assert rows.lease(lease) is row
    rows.heard([replace(entry, revision=row.revision + 1)])
    assert rows.lease(lease) is None
    request = await here.store.read(lambda unit: unit.requests.find(asked.id))
    assert request is not None
    rows.keep([request])
    about = replace(entry, request=request.id, revision=request.revision + 1)
    rows.heard([about])
    assert rows.request(request.id) is request, "a lease's change is none of its request"
    assert rows.with_lease(request.id) is None, "its lease must be read"
    rows.heard([replace(about, type="request.closed")])
    assert rows.request(request.id) is None


def test_no_row_is_replaced_by_what_it_was_before_and_the_oldest_is_forgotten() -> None:
    rows, first = Rows(), pending()
    rows.keep([replace(first, revision=7), replace(first, revision=6)])
    known = rows.lease(first.id)
    assert known is not None
    assert known.revision == 7
    rows.keep(replace(first, id=f"lse_{at}", revision=8) for at in range(LEASES))
    assert rows.lease(first.id) is None
    assert rows.lease(f"lse_{LEASES - 1}") is not None
