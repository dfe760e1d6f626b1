"""Loops that keep something true: level-triggered, nudgeable, and watched over.

A nudge makes the next look sooner, never different: a step reads everything it needs. One bad step doesn't stop a loop
(it is logged and tried again, later each time); a loop that ends by itself is a defect and stops whoever supervises it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

Step = Callable[[], Awaitable[float | None]]
"""Does what is to do; answers in how many seconds to look again at the latest (None: the usual interval)."""

_log = structlog.stdlib.get_logger(__name__)
LONGEST_BACKOFF_S = 30.0


class Loop:
    """Run ``step`` at least every ``every`` seconds, and soon after each ``nudge``."""

    def __init__(self, name: str, step: Step, *, every: float) -> None:
        self.name = name
        self._step = step
        self._every = every
        self._nudged = asyncio.Event()
        self.steps = 0
        """Steps that went well."""
        self.failures = 0
        """Steps in a row that didn't."""

    def nudge(self) -> None:
        self._nudged.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._nudged.clear()  # before the step: a nudge that comes during it counts
            wait = await self.once()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._nudged.wait()

    async def once(self) -> float:
        """One step; seconds until the next at the latest."""
        try:
            soon = await self._step()
        except Exception:
            self.failures += 1
            _log.exception("step failed", loop=self.name, failures=self.failures)
            pause: float = min(LONGEST_BACKOFF_S, 0.1 * 2.0 ** min(self.failures, 12))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter, nothing secret)
            return 0.0
        self.steps += 1
        self.failures = 0
        return self._every if soon is None else max(0.0, min(soon, self._every))


@asynccontextmanager
async def supervised(loops: Sequence[Loop], *, died: Callable[[str], None] | None = None) -> AsyncIterator[None]:
    """Run the loops for as long as the block lasts. ``died``: called with the name of one that ended by itself."""
    tasks: dict[asyncio.Task[None], str] = {}

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical("loop died", loop=tasks[task], error=repr(task.exception()))
            if died is not None:
                died(tasks[task])

    for loop in loops:
        task = asyncio.create_task(loop.run(), name=f"loop-{loop.name}")
        tasks[task] = loop.name
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
