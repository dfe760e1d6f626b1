"""Loops: a nudge is never lost, a bad step never ends one, a dead one never goes unseen; log lines have one shape."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from broker.kit import logs
from broker.kit.loops import Loop, supervised


@pytest.fixture
def quiet() -> Iterator[None]:
    """Leaves the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_a_nudge_that_comes_during_a_step_leads_to_another() -> None:
    inside, go, seen = asyncio.Event(), asyncio.Event(), asyncio.Event()
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            inside.set()
            await go.wait()
        else:
            seen.set()

    loop = Loop("test", step, every=3_600)
    async with supervised([loop]):
        await inside.wait()
        loop.nudge()
        loop.nudge()
        go.set()
        async with asyncio.timeout(20):
            await seen.wait()
    assert steps == 2


async def test_without_a_nudge_it_looks_again_when_the_step_said() -> None:
    again = asyncio.Event()
    answers: Iterator[float | None] = iter([0.0, 0.01, None])

    async def step() -> float | None:
        answer = next(answers)
        if answer is None:
            again.set()
        return answer

    async with supervised([Loop("test", step, every=3_600)]), asyncio.timeout(20):
        await again.wait()


async def test_a_step_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    well = asyncio.Event()
    tries = 0

    async def step() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RuntimeError("on purpose")
        well.set()

    loop = Loop("test", step, every=3_600)
    async with supervised([loop]), asyncio.timeout(20):
        await well.wait()
    assert tries == 3
    assert loop.failures == 0


async def test_a_loop_that_ends_by_itself_is_reported() -> None:
    class Short(Loop):
        async def run(self) -> None:
            return

    async def step() -> None: ...

    died: asyncio.Queue[str] = asyncio.Queue()
    async with supervised([Short("short", step, every=1)], died=died.put_nowait), asyncio.timeout(20):
        assert await died.get() == "short"


async def test_nothing_beats_after_the_end() -> None:
    beats = 0

    async def step() -> float:
        nonlocal beats
        beats += 1
        return 0.0

    async with supervised([Loop("test", step, every=1)]):
        await asyncio.sleep(0)
    last = beats
    for _ in range(10):
        await asyncio.sleep(0)
    assert beats == last


@pytest.mark.usefixtures("quiet")
def test_our_lines_and_the_libraries_have_one_shape_and_tell_no_secret() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    structlog.stdlib.get_logger("ours").info("lease granted", lease="lse-1", token="lmt_secret", deep={"password": "p"})
    logging.getLogger("theirs").warning("hello %s", "world", extra={"authorization": "Bearer lmt_secret"})
    ours, theirs = (json.loads(line) for line in out.getvalue().splitlines())
    assert (ours["event"], ours["lease"], ours["level"], ours["logger"]) == ("lease granted", "lse-1", "info", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("hello world", "warning", "theirs")
    assert set(ours) & {"timestamp"} == set(theirs) & {"timestamp"} == {"timestamp"}
    assert "lmt_secret" not in out.getvalue()
    assert ours["deep"] == {"password": logs.MASK}


@pytest.mark.usefixtures("quiet")
def test_an_exception_is_a_field_of_its_line() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("step failed")
    (line,) = out.getvalue().splitlines()
    assert "broken" in json.dumps(json.loads(line)["exception"])
