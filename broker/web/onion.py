"""What lies around every route: a request id and one log line outside, problem documents inside.

The line has what a person needs to follow one request (who, which operation, how it ended, how long it took) and
nothing that is secret: no header, no body, no query string. It is written when the answer is out, also when it failed.
"""

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from broker.domain.errors import Refusal
from broker.kit.clock import NewId
from broker.web import problems
from broker.web.docs import STYLE_HASH
from broker.web.metrics import Metrics
from broker.web.reading import SEGMENT
from broker.web.refusals import NoSuchPage, WrongMethod
from broker.web.routing import ROUTE, WHO
from broker.web.sse import REQUEST_ID

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PROBLEM = web.RequestKey("problem", str)

_log = structlog.get_logger("broker.web")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def line_of(metrics: Metrics, *, new_id: NewId) -> Middleware:
    """The outer layer: a request id, and one canonical line in the log and in the metrics."""

    @web.middleware
    async def line(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = new_id("req")
        began = time.monotonic()
        status = 499  # what the log has when the caller was gone before the answer
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            took = time.monotonic() - began
            route = request.get(ROUTE)
            who = request.get(WHO)
            operation = route.name if route is not None else "none"
            metrics.saw(operation=operation, method=request.method, status=status, seconds=took)
            quiet = operation in ("healthy", "ready", "scrape") and status < 400
            (_log.debug if quiet else _log.error if status >= 500 else _log.info)(
                "request",
                request_id=request[REQUEST_ID],
                operation=operation,
                method=request.method[:16],
                route=route.path if route is not None else None,
                about=[value for value in request.match_info.values() if SEGMENT.fullmatch(value)],
                status=status,
                problem=request.get(PROBLEM),
                subject=who.subject if who is not None else None,
                tenant=who.tenant if who is not None else None,
                peer=request.remote,
                ms=round(took * 1_000, 1),
            )

    return line


@web.middleware
async def problem_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The inner layer: every failure becomes a problem document; an unforeseen one tells the caller nothing."""
    request_id = request[REQUEST_ID]
    try:
        return await handler(request)
    except Refusal as refusal:
        cause: Refusal | None = refusal
    except web.HTTPMethodNotAllowed as error:
        cause = WrongMethod(error.method, allowed=error.allowed_methods)
    except web.HTTPNotFound:
        cause = NoSuchPage()
    except web.HTTPException:
        raise
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            raise  # the caller went in the middle of the request: nobody is there to be answered
        _log.exception("request.failed", request_id=request_id)
        cause = None
    if cause is None:
        return problems.response(problems.unforeseen(request_id=request_id))
    request[PROBLEM] = problems.name_of(type(cause))
    return problems.response(problems.problem_of(cause, request_id=request_id), cause=cause)


async def dress(request: web.Request, response: web.StreamResponse) -> None:
    """Headers that every answer has; aiohttp's own ``Server`` is left out."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = request.get(REQUEST_ID, "")
    response.headers.popall("Server", None)
