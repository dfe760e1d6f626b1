"""One way to log, for the broker and the agents: events are names with fields.

For people on a terminal it is coloured text, elsewhere one JSON object a line on standard output. What foreign
libraries log through the standard library (aiohttp, asyncio, alembic) takes the same road and looks the same.
"""

import logging
import sys
from typing import Any, Literal

import structlog

Format = Literal["auto", "json", "console"]


def configure(*, level: str = "info", form: Format = "auto") -> None:
    """Set up logging for this process; ``level`` is a name such as ``info``."""
    stream = sys.stdout
    for_people = form == "console" or (form == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if not for_people:
        shared.append(structlog.processors.dict_tracebacks)
    last = structlog.dev.ConsoleRenderer() if for_people else structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
