"""The two databases, and what differs between them: how to connect, how to begin, who may be the writer.

*SQLite*: one file, one broker process (a lock file says so), exactly one connection that writes (WAL, ``synchronous =
FULL``, ``BEGIN IMMEDIATE``), all others ``mode=ro``: two writing connections could corrupt the file under the WAL-reset
bug of 3.7.0–3.51.2. *PostgreSQL*: several brokers; each batch of writes takes one advisory lock, so that the log's
revisions commit in order.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, make_url

WRITERS, BROKERS = 0x6C656E64, 0x6D657368
"""Keys of PostgreSQL advisory locks: one batch of writes at a time; which brokers are there."""


class BadDatabase(Exception):
    """The database can't be used as it is; the message says what to do."""


class Database(Protocol):
    """What the store needs of a database."""

    url: URL

    def writer(self) -> Engine: ...

    def reader(self, connections: int) -> Engine: ...

    def begin(self, connection: Connection) -> None:
        """The first words of every batch of writes."""
        ...

    def enter(self, connection: Connection) -> bool:
        """Once per writing connection; True when no other broker uses the database."""
        ...

    def close(self) -> None: ...


def database(url: str) -> Database:
    """``sqlite:////var/lib/broker.db`` or ``postgresql://user:secret@host/name``; ``BadDatabase`` for anything else."""
    try:
        parsed = make_url(url)
    except Exception as error:
        raise BadDatabase("The database URL can't be read; write sqlite:///path or postgresql://host/name.") from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return Sqlite(parsed)
        case "sqlite":
            raise BadDatabase("The broker keeps what it promised: SQLite needs a file, as in sqlite:///broker.db.")
        case "postgresql":
            return Postgres(parsed)
        case other:
            raise BadDatabase(
                f"{other} is not a database the broker knows; use sqlite:///path or postgresql://host/name."
            )


class Sqlite:
    def __init__(self, url: URL) -> None:
        self.url = url
        self.path = Path(url.database or "").absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise BadDatabase(
                f"Another broker process uses {self.path.name}; SQLite allows one. Stop it, or move to PostgreSQL."
            ) from error

    def writer(self) -> Engine:
        def connect() -> sqlite3.Connection:
            made = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=512)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
                made.execute(f"PRAGMA {pragma}")
            return made

        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    def reader(self, connections: int) -> Engine:
        def connect() -> sqlite3.Connection:
            return sqlite3.connect(
                f"{self.path.as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
            )

        engine = create_engine(
            "sqlite://", creator=connect, poolclass=QueuePool, pool_size=connections, pool_reset_on_return=None
        )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        return engine

    def begin(self, connection: Connection) -> None:
        """``BEGIN IMMEDIATE`` has said it already."""

    def enter(self, connection: Connection) -> bool:
        return True

    def close(self) -> None:
        os.close(self._lock)


class Postgres:
    def __init__(self, url: URL) -> None:
        self.url = url.set(drivername="postgresql+psycopg")

    def writer(self) -> Engine:
        return create_engine(self.url, poolclass=NullPool, connect_args=self._arguments(read_only=False))

    def reader(self, connections: int) -> Engine:
        return create_engine(
            self.url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",  # all statements of one look see one moment, as on SQLite
            connect_args=self._arguments(read_only=True),
        )

    def begin(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")

    def enter(self, connection: Connection) -> bool:
        first = bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({BROKERS})").scalar_one())
        # Whoever is second waits at most for the first to take its shared place.
        connection.exec_driver_sql(f"SELECT pg_advisory_lock_shared({BROKERS})")
        if first:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({BROKERS})")
        # Some servers are set up to acknowledge before a commit is durable; for leases that is not enough.
        connection.exec_driver_sql(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()
        return first

    def close(self) -> None:
        """Nothing of ours outlives the connections."""

    def _arguments(self, *, read_only: bool) -> dict[str, Any]:
        options = "-c lock_timeout=20s -c statement_timeout=30s -c idle_in_transaction_session_timeout=60s"
        if read_only:
            options += " -c default_transaction_read_only=on"
        return {"options": options, "connect_timeout": 10, "application_name": "lendmesh-broker"}
