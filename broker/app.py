"""The composition root: the only module that knows every room, and holds no logic.

``make_app`` builds the parts in the order in which they need each other (store → service → chores → web) as steps of
``cleanup_ctx``, so that they end in the opposite order: first the loops, then the service, then the store, which
finishes what waits to be written. ``running`` puts it on a socket, ``serve`` does so until the process is told to end.
"""

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from aiohttp import web

from broker import keys, tls
from broker.chores import Chores
from broker.domain.egress import Egress
from broker.domain.errors import Unauthenticated
from broker.domain.rules import Rules
from broker.kit.clock import Clock, NewId, new_id, utc_now
from broker.service.broker import Broker
from broker.service.solver import SolverGone, SolverProcess
from broker.settings import Settings
from broker.store.engine import Store
from broker.store.migrate import migrate
from broker.web import malformed
from broker.web.metrics import Metrics
from broker.web.site import make_site, open_site

ADMIN_TOKEN, URL = "admin-token", "url"
"""Files in the data directory: the first token, and where the broker listens."""
ADMIN_TENANT = "admin"
ADMIN_LIFETIME_S = 365 * 86_400
RENEW_EVERY_S = 86_400
STORE = web.AppKey("store", Store)
BROKER = web.AppKey("broker", Broker)
_log = structlog.get_logger("broker")


Died = Callable[[str], None]


class LoopDied(Exception):
    """A loop ended by itself."""


@dataclass(frozen=True, slots=True)
class Running:
    """A broker that answers."""

    url: str
    ca: Path | None
    """PEM; None without TLS."""
    admin_token: str
    app: web.Application


def rules(settings: Settings) -> Rules:
    """The numbers that decisions depend on."""
    return Rules(
        skew=timedelta(seconds=settings.skew),
        drain=timedelta(seconds=settings.drain),
        quarantine=timedelta(seconds=settings.quarantine),
        hold=timedelta(seconds=settings.hold_timeout),
        silence=timedelta(seconds=settings.silence),
        keep_answers=timedelta(seconds=settings.keep_answers),
        keep_events=timedelta(seconds=settings.keep_events),
        attempts=settings.attempts,
        egress=Egress(settings.egress_price, settings.egress),
    )


def make_app(
    settings: Settings,
    *,
    url: str,
    pin: str = "",
    clock: Clock = utc_now,
    new_id: NewId = new_id,
    died: Died | None = None,
    solver: SolverProcess | None = None,
) -> web.Application:
    """The whole broker as one application: it opens its store when it starts and closes it when it ends.

    ``url`` is where it will be reached (the issuer of its leases), ``pin`` that of its CA for join tokens; ``died`` is
    told the name of a loop that ended by itself, without which the broker must not go on. Without a ``solver`` the
    optimizer runs in this process.
    """
    metrics = Metrics()
    app = make_site(metrics=metrics, settings=settings, new_id=new_id)

    async def store(app: web.Application) -> AsyncIterator[None]:
        await asyncio.to_thread(migrate, settings.database)
        app[STORE] = await Store.open(settings.database)
        yield
        await app[STORE].close()

    async def service(app: web.Application) -> AsyncIterator[None]:
        app[BROKER] = Broker(
            store=app[STORE],
            keys=keys.lease_keys(settings.lease_keys),
            issuer=settings.public_url or url,
            ca_pin=pin,
            rules=rules(settings),
            clock=clock,
            ids=new_id,
            solve=solver,
        )
        await app[BROKER].start()
        warming = asyncio.create_task(asyncio.to_thread(_load, solver), name="load the solver")
        yield
        if solver is not None:
            await asyncio.to_thread(solver.close)
        await asyncio.gather(warming, return_exceptions=True)
        await app[BROKER].stop()

    async def loops(app: web.Application) -> AsyncIterator[None]:
        async with Chores(app[BROKER], placed=metrics.placed).running(died=died):
            yield

    async def site(app: web.Application) -> AsyncIterator[None]:
        async for each in open_site(app, broker=app[BROKER], metrics=metrics, settings=settings):
            yield each

    app.cleanup_ctx.extend([store, service, loops, site])
    return app


def _load(solver: SolverProcess | None) -> None:
    """Now, rather than within somebody's first request."""
    try:
        if solver is not None:
            solver.start()
        else:
            from optimizer.solve import warm

            warm()
    except SolverGone:
        _log.exception("broker.solver_not_started")  # the first round tries again


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    new_id: NewId = new_id,
    died: Died | None = None,
    solver: SolverProcess | None = None,
) -> AsyncIterator[Running]:
    """A broker that answers on its socket for as long as the context lasts.

    On the first start everything it needs is made: data directory, CA and certificate, lease keys, schema, and an
    administrator's token in ``admin-token`` (mode 0600; it is never logged).
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = _tls_files(settings, clock)
    context = tls.server_context(files) if files is not None else None
    listening = await asyncio.to_thread(_listen, settings)
    url = _url(settings, listening)
    app = make_app(
        settings, url=url, pin=files.pin if files else "", clock=clock, new_id=new_id, died=died, solver=solver
    )
    runner = web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        logger=malformed.LOGGER,
        auto_decompress=False,
        keepalive_timeout=settings.idle_timeout,
        shutdown_timeout=settings.shutdown_grace,
    )
    renewing = asyncio.create_task(_renew(settings, context, clock), name="renew the server certificate")
    try:
        await runner.setup()
        token = await _admin_token(settings.data_dir / ADMIN_TOKEN, app[BROKER])
        await web.SockSite(runner, listening, ssl_context=context).start()
        keys.write_secret(settings.data_dir / URL, url.encode() + b"\n", replace=True)
        _log.info("broker.serving", url=url, data_dir=str(settings.data_dir), tls=settings.tls)
        yield Running(url=url, ca=files.ca if files else None, admin_token=token, app=app)
        _log.info("broker.ending")
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        await runner.cleanup()
        listening.close()
        _log.info("broker.ended")


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let go in order: watches, answers under way, loops, store.

    ``LoopDied`` when a loop ended by itself: a broker that grants but doesn't expire is worse than none, and whoever
    started this process starts it again.
    """
    told = asyncio.Event()
    dead: list[str] = []

    def died(name: str) -> None:
        dead.append(name)
        told.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        async with running(settings, died=died, solver=SolverProcess()):
            await told.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if dead:
        raise LoopDied(f"The loop {dead[0]!r} ended by itself; the log says why.")


async def _admin_token(path: Path, broker: Broker) -> str:
    """The administrator's token of the first start; whoever lost theirs deletes the file and starts again."""
    token = await asyncio.to_thread(_read, path)
    if token is None:
        token = (await broker.first_token(name="admin", tenant=ADMIN_TENANT, lifetime_s=ADMIN_LIFETIME_S)).secret
        await asyncio.to_thread(keys.write_secret, path, token.encode() + b"\n", replace=False)
        _log.info("broker.admin_token_written", file=str(path))
    try:
        await broker.authenticate(token)
    except Unauthenticated:
        _log.warning("broker.admin_token_not_good", file=str(path), hint="delete the file to get a new one")
    return token


def _read(path: Path) -> str | None:
    return path.read_text(encoding="ascii").strip() if path.exists() else None


def _tls_files(settings: Settings, clock: Clock) -> tls.TlsFiles | None:
    if settings.tls == "off":
        return None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        return tls.given(certificate=settings.tls_cert_file, key=settings.tls_key_file, directory=settings.data_dir)
    return tls.embedded(settings.data_dir, names=settings.names, now=clock())


async def _renew(settings: Settings, context: ssl.SSLContext | None, clock: Clock) -> None:
    """Once a day: a new certificate when it is due, or the files that somebody else has renewed meanwhile."""
    while context is not None:
        await asyncio.sleep(RENEW_EVERY_S)
        try:
            files = await asyncio.to_thread(_tls_files, settings, clock)
            if files is not None:
                tls.load(context, files)
        except Exception:
            _log.exception("broker.certificate_not_renewed")


def _listen(settings: Settings) -> socket.socket:
    """The listening socket, before anything else is started: who can't have the port need not open the store."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.create_server((settings.host, settings.port), family=family, backlog=1_024)
    listening.setblocking(False)
    return listening


def _url(settings: Settings, listening: socket.socket) -> str:
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  (only compared)
        host = settings.names[0] if settings.names else socket.gethostname()
    scheme = "http" if settings.tls == "off" else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
