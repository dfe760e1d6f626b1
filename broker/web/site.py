"""The web room put together: table, onion, streams and pages become one aiohttp application.

The application is made before there is a broker to serve (a store is opened by the loop that uses it), so what serves
is put into it when it starts, under ``SERVER``; a route looks there on every call.
"""

from collections.abc import AsyncIterator

from aiohttp import web

from broker.kit.clock import NewId
from broker.service.broker import Broker
from broker.settings import Settings
from broker.web import docs, onion, openapi
from broker.web.auth import Gate
from broker.web.call import Shown
from broker.web.metrics import Metrics
from broker.web.routes import ROUTES
from broker.web.routing import SERVER, Server, add_routes
from broker.web.sse import Streams


def make_site(*, metrics: Metrics, settings: Settings, new_id: NewId) -> web.Application:
    """An application with every route in it; ``open_site`` must come before the first call.

    Watch streams end as soon as it begins to shut down: they would keep it from ending otherwise.
    """
    app = web.Application(middlewares=[onion.line_of(metrics, new_id=new_id), onion.problem_documents])
    app.on_response_prepare.append(onion.dress)
    app.on_shutdown.append(_end_streams)
    add_routes(app, ROUTES, settings)
    return app


async def open_site(
    app: web.Application, *, broker: Broker, metrics: Metrics, settings: Settings
) -> AsyncIterator[None]:
    """Serve ``broker`` from now on; a step of ``cleanup_ctx``."""
    gate = Gate(broker)
    streams = Streams(gate, heartbeat_s=settings.watch_heartbeat, patience_s=settings.watch_patience)
    metrics.count_streams(lambda: len(streams))
    document = openapi.document()
    shown = Shown(document=openapi.encode(document), page=docs.page(document), metrics=metrics)
    app[SERVER] = Server(broker=broker, gate=gate, streams=streams, shown=shown)
    yield


async def _end_streams(app: web.Application) -> None:
    if SERVER in app:
        app[SERVER].streams.close()
