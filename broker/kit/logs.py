"""One shape for every log line, ours and the libraries': a name and fields, JSON unless a terminal is watching.

Nothing secret gets through: values of fields that are named like secrets are masked, wherever they come from.
"""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET = ("token", "secret", "password", "authorization", "credential", "kubeconfig", "private", "jws", "cookie")
MASK = "***"
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # a local variable may be somebody's secret
)


def configure(*, level: str = "INFO", json: bool | None = None, stream: TextIO | None = None) -> None:
    """Once per process, first thing. ``json``: None means JSON unless ``stream`` (stderr) is a terminal."""
    out = stream or sys.stderr
    as_json = not out.isatty() if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        mask,
    ]
    structlog.configure(
        processors=[*shared[:-2], mask, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # some µs a line, and whoever configures later (a test) is obeyed
    )
    last: list[Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def mask(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Fields named like secrets lose their values, nested ones too."""
    return {key: _masked(key, value) for key, value in event.items()}


@lru_cache(maxsize=1_024)
def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRET)


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, str) and _is_secret(key):
        return MASK
    if isinstance(value, dict):
        return {str(inner): _masked(str(inner), each) for inner, each in value.items()}
    return value
