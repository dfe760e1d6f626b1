"""The web room put together: table, onion, streams and pages become one aiohttp application."""

from typing import Any

from aiohttp import web

from broker.kit.clock import NewId
from broker.service.broker import Broker
from broker.settings import Settings
from broker.web import docs, onion, openapi
from broker.web.auth import Gate
from broker.web.call import Shown
from broker.web.metrics import Metrics
from broker.web.routes import ROUTES
from broker.web.routing import Server, add_routes
from broker.web.sse import Streams


def make_site(*, broker: Broker, metrics: Metrics, settings: Settings, new_id: NewId) -> web.Application:
    """An application that serves ``broker``; who starts and stops the broker is the caller's business.

    Watch streams end as soon as the application begins to shut down: they would keep it from ending otherwise.
    """
    gate = Gate(broker, remember_s=settings.auth_cache)
    streams = Streams(gate, heartbeat_s=settings.watch_heartbeat, patience_s=settings.watch_patience)
    metrics.count_streams(lambda: len(streams))
    document = openapi.document(ROUTES)
    shown = Shown(document=openapi.encode(document), page=docs.page(document), metrics=metrics)

    app = web.Application(middlewares=[onion.line_of(metrics, new_id=new_id), onion.problem_documents])
    app.on_response_prepare.append(onion.dress)
    add_routes(app, ROUTES, Server(broker=broker, gate=gate, streams=streams, shown=shown, settings=settings))

    async def end_streams(_: web.Application) -> None:
        streams.close()

    app.on_shutdown.append(end_streams)
    return app


def document() -> dict[str, Any]:
    """The OpenAPI document of this version, without a broker running."""
    return openapi.document(ROUTES)
