"""How hard to try, when to stop, and who hears how far it is."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, Thread
from time import sleep

AGAIN_S = 0.05
"""So often a solver is told again to end."""


class Stop:
    """A way to end a running solve from another thread: it answers soon with the best plan it has."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._asked = False
        self._running: list[Callable[[], object]] = []

    @property
    def asked(self) -> bool:
        """Somebody wants it to end."""
        return self._asked

    def now(self) -> None:
        """End it; more than once is no harm."""
        with self._lock:
            self._asked = True
        self._insist()

    @contextmanager
    def stopping(self, end: Callable[[], object]) -> Iterator[None]:
        """While inside, ``now`` calls ``end`` too; at once where it was asked before."""
        with self._lock:
            self._running.append(end)
            asked = self._asked
        if asked:
            self._insist()
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(end)

    def _insist(self) -> None:
        """End what runs, and again until it has: a solver that is told before it has begun hears nothing."""
        if self._end_all():
            Thread(target=self._until_ended, name="stop", daemon=True).start()

    def _until_ended(self) -> None:
        while self._end_all():
            sleep(AGAIN_S)

    def _end_all(self) -> bool:
        with self._lock:
            running = list(self._running)
        for end in running:
            end()
        return bool(running)


@contextmanager
def uncollected() -> Iterator[None]:
    """No look for garbage meanwhile: of tens of thousands of answers none is any, and each look is at all of them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True)
class Effort:
    """How hard to try."""

    seconds: float
    """Wall time left."""
    deterministic: float | None
    """CP-SAT's own measure of work; with one worker it makes a run that is cut short repeatable."""
    seed: int
    workers: int
    gap: float = 0.0
    """Relative distance from the best at which to stop."""
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a solve is."""

    seconds: float
    """Since it began."""
    stage: str
    goal: str
    """The most important one that is not proved best; empty where all are."""
    reached: int | None
    bound: int | None
    """What no plan can pass in that goal; None where nothing is known yet."""


Watch = Callable[[Progress], None]
