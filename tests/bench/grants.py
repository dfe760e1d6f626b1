"""How many leases a second a broker grants, and how much of that HTTP costs: on SQLite and on PostgreSQL.

Granted is: request accepted, devices reserved under the unique index, held (the lender's signed word), lease signed and
active, every step committed to disk before it is answered. The broker is a process as users run it (TLS, credentials,
chores and all), the lender a stand-in in a second one, the clients a third: this one. Beside it, in the same run, the
same service with the same statements on a fresh database of the same kind, called without HTTP.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from tests.bench.asking import Asker, request_for
from tests.bench.direct import BORROWER, LENDERS, TENANT
from tests.bench.figures import rate, seconds
from tests.bench.load import Load, over_https
from tests.bench.machine import cpu_seconds
from tests.bench.members import Members
from tests.bench.memory import note_memory
from tests.bench.section import Absent, Bench, Figure, Grid, Outcome, Section
from tests.bench.standin import GPUS, Orders, order
from tests.controlplane.postgres import NoPostgres, Postgres
from tests.e2e.world import ROOT

DEVICES = 8
GRANTS, QUICK_GRANTS = 4_000, 300
CLIENTS, QUICK_CLIENTS = 256, 32
PROMISED = 1_000.0
"""reliability.md §3.7."""
DIRECT_WITHIN_S = 180.0


@dataclass(frozen=True)
class Compared:
    """One database: over HTTPS, and without."""

    database: str
    https: Load
    direct: Load
    broker_cpu: float
    """Seconds of CPU the broker took for all of the grants."""
    statements: float
    """Seconds that the writer's statements take alone."""

    @property
    def floor(self) -> float:
        """Leases per second if there were nothing but the writer's statements."""
        return self.direct.granted / self.statements


def run(bench: Bench) -> Outcome:
    grants, clients = (QUICK_GRANTS, QUICK_CLIENTS) if bench.quick else (GRANTS, CLIENTS)
    found = []
    for name, fresh in (("SQLite", _sqlite), ("PostgreSQL", _postgres)):
        bench.say(f"{grants} grants on {name}, {clients} clients, over HTTPS")
        with fresh() as url:
            https, cpu = _over_https(bench, name, url(), grants=grants, clients=clients)
            bench.say(f"the same without HTTP, on another {name} database")
            direct, statements = _direct(url(), url(), grants=grants, clients=clients)
        found.append(Compared(name, https, direct, cpu, statements))
    return _outcome(found, grants=grants, clients=clients)


def _outcome(found: list[Compared], *, grants: int, clients: int) -> Outcome:
    figures = []
    for one in found:
        figures += [
            Figure(f"{one.database}, over HTTPS", rate(one.https.rate), "≥ 1,000/s", one.https.rate >= PROMISED),
            Figure(f"{one.database}, without HTTP", rate(one.direct.rate)),
            Figure(f"{one.database}, the statements alone", rate(one.floor)),
            Figure(
                f"{one.database}, over HTTPS as a part of these",
                f"{one.https.rate / one.direct.rate:.2f}, {one.https.rate / one.floor:.2f}",
            ),
        ]
    return Outcome(
        how=(
            f"{grants} leases of {DEVICES} devices, asked for by {clients} clients at once, each waiting for its own; "
            "TLS 1.3, bearer tokens, durable commits. Request accepted → reserved → held (signed report of a lender "
            "stand-in, without Kubernetes) → active and signed. Rate over the middle 80 % of the run. Without HTTP: "
            "the same service, clients and stand-in as calls in one process. The statements alone: what its writer "
            "said to its database, said again to a fresh one by the bare driver."
        ),
        figures=figures,
        grids=[
            Grid(
                "In detail",
                ("", "leases/s", "devices/s", "p50", "p99", "broker's CPU a lease"),
                [
                    (
                        f"{one.database}, {how}",
                        rate(load.rate),
                        rate(load.rate * DEVICES),
                        seconds(load.p50),
                        seconds(load.p99),
                        seconds(one.broker_cpu / load.granted) if load is one.https else "",
                    )
                    for one in found
                    for how, load in (("over HTTPS", one.https), ("without HTTP", one.direct))
                ],
            )
        ],
    )


def _nodes(grants: int) -> int:
    """Nodes of each lender, so that there are a few more devices than will be asked for."""
    return (grants * DEVICES) // (GPUS * len(LENDERS)) + 8


def _over_https(bench: Bench, name: str, url: str, *, grants: int, clients: int) -> tuple[Load, float]:
    env = {"LENDMESH_BROKER_DATABASE_URL": url}
    with Members(broker_env=env) as world:
        broker = world.start_broker()
        with _standing_in(world, nodes=_nodes(grants)):
            before = cpu_seconds(broker)
            load = uvloop.run(_load(world, grants=grants, clients=clients))
            cpu = cpu_seconds(broker) - before
            note_memory(bench, {f"broker on {name}": broker}, "grants")
    return load, cpu


@contextmanager
def _standing_in(world: Members, *, nodes: int) -> Iterator[None]:
    """A process that is the borrower's cluster and all lenders, until the block ends."""
    tokens = asyncio.run(_join_tokens(world))
    orders = Orders(
        url=world.url,
        ca=str(world.ca),
        lenders={name: tokens[name] for name in LENDERS},
        borrower=BORROWER,
        borrower_token=tokens[BORROWER],
        nodes=nodes,
    )
    log = world.directory / "standin.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.standin"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(order(orders))
        process.stdin.flush()
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the lender's stand-in ended:\n{log.read_text()[-2_000:]}")
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=30)


async def _join_tokens(world: Members) -> dict[str, str]:
    async with world.asker() as admin:
        return {
            name: (await admin.post("/v1/join-tokens", {"cluster": name, "tenant": TENANT}))["secret"]
            for name in (BORROWER, *LENDERS)
        }


async def _load(world: Members, *, grants: int, clients: int) -> Load:
    async with world.asker() as admin:
        token = {"name": "bench", "tenant": TENANT, "scopes": ["read", "request"]}
        secret = (await admin.post("/v1/tokens", token))["secret"]
    body = request_for(DEVICES, cluster=BORROWER)
    async with Asker(url=world.url, token=secret, ca=world.ca, connections=clients + 1) as asker:
        return await over_https(asker, body, clients=clients, grants=grants)


def _direct(url: str, other: str, *, grants: int, clients: int) -> tuple[Load, float]:
    """Also the seconds that the statements take alone, on the other database."""
    argv = [sys.executable, "-m", "tests.bench.direct", url, other, str(grants), str(clients), str(_nodes(grants))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=DIRECT_WITHIN_S)
    if done.returncode != 0:
        raise RuntimeError(f"tests.bench.direct ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    load, statements = done.stdout.splitlines()[-2:]
    return Load(**json.loads(load)), float(statements)


@contextmanager
def _sqlite() -> Iterator[Callable[[], str]]:
    with TemporaryDirectory(prefix="lendmesh-bench-") as directory:
        numbers = iter(range(9))
        yield lambda: f"sqlite:///{Path(directory) / f'{next(numbers)}.db'}"


@contextmanager
def _postgres() -> Iterator[Callable[[], str]]:
    try:
        server = Postgres.start(durable=True)
    except NoPostgres as reason:
        raise Absent(str(reason)) from reason
    with server:
        yield lambda: server.url(server.create())


SECTION = Section(name="grants", order=5, about="leases granted per second, with and without HTTP", run=run)
