"""Ours beside every peer on the same instances, through one checker: is a peer ever better?

    python -m tests.bench peers                         # federation, openb and the rolling replay
    python -m tests.bench peers --parts federation      # only these
    python -m tests.bench peers --large --json FILE     # with the largest instances; all of it as JSON

docs/peers.md says what each peer decides by, and where we are generous to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench import openb, versus_federation, versus_openb, versus_rolling
from tests.bench.federation import missing
from tests.bench.section import Absent, Bench, Figure, Grid, Outcome, Section


@dataclass
class Part:
    """What one kind of instance adds to the report."""

    grids: Sequence[Grid]
    better: Sequence[str]
    """"instance: peer, by how much": a line for each peer that is better on an instance."""
    compared: int
    """Instances."""
    data: Any = None
    figures: Sequence[Figure] = field(default_factory=tuple)


def _federation(bench: Bench) -> Part:
    groups = versus_federation.run(bench)
    better = [line for group in groups for line in group.better()]
    hurried = [line for group in groups for line in group.better_in_a_hurry()]
    return Part(
        grids=[group.grid() for group in groups],
        better=better,
        compared=sum(len(group.instances) for group in groups),
        data=[group.data() for group in groups],
        figures=[
            Figure(
                "federation: instances where a peer that took no longer is better than ours in a hurry",
                str(len(hurried)) + (f" ({'; '.join(hurried)})" if hurried else ""),
                "0",
                not hurried,
            )
        ],
    )


def _openb(bench: Bench) -> Part:
    if lack := openb.missing():
        raise Absent(lack)
    found = versus_openb.run(bench)
    return Part(
        grids=[versus_openb.grid(workload, rows) for workload, rows in found],
        better=[line for workload, rows in found for line in versus_openb.better(workload, rows)],
        compared=2 * len(found),
        data=versus_openb.data(found),
    )


def _rolling(bench: Bench) -> Part:
    settings = versus_rolling.run(bench)
    return Part(
        grids=[setting.grid() for setting in settings],
        better=[line for setting in settings for line in setting.better()],
        compared=len(settings),
        data=versus_rolling.data(settings),
    )


PARTS: dict[str, Callable[[Bench], Part]] = {"federation": _federation, "openb": _openb, "rolling": _rolling}


def run(bench: Bench) -> Outcome:
    if lack := missing():
        raise Absent(lack)
    if unknown := bench.parts - PARTS.keys():
        raise Absent(f"there is no part {sorted(unknown)[0]!r}; there are: {', '.join(PARTS)}")
    figures: list[Figure] = []
    grids: list[Grid] = []
    data: dict[str, Any] = {}
    named: list[str] = []
    for name, part in PARTS.items():
        if bench.parts and name not in bench.parts:
            continue
        found = part(bench)
        grids += found.grids
        data[name] = found.data
        figures += found.figures
        figures.append(
            Figure(
                f"{name}: instances on which a peer is better than ours (of {found.compared})",
                str(len({line.partition(": ")[0] for line in found.better})),
                "0",
                not found.better,
            )
        )
        named += found.better
    if named:
        grids.append(Grid("Instances on which a peer is better", ("instance and peer",), [[line] for line in named]))
    return Outcome(
        how=(
            "The same instances through ours and all peers, every plan through one independent checker. Welfare is "
            "Σ (value − cost) of what is placed; the gap is to the best bound that ours certified for the instance. "
            "Peers are given capacity, budgets and quotas, whether or not the real ones look at them."
        ),
        figures=figures,
        grids=grids,
        data=data,
    )


SECTION = Section(
    name="peers", order=90, about="ours beside every peer; about an hour, so only by name", run=run, long=True
)
