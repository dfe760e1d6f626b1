"""What aiohttp itself logs of requests that are not HTTP.

Its messages quote the bytes that it couldn't read, and those may be half of an ``Authorization`` header. So its logger
is given a filter that keeps what kind of nonsense it was and drops the nonsense. (The caller gets a bare 400 from
aiohttp, before any route or middleware of ours.)
"""

import logging

from aiohttp.http import HttpProcessingError

LOGGER = logging.getLogger("broker.web.http")


class _WithoutTheBytes(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = "request.malformed: %s", (type(error).__name__,)
            record.exc_info, record.exc_text = None, None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


LOGGER.addFilter(_WithoutTheBytes())
