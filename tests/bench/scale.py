"""Two hundred clusters, a hundred thousand devices, five hundred mixed requests: how soon does each have its answer?

From sending the POST to hearing, on the tenant's watch stream, that the request is placed (with the placement and why
the others lost) or refused (with the reasons). The broker is a process as users run it, the clusters' agents are
played by another that speaks as they do: signed adverts, heartbeats, reports, a stream each. Quotes are asked for
first, and counted: every table must have as many rows afterwards as before.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

import uvloop
from sqlalchemy import create_engine, func, select

from broker.store import tables
from tests.bench.asking import Asker, Object, Refused
from tests.bench.figures import percentile, seconds
from tests.bench.fleet import Fleet, order
from tests.bench.grants import _postgres, _sqlite
from tests.bench.machine import child_of, cpu_seconds
from tests.bench.members import Members
from tests.bench.memory import note_memory
from tests.bench.mixed import BORROWERS, CLUSTERS, DEVICES, QUICK_CLUSTERS, TENANTS, policies, requests, tenant_of
from tests.bench.section import Bench, Figure, Grid, Outcome, Section
from tests.e2e.world import ROOT

ASKED, QUICK_ASKED = 500, 50
SPREAD_S = 5.0
"""A fleet's requests come within so many seconds; and, harder, all at once."""
QUOTES_S = 10.0
QUOTES, SPREAD, AT_ONCE = "quotes", f"requests within {SPREAD_S:.0f} s", "requests at once"
WITHIN_S = 60.0
PROMISED_S = 1.0
"""Issue 5, item 8: p99, «no, because» included."""
DATABASE = "LENDMESH_BENCH_DATABASE"
"""``postgresql``: on that instead of SQLite."""


@dataclass
class Answers:
    """How long each took, by what came of it."""

    placed: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    posted: list[float] = field(default_factory=list)
    """Until the POST itself was answered."""
    reasons: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    """Told to come back: too many at once."""
    unexplained: int = 0
    """Placed without a placement, or refused without a reason: must stay 0."""

    @property
    def all(self) -> list[float]:
        return [*self.placed, *self.refused]

    def note(self, took: float, view: Object) -> None:
        if view["state"] == "Refused":
            self.refused.append(took)
            self.reasons.update({reason["reason"] for reason in view["reasons"]})
            self.unexplained += not (view["reasons"] and view["message"])
        else:
            self.placed.append(took)
            self.unexplained += not view["placement"]


@dataclass(frozen=True)
class Measured:
    """One run."""

    quotes: Answers
    spread: Answers
    at_once: Answers
    traces: Mapping[str, int]
    """Table → rows that the quotes left; must be empty."""
    cpu: Mapping[str, Mapping[str, float]]
    """Phase → process → seconds of CPU: all of them share this machine's cores."""
    wall: Mapping[str, float]
    """Phase → seconds."""


def run(bench: Bench) -> Outcome:
    clusters, asked = (QUICK_CLUSTERS, QUICK_ASKED) if bench.quick else (CLUSTERS, ASKED)
    name = "PostgreSQL" if os.environ.get(DATABASE) == "postgresql" else "SQLite"
    with (_postgres if name == "PostgreSQL" else _sqlite)() as fresh:
        url = fresh()
        with Members(broker_env={"LENDMESH_BROKER_DATABASE_URL": url}) as world:
            broker = world.start_broker()
            bench.say(f"{clusters} clusters join and offer {clusters * DEVICES} devices, on {name}")
            with _fleet(world, clusters=clusters) as fleet:
                bench.say(f"{asked} quotes, then {asked} requests within {SPREAD_S:.0f} s, then {asked} at once")
                processes = {"broker": broker, "solver": child_of(broker), "clusters": fleet, "tenants": os.getpid()}
                found = uvloop.run(_measure(world, url, processes, asked=asked))
                note_memory(bench, {"broker": broker}, "scale")
    return _outcome(found, name=name, clusters=clusters, asked=asked)


def _outcome(found: Measured, *, name: str, clusters: int, asked: int) -> Outcome:
    phases = (
        (QUOTES, found.quotes),
        (SPREAD, found.spread),
        (AT_ONCE, found.at_once),
    )
    if lost := sum(answers.unexplained for _, answers in phases):
        raise AssertionError(f"{lost} answers came without a placement or a reason")
    return Outcome(
        how=(
            f"{clusters} clusters with {clusters * DEVICES} devices in about {clusters * 11 // 4} offers, each with an "
            f"agent's streams, heartbeats and reports; {asked} mixed requests of {len(BORROWERS)} borrowers in "
            f"{len(TENANTS)} tenants, on {name}, TLS 1.3, on connections that are open. From sending the POST to "
            "hearing on the tenant's watch that it is placed, or refused with the reasons. Quotes (within "
            f"{QUOTES_S:.0f} s): from POST to answer; every table must have as many rows afterwards as before."
        ),
        figures=[
            Figure(f"{what}, p99", seconds(percentile(answers.all, 99)), "< 1 s", percentile(answers.all, 99) < 1)
            for what, answers in phases
        ]
        + [
            Figure("rows and events that quotes left", str(sum(found.traces.values())), "0", not found.traces),
            Figure("quotes told to come back (503)", str(found.quotes.busy), "0", not found.quotes.busy),
        ],
        grids=[
            Grid(
                "In detail",
                ("", "answers", "p50", "p99", "slowest"),
                [
                    (
                        f"{what}, {outcome}",
                        str(len(times)),
                        seconds(percentile(times, 50)),
                        seconds(percentile(times, 99)),
                        seconds(max(times)),
                    )
                    for what, answers in phases
                    for outcome, times in (
                        ("refused", answers.refused),
                        ("placed", answers.placed),
                        ("POST answered", answers.posted),
                    )
                    if times
                ],
            ),
            Grid(
                "Whose CPU it took, all on the same cores (the clusters' agents and the tenants are the bench's own)",
                ("", "lasted", *next(iter(found.cpu.values()))),
                [
                    (what, seconds(found.wall[what]), *(seconds(took) for took in found.cpu[what].values()))
                    for what, _ in phases
                ],
            ),
            Grid(
                "Why requests were refused",
                ("reason", "requests"),
                [
                    (reason, str(count))
                    for reason, count in (found.spread.reasons + found.at_once.reasons).most_common(20)
                ],
            ),
        ],
    )


# --- the world -------------------------------------------------------------------------------------------------------


@contextmanager
def _fleet(world: Members, *, clusters: int) -> Iterator[int]:
    """A process that is all clusters, until the block ends; everything is on offer when it begins. Its pid."""
    names = (*BORROWERS, *(f"lender-{number:03d}" for number in range(clusters)))
    fleet = Fleet(url=world.url, ca=str(world.ca), tokens=asyncio.run(_join_tokens(world, names)), clusters=clusters)
    log = world.directory / "fleet.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.fleet"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(order(fleet))
        process.stdin.flush()
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the fleet ended:\n{log.read_text()[-2_000:]}")
        yield process.pid
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=60)


async def _join_tokens(world: Members, names: Sequence[str]) -> dict[str, str]:
    async with world.asker() as admin:
        tokens = {}
        for name in names:
            tenant = tenant_of(name) if name in BORROWERS else f"owner-of-{name}"
            tokens[name] = (await admin.post("/v1/join-tokens", {"cluster": name, "tenant": tenant}))["secret"]
        return tokens


# --- the measurement -------------------------------------------------------------------------------------------------


class Tenant:
    """A tenant's tool: its connections, its watch, and who waits for which answer."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self._told: dict[str, tuple[float, Object]] = {}
        self._waits: dict[str, asyncio.Future[tuple[float, Object]]] = {}

    def hear(self, now: float, view: Object) -> None:
        if view["state"] == "Open" or view["id"] in self._told:
            return
        self._told[view["id"]] = now, view
        if (wait := self._waits.pop(view["id"], None)) is not None and not wait.done():
            wait.set_result((now, view))

    async def ask(self, body: Object, into: Answers) -> None:
        began = time.perf_counter()
        made = await self.asker.post("/v1/requests", body)
        into.posted.append(time.perf_counter() - began)
        if made["id"] not in self._told:
            wait = self._waits[made["id"]] = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(WITHIN_S):
                await wait
        heard, view = self._told[made["id"]]
        into.note(heard - began, view)

    async def quote(self, body: Object, into: Answers) -> None:
        began = time.perf_counter()
        try:
            view = await self.asker.post("/v1/quotes", body)
        except Refused as error:
            if ": 503: " not in str(error):
                raise
            into.busy += 1
        else:
            into.note(time.perf_counter() - began, view)


async def _measure(world: Members, url: str, processes: Mapping[str, int], *, asked: int) -> Measured:
    cpu: dict[str, dict[str, float]] = {}
    wall: dict[str, float] = {}

    async def timed(what: str, work: Awaitable[Answers]) -> Answers:
        began, before = time.perf_counter(), {name: cpu_seconds(pid) for name, pid in processes.items()}
        answers = await work
        wall[what] = time.perf_counter() - began
        cpu[what] = {name: cpu_seconds(pid) - before[name] for name, pid in processes.items()}
        return answers

    async with AsyncExitStack() as stack:
        await _set_policies(world)
        tenants = {name: await _tenant(stack, world, name, connections=asked // len(TENANTS) + 4) for name in TENANTS}
        for tenant in tenants.values():  # every connection is open before anything is measured
            await asyncio.gather(*(tenant.asker.get("/v1/requests?limit=1") for _ in range(asked // len(TENANTS) + 2)))
        await _phase(tenants, requests(20, seed=0), quotes=True, within=1.0)
        before = await asyncio.to_thread(_rows, url)
        quotes = await timed(QUOTES, _phase(tenants, requests(asked, seed=1), quotes=True, within=QUOTES_S))
        after = await asyncio.to_thread(_rows, url)
        spread = await timed(SPREAD, _phase(tenants, requests(asked, seed=2), within=SPREAD_S))
        await asyncio.sleep(5)  # the leases of the first are signed and told meanwhile
        at_once = await timed(AT_ONCE, _phase(tenants, requests(asked, seed=3), within=0))
    traces = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    return Measured(quotes=quotes, spread=spread, at_once=at_once, traces=traces, cpu=cpu, wall=wall)


async def _phase(
    tenants: Mapping[str, Tenant], bodies: Sequence[Object], *, within: float, quotes: bool = False
) -> Answers:
    """All bodies, at moments spread evenly at random over so many seconds."""
    rng = random.Random(len(bodies))
    answers = Answers()

    async def one(body: Object, at: float) -> None:
        await asyncio.sleep(at)
        tenant = tenants[tenant_of(body["cluster"])]
        await (tenant.quote if quotes else tenant.ask)(body, answers)

    async with asyncio.TaskGroup() as tasks:
        for body in bodies:
            tasks.create_task(one(body, rng.uniform(0, within)))
    return answers


async def _tenant(stack: AsyncExitStack, world: Members, name: str, *, connections: int) -> Tenant:
    async with world.asker() as admin:
        token = {"name": "bench", "tenant": name, "scopes": ["read", "request"]}
        secret = (await admin.post("/v1/tokens", token))["secret"]
    asker = await stack.enter_async_context(Asker(url=world.url, token=secret, ca=world.ca, connections=connections))
    tenant = Tenant(asker)
    await stack.enter_async_context(asker.follow("/v1/requests/watch", tenant.hear))
    return tenant


async def _set_policies(world: Members) -> None:
    async with world.asker() as admin:
        for borrower, each in policies().items():
            for name, spec in each.items():
                await admin.put(f"/v1/burst-policies/{borrower}/{name}", spec)


def _rows(url: str) -> dict[str, int]:
    """Rows in every table."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.connect() as connection:
            return {
                table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
                for table in tables.metadata.sorted_tables
            }
    finally:
        engine.dispose()


SECTION = Section(name="scale", order=8, about="500 mixed requests against 100,000 devices in 200 clusters", run=run)
