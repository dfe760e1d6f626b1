"""How much memory an agent takes that watches 1,000 devices, and the broker after everything the bench did to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.figures import mebibytes
from tests.bench.machine import highest_rss, rss
from tests.bench.members import GPUS, Members, furnish, names_of, shared_members
from tests.bench.section import Bench, Figure, Grid, Outcome, Section
from tests.e2e.world import eventually

DEVICES, QUICK_DEVICES = 1_000, 160
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
    world = shared_members(bench)
    bench.say(f"letting the lender grow to {devices} devices")
    nodes = names_of(devices // GPUS)
    furnish(world.clusters["b"], nodes[len(world.clusters["b"].api.list("/api/v1/nodes")) :])
    eventually(lambda: _knows(world, devices), what=f"{devices} devices at the broker")
    note_memory(bench, world.pids, "memory")
    notes: list[Note] = bench.shared("memory notes", list)
    agent = next(note for note in notes if note.section == "memory" and note.process == "agent-b")
    return Outcome(
        how=(
            f"Resident memory: of the lender's agent once the broker has heard of all {devices} devices from it; of "
            "the broker at the end of every section that ran before this one."
        ),
        figures=[
            Figure(f"agent at {devices} devices", mebibytes(agent.now), "< 150 MiB", agent.now < AGENT_MOST),
            *_brokers(notes),
        ],
        grids=[
            Grid(
                "At the end of each section",
                ("section", "process", "resident", "most ever"),
                [(note.section, note.process, mebibytes(note.now), mebibytes(note.highest)) for note in notes],
            )
        ],
    )


def _brokers(notes: list[Note]) -> list[Figure]:
    """The most a broker held at the end of a section: with real clusters, and after thousands of grants."""
    kinds = (
        ("of two clusters", [BROKER]),
        ("after the grants", [note.process for note in notes if " on " in note.process]),
    )
    found = []
    for what, processes in kinds:
        if held := [note.now for note in notes if note.process in processes]:
            found.append(Figure(f"broker {what}", mebibytes(max(held)), "< 300 MiB", max(held) < BROKER_MOST))
    return found


def _knows(world: Members, devices: int) -> bool:
    """The broker has heard of so many devices from the lender's agent."""
    return any(one["name"] == "b" and one["devices"].get("total") == devices for one in world.ask("clusters"))


SECTION = Section(name="memory", order=90, about="resident memory of agent and broker", run=run)
