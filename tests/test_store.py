"""The store: one writer, commits in groups, jobs that fail alone, and nothing acknowledged before it is durable."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from broker.domain.access import Once
from broker.domain.cluster import Cluster
from broker.domain.errors import AlreadyThere, DeviceTaken, Overloaded, ShuttingDown, StaleVersion
from broker.domain.lease import Ending, Lease
from broker.domain.log import Entry
from broker.domain.request import Request
from broker.domain.rules import Rules
from broker.store import leases, requests
from broker.store.database import BadDatabase
from broker.store.engine import Store
from broker.store.migrate import migrate
from broker.store.unit import Unit
from tests.test_lease import NOW, pending

RULES = Rules()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    migrate(database_url)
    made = await Store.open(database_url)
    yield made
    await made.close()


def cluster(name: str) -> Cluster:
    return Cluster(
        name=name,
        tenant=f"team-{name}",
        signing_key="{}",
        sealing_key="{}",
        credential_hash=f"hash-{name}",
        joined_at=NOW,
        last_seen_at=NOW,
        resynced=True,
        valid_until=NOW + timedelta(hours=1),
    )


def settled(unit: Unit) -> None:
    """Two clusters and a request to hang leases on."""
    for name in ("a", "b"):
        unit.clusters.add(cluster(name))
    unit.requests.add(
        Request(
            id="req-1",
            tenant="team-a",
            cluster="a",
            policy=None,
            body="{}",
            created_at=NOW,
            updated_at=NOW,
            wait_until=NOW,
        )
    )


def lease(number: int, **fields: object) -> Lease:
    return pending(id=f"lse-{number}", **fields).reserved(fence=number, now=NOW, rules=RULES)


def logged(unit: Unit, what: str) -> int:
    return unit.log.add(what, at=NOW)


async def test_what_was_written_is_read_and_numbered_without_gaps(store: Store) -> None:
    revisions = await asyncio.gather(*(store.write(lambda unit, n=n: logged(unit, f"e{n}")) for n in range(50)))
    assert sorted(revisions) == list(range(1, 51))
    entries = await store.read(lambda unit: unit.log.after(0, most=100))
    assert [entry.revision for entry in entries] == list(range(1, 51))
    assert await store.read(lambda unit: unit.revision) == 50


async def test_a_job_that_fails_is_undone_alone(store: Store) -> None:
    """All jobs wait behind a slow one, so they share a commit; every second one fails after it has written."""
    go = threading.Event()

    def slow(unit: Unit) -> None:
        go.wait(10)

    def job(unit: Unit, number: int) -> int:
        unit.clusters.add(cluster(f"c{number}"))
        logged(unit, f"made {number}")
        if number % 2:
            raise ValueError(number)
        return number

    first = asyncio.ensure_future(store.write(slow))
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(store.write(lambda unit, n=n: job(unit, n))) for n in range(20)]
    await asyncio.sleep(0)
    go.set()
    await first
    answers = await asyncio.gather(*rest, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == list(range(0, 20, 2))
    assert [error.args[0] for error in answers if isinstance(error, ValueError)] == list(range(1, 20, 2))
    names = await store.read(lambda unit: sorted(each.name for each in unit.clusters.all()))
    assert names == sorted(f"c{n}" for n in range(0, 20, 2))
    entries = await store.read(lambda unit: unit.log.after(0, most=100))
    assert [(entry.revision, entry.type) for entry in entries] == [(n + 1, f"made {2 * n}") for n in range(10)]


async def test_whoever_is_told_that_it_is_done_finds_it_done_also_beside_a_look_that_the_database_refused(
    store: Store,
) -> None:
    """PostgreSQL gives up the transaction then, and its COMMIT rolls back without a word."""
    await store.write(lambda unit: unit.clusters.add(cluster("x")))
    inside, go = threading.Event(), threading.Event()

    def slow(unit: Unit) -> None:
        inside.set()
        go.wait(10)

    first = asyncio.ensure_future(store.write(slow))
    assert await asyncio.to_thread(inside.wait, 10)
    good = asyncio.ensure_future(store.write(lambda unit: unit.clusters.set("x", message="done")))
    bad = asyncio.ensure_future(store.write(lambda unit: unit.ask(text("SELECT nothing FROM nowhere"))))
    await asyncio.sleep(0)
    go.set()
    answers = await asyncio.gather(first, good, bad, return_exceptions=True)
    assert isinstance(answers[2], DBAPIError)
    x = await store.read(lambda unit: unit.clusters.find("x"))
    assert x is not None
    assert (x.message == "done") == (answers[1] is None)
    await store.write(lambda unit: unit.clusters.set("x", message="again"))


async def test_all_statements_of_one_look_see_one_moment(store: Store) -> None:
    looked, go = threading.Event(), threading.Event()

    def look(unit: Unit) -> tuple[int, int]:
        before = len(unit.clusters.all())
        looked.set()
        go.wait(10)
        return before, len(unit.clusters.all())

    looking = asyncio.ensure_future(store.read(look))
    assert await asyncio.to_thread(looked.wait, 10)
    await store.write(lambda unit: unit.clusters.add(cluster("x")))
    go.set()
    assert await looking == (0, 0)


async def test_a_single_job_that_fails_leaves_nothing(store: Store) -> None:
    def job(unit: Unit) -> None:
        unit.clusters.add(cluster("x"))
        logged(unit, "never")
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await store.write(job)
    assert await store.read(lambda unit: (unit.clusters.all(), unit.revision)) == ([], 0)


async def test_nobody_is_answered_before_the_commit(store: Store) -> None:
    """Two jobs of one group: while the second still runs, the first has no answer."""
    inside, go = threading.Event(), threading.Event()

    def slow(unit: Unit) -> None:
        inside.set()
        go.wait(10)

    gate = threading.Event()
    blocker = asyncio.ensure_future(store.write(lambda unit: gate.wait(10)))
    await asyncio.sleep(0)
    quick = asyncio.ensure_future(store.write(lambda unit: unit.clusters.add(cluster("x"))))
    second = asyncio.ensure_future(store.write(slow))
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.to_thread(inside.wait, 10)
    assert not quick.done()
    assert await store.read(lambda unit: unit.clusters.all()) == []
    go.set()
    await asyncio.gather(blocker, quick, second)
    assert len(await store.read(lambda unit: unit.clusters.all())) == 1


async def test_a_device_in_a_live_lease_is_refused_by_the_constraint_and_free_again_after_the_end(store: Store) -> None:
    await store.write(settled)
    await store.write(lambda unit: unit.leases.reserve([(lease(1), ["b/x", "b/y"])], RULES))
    with pytest.raises(DeviceTaken):
        await store.write(lambda unit: unit.leases.reserve([(lease(2), ["b/y", "b/z"])], RULES))
    assert await store.read(lambda unit: unit.leases.live_refs()) == {"b/x", "b/y"}
    assert await store.read(lambda unit: unit.leases.find("lse-2")) is None

    held = lease(1)
    draining = held.drained(now=NOW, ending=Ending.CANCELLED)
    ended = draining.released(now=NOW, fence=1)
    await store.write(lambda unit: unit.leases.save([(held, draining)], RULES))
    assert await store.read(lambda unit: unit.leases.live_refs()) == {"b/x", "b/y"}
    await store.write(lambda unit: unit.leases.save([(draining, ended)], RULES))
    await store.write(lambda unit: unit.leases.reserve([(lease(2), ["b/y", "b/z"])], RULES))
    assert await store.read(lambda unit: unit.leases.live_refs()) == {"b/y", "b/z"}


async def test_a_lease_that_somebody_changed_is_not_overwritten(store: Store) -> None:
    await store.write(settled)
    await store.write(lambda unit: unit.leases.reserve([(lease(1), ["b/x"])], RULES))
    seen = lease(1)
    for other in (replace(seen, generation=2), replace(seen, revision=9), seen.drained(now=NOW, ending=Ending.LOST)):
        with pytest.raises(StaleVersion):
            await store.write(lambda unit, other=other: unit.leases.save([(other, other)], RULES))
    after = seen.drained(now=NOW, ending=Ending.LOST)
    await store.write(lambda unit: unit.leases.save([(seen, after)], RULES))
    assert await store.read(lambda unit: unit.leases.find("lse-1")) == after


async def test_rows_come_back_as_the_values_that_went_in(store: Store) -> None:
    await store.write(settled)
    full = replace(
        lease(1, policy="nights").prepared(fence=1).activated(now=NOW),
        token="signed",
        sealed_credential="sealed",
        credential_serial=3,
        message="ünïcode ✓",
        lender_mirrored=True,
        drain_from=NOW + timedelta(microseconds=1),
        ending=Ending.RECLAIMED,
    )
    await store.write(lambda unit: unit.leases.reserve([(full, ["b/x"])], RULES))
    assert await store.read(lambda unit: unit.leases.find("lse-1")) == full
    assert await store.read(lambda unit: unit.leases.refs("lse-1")) == ["b/x"]
    request = await store.read(lambda unit: unit.requests.find("req-1"))
    changed = replace(request, excluded=frozenset({"b/x", "ofr-1"}), revision=4, message="x")
    await store.write(lambda unit: unit.requests.save([(request, changed)]))
    assert await store.read(lambda unit: unit.requests.find("req-1")) == changed


async def test_a_name_that_is_taken_is_refused_as_such(store: Store) -> None:
    await store.write(lambda unit: unit.clusters.add(cluster("x")))
    with pytest.raises(AlreadyThere):
        await store.write(lambda unit: unit.clusters.add(cluster("x")))


async def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)read-?only"):
        await store.read(lambda unit: unit.clusters.add(cluster("x")))


async def test_too_many_waiting_jobs_are_turned_away(database_url: str) -> None:
    migrate(database_url)
    store = await Store.open(database_url, waiting=5)
    inside, go = threading.Event(), threading.Event()

    def slow(unit: Unit) -> None:
        inside.set()
        go.wait(10)

    first = asyncio.ensure_future(store.write(slow))
    assert await asyncio.to_thread(inside.wait, 10)
    rest = [asyncio.ensure_future(store.write(lambda unit: logged(unit, "x"))) for _ in range(8)]
    await asyncio.sleep(0)
    go.set()
    answers = await asyncio.gather(*rest, return_exceptions=True)
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 3
    await first
    await store.close()


async def test_closing_finishes_what_waits_and_takes_nothing_more(database_url: str) -> None:
    migrate(database_url)
    store = await Store.open(database_url)
    waiting = [asyncio.ensure_future(store.write(lambda unit: logged(unit, "kept"))) for _ in range(30)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(await asyncio.gather(*waiting)) == list(range(1, 31))
    with pytest.raises(ShuttingDown):
        await store.write(lambda unit: None)
    with pytest.raises(ShuttingDown):
        await store.read(lambda unit: None)
    again = await Store.open(database_url)
    assert await again.read(lambda unit: unit.revision) == 30
    await again.close()


async def test_closing_waits_for_a_read_that_a_thread_of_its_own_began(database_url: str) -> None:
    """A connection that is still out when the pool goes is closed by nobody."""
    migrate(database_url)
    store = await Store.open(database_url)
    begun, enough = threading.Event(), threading.Event()

    def slowly(unit: Unit) -> int:
        begun.set()
        enough.wait(10)
        return unit.revision

    reading = asyncio.create_task(asyncio.to_thread(store.read_here, slowly))
    await asyncio.to_thread(begun.wait, 10)
    ending = asyncio.create_task(store.close())
    assert not (await asyncio.wait({ending}, timeout=0.2))[0]
    enough.set()
    await ending
    assert await reading == 0
    with pytest.raises(ShuttingDown):
        await asyncio.to_thread(store.read_here, lambda unit: None)


async def test_listeners_hear_of_what_is_committed_and_of_nothing_else(store: Store) -> None:
    heard: list[Entry] = []
    store.listen(lambda entries, rows: heard.extend(entries))

    def failing(unit: Unit) -> None:
        logged(unit, "undone")
        raise ValueError

    await asyncio.gather(
        store.write(lambda unit: logged(unit, "one")),
        store.write(failing),
        store.write(lambda unit: logged(unit, "two")),
        return_exceptions=True,
    )
    assert [entry.type for entry in heard] == ["one", "two"]
    assert [entry.revision for entry in heard] == [1, 2]


async def test_listeners_hear_of_the_rows_that_were_written_and_of_none_that_was_undone(store: Store) -> None:
    heard: list[str] = []
    store.listen(lambda entries, rows: heard.extend(row.id for row in rows))
    await store.write(settled)

    def reserve(unit: Unit, number: int, *, fails: bool = False) -> None:
        new = replace(lease(number), revision=logged(unit, "lease.reserved"))
        unit.leases.reserve([(new, [f"b/{number}"])], RULES)
        if fails:
            raise ValueError

    def attempting(unit: Unit) -> None:
        with suppress(ValueError), unit.attempt():
            reserve(unit, 3, fails=True)
        reserve(unit, 4)

    await asyncio.gather(
        store.write(lambda unit: reserve(unit, 1)),
        store.write(lambda unit: reserve(unit, 2, fails=True)),
        store.write(attempting),
        return_exceptions=True,
    )
    assert heard == ["lse-1", "lse-4"]


def once(key: str) -> Once:
    return Once(key=key, fingerprint="f")


def answered(unit: Unit, key: str, answer: str) -> str:
    """As a POST does: the answer given before, or this one from now on."""
    found = unit.answers.find("me", once(key))
    if found is not None:
        return found.answer
    logged(unit, answer)
    unit.answers.keep("me", once(key), answer, now=NOW)
    return answer


async def test_the_same_key_twice_in_one_commit_has_one_answer(store: Store) -> None:
    jobs = [(f"k{n % 3}", f"a{n}") for n in range(9)]
    told = await asyncio.gather(*(store.write(lambda unit, each=each: answered(unit, *each)) for each in jobs))
    assert told == ["a0", "a1", "a2"] * 3
    assert await store.read(lambda unit: unit.revision) == 3


async def test_an_answer_that_was_undone_is_not_given_again(store: Store) -> None:
    def undone(unit: Unit) -> None:
        answered(unit, "k", "wrong")
        raise ValueError

    done = await asyncio.gather(
        store.write(lambda unit: answered(unit, "other", "o")),
        store.write(undone),
        store.write(lambda unit: answered(unit, "k", "right")),
        return_exceptions=True,
    )
    assert (done[0], type(done[1]), done[2]) == ("o", ValueError, "right")


async def test_what_is_put_off_and_then_refused_fails_who_wanted_it_and_nobody_else(store: Store) -> None:
    await store.write(lambda unit: answered(unit, "taken", "first"))

    def blindly(unit: Unit) -> None:
        logged(unit, "blind")
        unit.answers.keep("me", once("taken"), "second", now=NOW)

    async def batch(*jobs: Callable[[Unit], object]) -> list[object]:
        heard.clear()
        return await asyncio.gather(*map(store.write, jobs), return_exceptions=True)

    heard: list[str] = []
    store.listen(lambda entries, rows: heard.extend(entry.type for entry in entries))
    alone = await batch(blindly)
    assert ([type(each) for each in alone], heard) == ([AlreadyThere], [])
    # The last one looks: what was put off is added then, and refused in the middle of another's job.
    looks = await batch(lambda unit: logged(unit, "one"), blindly, lambda unit: unit.requests.find("req-1"))
    assert (looks[0], type(looks[1]), looks[2], heard) == (2, AlreadyThere, None, ["one"])
    ends = await batch(lambda unit: logged(unit, "two"), blindly, lambda unit: answered(unit, "new", "three"))
    assert (ends[0], type(ends[1]), ends[2], heard) == (3, AlreadyThere, "three", ["two", "three"])
    assert (await store.write(lambda unit: answered(unit, "taken", "?"))) == "first"


async def test_who_takes_a_refusal_of_what_others_put_off_for_its_own_does_not_hide_it(store: Store) -> None:
    await store.write(lambda unit: answered(unit, "taken", "first"))

    def blindly(unit: Unit) -> None:
        unit.answers.keep("me", once("taken"), "second", now=NOW)

    def forgiving(unit: Unit) -> str:
        with suppress(Exception), unit.attempt():  # as a round of placing does with grants
            logged(unit, "granted")
        return "done"

    jobs = (lambda unit: answered(unit, "new", "mine"), blindly, forgiving)
    told = await asyncio.gather(*map(store.write, jobs), return_exceptions=True)
    assert (told[0], type(told[1]), told[2]) == ("mine", AlreadyThere, "done")
    assert (await store.write(lambda unit: answered(unit, "new", "?"))) == "mine"


async def test_who_looks_finds_what_is_put_off(store: Store) -> None:
    def job(unit: Unit) -> tuple[list[str], list[str]]:
        settled(unit)
        found = [request.id for request in unit.requests.open()]
        with suppress(ValueError), unit.attempt():
            unit.requests.add(replace(unit.requests.by_id(["req-1"])[0], id="req-undone"))
            raise ValueError
        return found, [request.id for request in unit.requests.open()]

    assert await store.write(job) == (["req-1"], ["req-1"])


async def test_the_log_forgets_what_is_old_but_goes_on_counting(store: Store) -> None:
    for n in range(5):
        await store.write(lambda unit, n=n: unit.log.add("e", at=NOW + timedelta(days=n)))
    assert await store.write(lambda unit: unit.log.forget(before=NOW + timedelta(days=3), most=2)) == 2
    assert await store.write(lambda unit: unit.log.forget(before=NOW + timedelta(days=3), most=2)) == 1
    assert await store.read(lambda unit: unit.log.oldest()) == 4
    assert await store.write(lambda unit: unit.log.forget(before=NOW + timedelta(days=30), most=9)) == 1
    assert await store.write(lambda unit: logged(unit, "next")) == 6


async def test_a_second_broker_process_on_one_sqlite_file_is_turned_away(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    migrate(url)
    store = await Store.open(url)
    program = (
        "import asyncio, sys\n"
        "from broker.store.engine import Store\n"
        "from broker.store.database import BadDatabase\n"
        "try:\n    asyncio.run(Store.open(sys.argv[1]))\n"
        "except BadDatabase as error:\n    print(error)\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Another broker process uses broker.db" in done.stdout
    with pytest.raises(BadDatabase):
        await Store.open(url)
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [leases._LIVE_REFS, leases._OPEN_FOR, leases._OF_LENDER, leases._DUE, leases._COUNTS, requests._OPEN],
    ids=["devices taken", "wanted of an agent", "lent by", "due", "counts", "open"],
)
def test_what_is_asked_all_day_reads_what_lives_and_not_what_ever_was(tmp_path: Path, statement: Select[Any]) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    migrate(url)
    words = re.sub(r"\(__\[POSTCOMPILE_\w+\]\)", "('x')", str(statement.compile(dialect=sqlite.dialect())))
    with closing(sqlite3.connect(tmp_path / "broker.db")) as opened:
        plan = [row[3] for row in opened.execute(f"EXPLAIN QUERY PLAN {words}", [None] * words.count("?"))]
    looks = [step for step in plan if step.startswith(("SCAN", "SEARCH"))]
    assert looks
    assert all(re.search(r"USING (COVERING )?INDEX (ix|uq)_", step) for step in looks), plan


async def test_sqlite_writes_are_durable_and_readers_are_not_writers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    migrate(url)
    store = await Store.open(url)
    pragmas = await store.write(
        lambda unit: [unit.ask(text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")]
    )
    assert pragmas == ["wal", 2]  # 2: FULL
    with sqlite3.connect(f"file:{tmp_path}/broker.db?mode=ro", uri=True) as other:
        assert other.execute("SELECT count(*) FROM leases").fetchone() == (0,)
    other.close()
    await store.close()


_WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from broker.store.engine import Store

async def main():
    store = await Store.open(sys.argv[1])
    async def client():
        while True:
            revision = await store.write(lambda unit: unit.log.add("kept", at=datetime.now(UTC)))
            print(revision, flush=True)
    await asyncio.gather(*(client() for _ in range(8)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill_at_any_instant(database_url: str) -> None:
    migrate(database_url)
    acknowledged: set[int] = set()
    for enough in (40, 15, 90):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, database_url, stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        lines = [int(await writer.stdout.readline()) for _ in range(enough)]
        writer.kill()
        rest = (await writer.stdout.read()).split(b"\n")
        await writer.wait()
        acknowledged |= set(lines) | {int(line) for line in rest[:-1]}
        store = await Store.open(database_url)
        found = await store.read(lambda unit: {entry.revision for entry in unit.log.after(0, most=100_000)})
        await store.close()
        assert acknowledged <= found
        assert found == set(range(1, len(found) + 1))


@pytest.mark.postgres
async def test_the_first_broker_on_a_postgresql_knows_that_it_is_the_first(postgres_url: str) -> None:
    migrate(postgres_url)
    one = await Store.open(postgres_url)
    two = await Store.open(postgres_url)
    assert (one.first, two.first) == (True, False)
    await one.close()
    three = await Store.open(postgres_url)
    assert not three.first
    await two.close()
    await three.close()
    four = await Store.open(postgres_url)
    assert four.first
    await four.close()


@pytest.mark.postgres
async def test_a_writer_whose_connection_was_cut_connects_again(postgres_url: str) -> None:
    migrate(postgres_url)
    store = await Store.open(postgres_url)
    killer = await Store.open(postgres_url)
    pid = await store.write(lambda unit: unit.ask(text("SELECT pg_backend_pid()")).scalar_one())
    await killer.write(lambda unit: unit.ask(text(f"SELECT pg_terminate_backend({pid})")).scalar_one())
    with pytest.raises(DBAPIError):
        await store.write(lambda unit: logged(unit, "lost"))
    assert await store.write(lambda unit: logged(unit, "kept")) == 1
    await store.close()
    await killer.close()


@pytest.mark.postgres
async def test_revisions_of_several_brokers_commit_in_order(postgres_url: str) -> None:
    migrate(postgres_url)
    stores = [await Store.open(postgres_url) for _ in range(3)]
    seen: list[int] = []

    async def watch() -> None:
        while len(seen) < 150:
            entries = await stores[0].read(lambda unit: unit.log.after(seen[-1] if seen else 0, most=500))
            seen.extend(entry.revision for entry in entries)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(
        *(stores[n % 3].write(lambda unit: logged(unit, "e")) for n in range(150)),
    )
    await asyncio.wait_for(watcher, 30)
    assert seen == list(range(1, 151))
    for store in stores:
        await store.close()
