"""From an HTTP request to values: bodies, query strings and keys, each with its limits.

Nothing is believed before it is measured: the length before the bytes, the bytes before JSON, JSON before the model.
What is refused is described by place and kind; what was sent is not repeated.
"""

import asyncio
import hashlib
import re
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from broker.domain.access import Once
from broker.kit import strict_json
from broker.web.call import Signed
from broker.web.refusals import (
    BadJson,
    BodyTooLarge,
    BodyTooSlow,
    IdempotencyKeyMissing,
    InvalidInput,
    NoSuchPage,
    WrongContentType,
)
from broker.wire.base import Inbound
from broker.wire.mistakes import mistakes

M = TypeVar("M", bound=Inbound)

JSON = "application/json"
JOSE = "application/jose"
_KEY = re.compile(r"[!-~]{1,128}")
SEGMENT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]{0,126}[A-Za-z0-9])?")
"""Ids and names. Without an underscore, which every secret of ours has: one in a path is not looked up."""
_MAX_ERRORS = 20
_MAX_POINTER = 200


async def read_body(request: web.Request, *, limit: int, timeout: int) -> bytes:
    """The whole body, at most ``limit`` bytes within ``timeout`` seconds, never decompressed."""
    if "Content-Encoding" in request.headers:
        raise WrongContentType("A body is sent as it is here: no Content-Encoding.")
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge(limit)
    except TimeoutError:
        raise BodyTooSlow(timeout) from None
    except web.RequestPayloadError:
        raise BadJson("The body ended early, or its chunks are malformed.") from None
    return bytes(body)


def read_json(request: web.Request, body: bytes, model: type[M]) -> M:
    """``body`` as ``model``."""
    if request.content_type != JSON or request.charset not in (None, "utf-8", "UTF-8"):
        raise WrongContentType(f"This route takes {JSON} in UTF-8.")
    try:
        value = strict_json.loads(body)
    except strict_json.BadJson as error:
        raise BadJson(f"The body is not JSON as it is accepted here: {error}.") from None
    return _validated(model, value, what="body")


def read_signed(request: web.Request, body: bytes) -> Signed:
    """``body`` as a JWS in compact form; only its alphabet is checked here."""
    if request.content_type != JOSE:
        raise WrongContentType(f"This route takes a signed message: {JOSE} (JWS compact serialisation).")
    try:
        return Signed(body.decode("ascii"))
    except UnicodeDecodeError:
        raise WrongContentType("A JWS in compact form is ASCII.") from None


def read_empty(body: bytes) -> None:
    """Nothing, or an empty object from a client that must send something."""
    if body.strip() not in (b"", b"{}"):
        raise InvalidInput("This route takes no body.", errors=[{"pointer": "", "detail": "must be empty"}])


def read_query(request: web.Request, model: type[M]) -> M:
    """The query string as ``model``; a name given twice is an error, because nobody knows which one is meant."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise _invalid_parameter(name, "is given twice")
        if not value.isprintable():
            raise _invalid_parameter(name, "has characters that can't be printed")
        values[name] = value
    return _validated(model, values, what="query string")


def read_segments(request: web.Request) -> dict[str, str]:
    """The named parts of the path; what can't be a name of ours is not found."""
    for segment in request.match_info.values():
        if not SEGMENT.fullmatch(segment):
            raise NoSuchPage
    return dict(request.match_info)


def read_once(request: web.Request, body: bytes) -> Once:
    """The POST's Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), tied to method, path and body."""
    keys = request.headers.getall("Idempotency-Key", [])
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise IdempotencyKeyMissing(
            "A POST needs one Idempotency-Key header of 1 to 128 visible ASCII characters: a new one for every new "
            "wish, the same one when you repeat it."
        )
    told = hashlib.sha256(f"{request.method} {request.path}\n".encode())
    told.update(body)
    return Once(key=keys[0], fingerprint=told.hexdigest())


def read_after(request: web.Request) -> int | None:
    """Where a watch resumes: ``Last-Event-ID`` as browsers send it, or ``?after=``; None: from now on."""
    for name in request.query:
        if name != "after" or len(request.query.getall(name)) > 1:
            raise _invalid_parameter(name, "is not a parameter of a watch, or is given twice")
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _invalid_parameter("after", "must be the revision (a whole number) of the last event you saw")
    return int(text)


def _validated(model: type[M], value: object, *, what: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        count = error.error_count()
        errors = [{"pointer": _pointer(where), "detail": what} for where, what in mistakes(error, most=_MAX_ERRORS)]
    more = f" (the first {_MAX_ERRORS} of {count} are listed)" if count > _MAX_ERRORS else ""
    first = errors[0]
    where = f" at {first['pointer']}" if first["pointer"] else ""
    raise InvalidInput(f"The {what} is not what this route takes{where}: {first['detail']}{more}", errors=errors)


def _pointer(place: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901), cut short where somebody chose a very long name."""
    pointer = "".join("/" + str(part)[:64].replace("~", "~0").replace("/", "~1") for part in place)
    return pointer if len(pointer) <= _MAX_POINTER else pointer[:_MAX_POINTER] + "…"


def _invalid_parameter(name: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"The query string is not what this route takes: {name[:64]!r} {why}.",
        errors=[{"pointer": _pointer((name,)), "detail": why}],
    )
