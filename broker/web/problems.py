"""The one file that knows HTTP statuses: refusal → problem document (RFC 9457).

A family of refusals stands for a status, and the nearest ancestor in ``STATUS`` decides; the class's own name becomes
the problem's ``type``. Whatever is not a refusal is a bare 500 with nothing in it but the request's id: what went wrong
is in the log, under the same id.
"""

import re
from collections.abc import Iterator

from aiohttp import web

from broker.domain import errors
from broker.domain.errors import Refusal
from broker.web import refusals
from broker.wire.base import Problem

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "https://lendmesh.dev/problems/"

STATUS: dict[type[Refusal], int] = {
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.Invalid: 422,
    errors.Busy: 503,
    refusals.NoSuchPage: 404,
    refusals.WrongMethod: 405,
    refusals.IdempotencyKeyMissing: 400,
    refusals.BodyTooLarge: 413,
    refusals.BodyTooSlow: 408,
    refusals.WrongContentType: 415,
    refusals.BadJson: 400,
    refusals.InvalidInput: 422,
    refusals.TooSlowReader: 408,
    refusals.NotReady: 503,
}
UNFORESEEN = 500


def status_of(kind: type[Refusal]) -> int:
    """The HTTP status of this kind of refusal."""
    return next((STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS), UNFORESEEN)


def name_of(kind: type[Refusal]) -> str:
    """``BudgetExhausted`` → ``budget-exhausted``: the last part of the problem's ``type``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def leaves(kind: type[Refusal] = Refusal) -> Iterator[type[Refusal]]:
    """Every refusal that can be raised: the tree's leaves, for tests and for the page of problems."""
    below = kind.__subclasses__()
    if not below:
        yield kind
    for each in below:
        yield from leaves(each)


def problem_of(refusal: Refusal, *, request_id: str) -> Problem:
    """The document for a refusal."""
    kind = type(refusal)
    return Problem(
        type=TYPE_PREFIX + name_of(kind),
        title=kind.title,
        status=status_of(kind),
        detail=refusal.detail,
        instance=request_id,
        errors=refusal.errors,
        reasons=refusal.reasons,
    )


def unforeseen(*, request_id: str) -> Problem:
    """The document for everything else."""
    return Problem(
        type="about:blank",
        title="Internal Server Error",
        status=UNFORESEEN,
        detail="Something went wrong in the broker. Its log has more under this request's id.",
        instance=request_id,
    )


def response(problem: Problem, *, cause: Refusal | None = None) -> web.Response:
    """The HTTP answer for a problem, with the headers its kind asks for."""
    answer = web.Response(
        status=problem.status,
        body=problem.model_dump_json(exclude_none=True, exclude_defaults=True).encode(),
        content_type=CONTENT_TYPE,
    )
    if isinstance(cause, errors.Unauthenticated):
        answer.headers["WWW-Authenticate"] = 'Bearer realm="lendmesh"'
    if isinstance(cause, refusals.WrongMethod):
        answer.headers["Allow"] = cause.allowed
    if isinstance(cause, refusals.BodyTooSlow):
        answer.force_close()
    if cause is not None and cause.retry_after_s is not None:
        answer.headers["Retry-After"] = str(cause.retry_after_s)
    return answer
