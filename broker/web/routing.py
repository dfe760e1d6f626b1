"""Routes as data: one table makes the router here and the OpenAPI document in ``openapi.py``.

A route is a method, a path, a handler and what a caller needs; everything else (body, query, answer) stands in the
handler's signature and is read from it once, when the table is made. ``serve`` turns a route into what aiohttp calls:
admit the caller, read the request into values, call the handler, write the answer.
"""

import re
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from aiohttp import web
from pydantic import BaseModel

from broker.domain.access import Once, Principal
from broker.service.answers import Change, Page
from broker.service.broker import Broker
from broker.settings import Settings
from broker.web.auth import Gate
from broker.web.call import Call, Shown, Signed
from broker.web.reading import (
    JSON,
    read_after,
    read_body,
    read_empty,
    read_json,
    read_once,
    read_query,
    read_segments,
    read_signed,
)
from broker.web.sse import Streams
from broker.wire.base import Inbound
from broker.wire.pages import Listing


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One operation: what the router, the document and the tests know about it."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Callable[..., Any]
    tag: str
    needs: str
    """A scope, ``ANYBODY`` or ``OPEN``."""
    status: int
    revokes: bool
    """It may end somebody's credential, so open watches look at theirs again."""
    body: type[Inbound] | type[Signed] | None
    query: type[Inbound] | None
    answer: type[BaseModel] | None
    """The model of the answer; for a watch, that of each event's data."""
    watch: bool
    content_type: str
    once: bool
    """The handler wants the Idempotency-Key (every POST needs one; a quote has no effect to remember)."""

    @property
    def name(self) -> str:
        """The operation's id."""
        return self.handler.__name__

    @property
    def segments(self) -> list[str]:
        """The named parts of the path."""
        return re.findall(r"{(\w+)}", self.path)


ROUTE = web.RequestKey("route", Route)
WHO = web.RequestKey("who", Principal)


def route(
    method: Literal["GET", "POST", "PUT", "DELETE"],
    path: str,
    handler: Callable[..., Any],
    *,
    needs: str,
    tag: str,
    status: int = 200,
    revokes: bool = False,
) -> Route:
    """A route, with what the handler's signature says about it; ``TypeError`` for a signature we don't understand."""
    hints = get_type_hints(handler, include_extras=True)
    returned = hints.pop("return")
    answer, watch, content_type = _answer(returned)
    hints.pop("call", None)
    body, query, once = hints.pop("body", None), hints.pop("query", None), hints.pop("once", None)
    if watch and hints.pop("after", None) != int | None:
        raise TypeError(f"{handler.__name__}: a watch takes after: int | None")
    if set(hints) != set(re.findall(r"{(\w+)}", path)):
        raise TypeError(f"{handler.__name__} takes {sorted(hints)}, which is not what {path} has")
    if once is not None and (once is not Once or method != "POST"):
        raise TypeError(f"{handler.__name__}: once is the Idempotency-Key of a POST")
    return Route(
        method=method,
        path=path,
        handler=handler,
        tag=tag,
        needs=needs,
        status=204 if returned is types.NoneType else status,
        revokes=revokes,
        body=body,
        query=query,
        answer=answer,
        watch=watch,
        content_type=content_type,
        once=once is not None,
    )


def _answer(returned: Any) -> tuple[type[BaseModel] | None, bool, str]:
    """Model, whether it is a watch, and content type of what a handler returns."""
    if returned is types.NoneType:
        return None, False, ""
    if get_origin(returned) is Annotated:
        kind, more = get_args(returned)
        if kind is bytes:
            return None, False, more
        if kind == AsyncIterator[Change]:
            return more, True, "text/event-stream"
    if get_origin(returned) is Page:
        (item,) = get_args(returned)
        return _listing_of(item), False, JSON
    if isinstance(returned, type) and issubclass(returned, BaseModel):
        return returned, False, JSON
    raise TypeError(f"a handler can't return {returned}")


def _listing_of(item: Any) -> type[BaseModel]:
    """``Listing[item]``, spelled so that a type checker lets a variable stand there."""
    return cast(type[BaseModel], Listing.__class_getitem__(item))


@dataclass(frozen=True, slots=True)
class Server:
    """What every route is served with."""

    broker: Broker
    gate: Gate
    streams: Streams
    shown: Shown


SERVER = web.AppKey("server", Server)


def add_routes(app: web.Application, routes: Sequence[Route], settings: Settings) -> None:
    """Put the table into aiohttp's router."""
    for each in routes:
        served = serve(each, settings)
        if each.method == "GET" and not each.watch:
            app.router.add_get(each.path, served)  # and HEAD
        else:
            app.router.add_route(each.method, each.path, served)


def serve(route: Route, settings: Settings) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What aiohttp calls for ``route``."""
    limit = settings.max_signed_bytes if route.body is Signed else settings.max_body_bytes

    async def served(request: web.Request) -> web.StreamResponse:
        request[ROUTE] = route
        server = request.app[SERVER]
        authorization = request.headers.get("Authorization")
        who = await server.gate.admit(authorization, needs=route.needs)
        if who is not None:
            request[WHO] = who
        call = Call(server.broker, server.shown, who)
        values: dict[str, Any] = dict(read_segments(request))
        if route.watch:
            changes = route.handler(call, after=read_after(request), **values)
            return await server.streams.serve(request, changes, authorization=authorization)
        values |= await _values(request, route, limit=limit, timeout=settings.body_timeout)
        answer = await route.handler(call, **values)
        if route.revokes:
            server.streams.look_again()
        return _response(route, answer)

    return served


async def _values(request: web.Request, route: Route, *, limit: int, timeout: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if route.query is not None:
        values["query"] = read_query(request, route.query)
    elif request.query_string:
        read_query(request, Inbound)
    if route.method in ("POST", "PUT"):
        body = await read_body(request, limit=limit, timeout=timeout)
        if route.method == "POST":
            once = read_once(request, body)
            if route.once:
                values["once"] = once
        if route.body is None:
            read_empty(body)
        elif issubclass(route.body, Inbound):
            values["body"] = read_json(request, body, route.body)
        else:
            values["body"] = read_signed(request, body)
    return values


def _response(route: Route, answer: object) -> web.Response:
    if isinstance(answer, Page) and route.answer is not None:
        listing = route.answer.model_construct(items=answer.items, cursor=answer.cursor, revision=answer.revision)
        body = listing.__pydantic_serializer__.to_json(listing)
    elif isinstance(answer, BaseModel):
        body = answer.__pydantic_serializer__.to_json(answer)
    elif isinstance(answer, bytes):
        body = answer
    else:
        return web.Response(status=204)
    return web.Response(status=route.status, body=body, headers={"Content-Type": route.content_type})
