"""What a section of the bench is, and what it hands back: a few figures, each beside what it should reach.

A section is a module of this package with a `SECTION`: the runner finds it by that name, so that adding one means
adding a file. Its `run` gets the `Bench` and returns an `Outcome`; it measures, and prints nothing itself but `say`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


class Absent(RuntimeError):
    """A section can't be run here; the text says in one line what is missing."""


@dataclass(frozen=True)
class Figure:
    """One figure and what it should reach on 2 cores."""

    what: str
    value: str
    """With its unit, as it is printed."""
    target: str = ""
    """What it should reach, and who says so; empty: for comparison only."""
    met: bool | None = None
    """Whether it did; None where there is no target."""


@dataclass(frozen=True)
class Grid:
    """Figures that belong together and have no target of their own: a row each."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """What a section found."""

    how: str
    """What was measured, and how, in a sentence or two: without it no figure means anything."""
    figures: Sequence[Figure]
    grids: Sequence[Grid] = ()
    data: Any = None
    """Everything that was measured, as JSON has it, where figures and grids are a digest."""


@dataclass
class Bench:
    """One run, as its sections see it."""

    quick: bool = False
    """Smoke: a tenth of the work; figures are then of no value, and the report says so."""
    large: bool = False
    """The instances that take minutes each, too."""
    parts: frozenset[str] = frozenset()
    """Of a section that has parts only these; none named: all."""
    k8s_version: str = "1.36"
    say: Callable[[str], None] = print
    """One line about what happens now."""
    ends: ExitStack = field(default_factory=ExitStack)
    """Closed when the run ends, however it ends: whoever starts a process enters it here."""
    _shared: dict[str, Any] = field(default_factory=dict)

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """Made by the first section that asks, used by the others: `make` enters what must end into `ends`."""
        if name not in self._shared:
            self._shared[name] = make()
        found: T = self._shared[name]
        return found

    def made(self, name: str) -> bool:
        """Some section asked for it."""
        return name in self._shared


@dataclass(frozen=True)
class Section:
    """A part of the bench that can be asked for by name."""

    name: str
    order: int
    """Sections run in this order; what disturbs the others comes late."""
    about: str
    """One line for the list of sections."""
    run: Callable[[Bench], Outcome]
    long: bool = False
    """Takes so long that it runs only where it is named."""
