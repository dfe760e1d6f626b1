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


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer lmt_S3CRET" + b"a" * 9_000 + b"\r\n\r\n",
        b"GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer lmt_S3CRET\x01\r\n\r\n",
        b"Authorization: Bearer lmt_S3CRET\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nlmj_S3CRET\r\n",
    ],
    ids=["too long a header", "a control character", "no request line", "no chunk"],
)
async def test_a_request_that_is_not_http_is_logged_without_what_it_said(written, request_):
    logs.configure(level="DEBUG", json=True, stream=written)
    async with room(Shelf()) as (session, _):
        reader, writer = await asyncio.open_connection(session._base_url.host, session._base_url.port)
        writer.write(request_)
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
    assert "S3CRET" not in written.getvalue()
    assert "request.malformed" in written.getvalue()


def test_fields_named_like_secrets_are_masked_also_in_foreign_lines(written):
    logs.configure(level="INFO", json=True, stream=written)
    structlog.stdlib.get_logger("ours").info("joined", join_token="lmj_x", nested={"password": "hunter2"})
    logging.getLogger("theirs").info("hello", extra={"authorization": "Bearer x"})
    asyncio.run(asyncio.sleep(0))
    text = written.getvalue()
    assert "lmj_x" not in text
    assert "hunter2" not in text
    assert "Bearer" not in text
