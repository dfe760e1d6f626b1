"""The log, as it is really written: nothing secret in it, also when something breaks."""

import asyncio
import io
import json
import logging

import pytest
import structlog

from broker.kit import logs
from tests.web_room import Shelf, bearer, room


@pytest.fixture
def written():
    """What is logged from here on, and a function that sets logging up; undone afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:], _ = before
    root.setLevel(before[1])
    structlog.reset_defaults()


@pytest.mark.parametrize("as_json", [True, False])
async def test_an_error_is_logged_without_the_values_of_local_variables(written, as_json):
    class Broken(Shelf):
        async def offers(self, p, **_):
            hidden = "hunter2".upper()
            raise RuntimeError(f"{len(hidden)} characters")

    logs.configure(level="INFO", json=as_json, stream=written)
    async with room(Broken()) as (session, _), session.get("/v1/offers", headers=bearer("lmt_reader")) as answer:
        assert answer.status == 500
    text = written.getvalue()
    assert "7 characters" in text
    assert "Traceback" in text or "RuntimeError" in text
    assert "HUNTER2" not in text
    assert "lmt_reader" not in text
    if as_json:
        assert all(json.loads(line)["timestamp"] for line in text.splitlines())


def test_fields_named_like_secrets_are_masked_also_in_foreign_lines(written):
    logs.configure(level="INFO", json=True, stream=written)
    structlog.stdlib.get_logger("ours").info("joined", join_token="lmj_x", nested={"password": "hunter2"})
    logging.getLogger("theirs").info("hello", extra={"authorization": "Bearer x"})
    asyncio.run(asyncio.sleep(0))
    text = written.getvalue()
    assert "lmj_x" not in text
    assert "hunter2" not in text
    assert "Bearer" not in text
