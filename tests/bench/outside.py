"""Peers with libraries that we don't want beside ours: SkyPilot itself, and CBC through PuLP.

They run in one environment of their own, made on demand from `outside.txt` in the cache directory that the control
planes use, and driven by lines of JSON. Where it can't be made, each of them is absent, with the reason; nothing else
suffers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench.board import Board, Room, settled
from tests.bench.exact import model
from tests.bench.peers import Peer, arrival
from tests.bench.section import Absent
from tests.controlplane.toolchain import cache_dir

NEEDS = Path(__file__).with_name("outside.txt")
WORKER = Path(__file__).with_name("outside_worker.py")
SPOT = "/spot/"
"""What marks a spot offer in the ids of `federation`."""
PATIENCE_S = 900
"""For one answer."""
NODE = 8
"""Devices in the largest node that SkyPilot is offered."""


def environment(say: Callable[[str], None]) -> Path:
    """The Python of the peers' environment, made now if it isn't there (half a minute).

    :raises Absent: it can't be made; the text is one line.
    """
    if made := at_hand():
        return made
    home = _home()
    python = home / "bin/python"
    say("making the peers' own environment: first time only, about a minute …")
    try:
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(NEEDS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Absent(f"the peers' environment can't be made: {error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Absent(f"the peers' environment can't be installed: {last[:200]}")
    (home / ".complete").touch()
    return python


def at_hand() -> Path | None:
    """The same where it is there already; nothing is made."""
    return _home() / "bin/python" if (_home() / ".complete").exists() else None


def _home() -> Path:
    digest = hashlib.sha256(NEEDS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    return cache_dir() / f"peers-{digest}"


class Worker:
    """The process in the other environment: one question, one answer, until the context ends."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )

    def ask(self, do: str, **what: Any) -> Mapping[str, Any]:
        """:raises Absent: it answered with an error, or ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
        # Whoever finds no end is ended; the answer is then an empty line.
        patience = threading.Timer(PATIENCE_S, self._process.kill)
        patience.start()
        try:
            line = self._process.stdout.readline()
        finally:
            patience.cancel()
        if not line:
            raise Absent(f"the peers' process ended, or took above {PATIENCE_S} s, when it was asked for {do}")
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise Absent(f"{do}: {answer['error']}")
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def worker(python: Path) -> Iterator[Worker]:
    """A process that ends with the context."""
    one = Worker(python)
    try:
        yield one
    finally:
        one.end()


def cbc(python: Path, seconds: float) -> Peer:
    """The whole to CBC through PuLP, cold; money in dollars."""

    def solved(board: Board) -> list[int]:
        given = model(board)
        rows = []
        for columns, weights, limit in given.rows:
            scale = 1e6 if limit > 10**6 else 1.0
            rows.append((columns.tolist(), (weights / scale).tolist(), limit / scale))
        with worker(python) as process:
            chosen = process.ask("cbc", profit=(given.profit / 1e6).tolist(), rows=rows, seconds=seconds)["chosen"]
        return settled(board, (int(given.pairs[at]) for at in chosen)) if chosen else []

    return solved


def skypilot(python: Path, *, note: Callable[[str], None] = lambda _: None) -> Peer:
    """SkyPilot's own optimizer for each request in turn, and a fail-over that is told what is free.

    The optimizer chooses among offers by price × time, knowing neither capacity, nor budgets, nor other requests, nor
    where the data is. The fail-over is ours and generous: a request whose choice is full, over its budget or not
    admitted goes to the next in the optimizer's own order of costs, without provisioning anything in vain. Requests
    that look the same to it are asked once.
    """

    def planned(board: Board) -> list[int]:
        offers = [(group.kind, group.price_micros / 1e6, SPOT in group.id) for group in board.groups]
        at = {group.id: index for index, group in enumerate(board.groups)}
        with worker(python) as process:
            process.ask("skypilot", offers=offers)
            known: dict[Any, list[int]] = {}
            took = []

            def ranking(ask: int) -> list[int]:
                want = board.asks[ask]
                suits = range(len(offers)) if want.matched is None else sorted(at[name] for name in want.matched)
                kinds = tuple(sorted({offers[index][0] for index in suits}))
                spots = tuple(sorted({offers[index][2] for index in suits}))
                count, nodes = nodes_for(want.devices)
                key = (kinds, spots, count, nodes)
                if key not in known:
                    answer = process.ask("rank", kinds=kinds, spots=spots, count=count, nodes=nodes)
                    known[key] = answer["offers"]
                    took.append(answer["seconds"])
                return known[key]

            chosen = fail_over(board, ranking)
        if took:
            each = sum(took) / len(took)
            note(f"SkyPilot: {len(took)} different calls for {len(board.asks)} requests, {each:.2f} s each")
        return chosen

    return planned


def nodes_for(devices: int) -> tuple[int, int]:
    """(devices in a node, nodes): the fewest nodes that divide the request evenly."""
    count = next(size for size in range(min(NODE, devices), 0, -1) if devices % size == 0)
    return count, devices // count


def fail_over(board: Board, ranking: Callable[[int], list[int]]) -> list[int]:
    """In order of arrival, each request to the first group of its ranking that is eligible and still holds it."""
    room, chosen = Room(board), []
    for ask in arrival(board):
        own = board.of(ask)
        fit = room.fits(ask)
        if fit.any():
            free = {int(group): own.start + row for row, group in enumerate(board.group[own]) if fit[row]}
            pair = next((free[group] for group in ranking(ask) if group in free), None)
            if pair is not None:
                room.take(pair)
                chosen.append(pair)
    return chosen


def asked(python: Path, seconds: float, note: Callable[[str], None]) -> Mapping[str, Peer]:
    """By name; the solver is given so many seconds."""
    return {"SkyPilot 0.14.1 with fail-over": skypilot(python, note=note), "CBC alone": cbc(python, seconds)}


def timed(peer: Peer, board: Board) -> tuple[list[int], float]:
    """The plan, and the seconds it took."""
    began = time.perf_counter()
    plan = peer(board)
    return plan, time.perf_counter() - began
