"""What the agent's loops have in common: how they try again, how they name an error, how they end together.

One bad step must not stop its loop; one dead loop must stop the process: a half-alive agent looks healthy and isn't.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any


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
