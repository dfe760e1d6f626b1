"""How much memory an agent takes that watches 1,000 devices, and the broker after everything the bench did to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.asking import Asker
from tests.bench.figures import mebibytes
from tests.bench.machine import highest_rss, rss
from tests.bench.members import GPUS, members
from tests.bench.section import Bench, Figure, Grid, Outcome, Section

DEVICES, QUICK_DEVICES = 1_000, 80
AGENT_MOST, BROKER_MOST = 150 << 20, 300 << 20
BROKER = "broker"


@dataclass(frozen=True)
class Note:
    """What one process held in RAM at the end of a section, in bytes."""

    section: str
    process: str
    now: int
    highest: int


def note_memory(bench: Bench, pids: Mapping[str, int], section: str) -> None:
    """Remember how much these processes hold now."""
    notes: list[Note] = bench.shared("memory notes", list)
    for process, pid in pids.items():
        notes.append(Note(section, process, rss(pid), highest_rss(pid)))


def run(bench: Bench) -> Outcome:
    devices = QUICK_DEVICES if bench.quick else DEVICES
    with members(bench, nodes=devices // GPUS) as world:
        note_memory(bench, world.pids, "memory")
        heard = asyncio.run(_known(world.asker()))
    notes: list[Note] = bench.shared("memory notes", list)
    agent = next(note for note in notes if note.section == "memory" and note.process == "agent-b")
    brokers = [note for note in notes if note.process.startswith(BROKER)]
    most = max(brokers, key=lambda note: note.now)
    return Outcome(
        how=(
            f"Resident memory: of the lender's agent once {heard} devices are on offer; of the broker at the end of "
            "every section that ran before this one."
        ),
        figures=[
            Figure(f"agent at {heard} devices", mebibytes(agent.now), "< 150 MiB", agent.now < AGENT_MOST),
            Figure("broker, at most", f"{mebibytes(most.now)} ({most.section})", "< 300 MiB", most.now < BROKER_MOST),
        ],
        grids=[
            Grid(
                "At the end of each section",
                ("section", "process", "resident", "most ever"),
                [(note.section, note.process, mebibytes(note.now), mebibytes(note.highest)) for note in notes],
            )
        ],
    )


async def _known(asker: Asker) -> int:
    async with asker:
        return sum(offer["devices"] for offer in (await asker.get("/v1/offers"))["items"])


SECTION = Section(name="memory", order=90, about="resident memory of agent and broker", run=run)
