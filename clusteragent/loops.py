"""Loops that outlive a bad step but never die in silence.

One bad step must not stop its loop; one dead loop must stop the process: a half-alive agent looks healthy and isn't. So
``Backoff`` paces a loop's next try and ``supervised`` runs loops together and ends with the first that ends.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("agent")


class Backoff:
    """Pauses that double up to a limit, with jitter so that a thousand agents don't come back in step.

    Seconds. ``reset`` after success.
    """

    def __init__(self, *, first: float = 0.1, longest: float = 10.0) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    def delay(self) -> float:
        """The next pause; half to all of it, at random."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 (no secret depends on it)


class Loop:
    """Level-triggered: a nudge makes the next look sooner, never different.

    ``step`` reads everything it needs and does what there is to do. It runs once at the start, after every nudge, and
    at least every ``every`` seconds (None: on nudges alone). A step that fails is tried again after a pause.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[None]], *, every: float | None = None) -> None:
        self.name, self._step, self._every = name, step, every
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        self._nudged.set()

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            self._nudged.clear()  # before the step: a nudge that comes during it counts
            pause = self._every
            try:
                await self._step()
                backoff.reset()
            except Exception as error:
                pause = backoff.delay()
                log.warning("loop.failed", loop=self.name, error=describe(error), again_s=round(pause, 2))
            try:
                async with asyncio.timeout(pause):
                    await self._nudged.wait()
            except TimeoutError:
                pass


def describe(error: BaseException) -> str:
    """An error for the log: its kind and its sentence, cut."""
    return f"{type(error).__name__}: {error}"[:500]


async def supervised(*loops: Coroutine[Any, Any, None]) -> None:
    """Run loops until one ends, whichever way; the others are cancelled and its error is raised."""
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError("a loop of the agent ended, which none should")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
