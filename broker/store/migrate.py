"""Bring a database to this version's schema, or say that it isn't there yet.

The history lives in ``migrations/`` and is part of the installed package, so no ini file and no command-line Alembic is
needed. On PostgreSQL a migration waits at most ``lock_timeout`` for a table that others use and gives up whole rather
than queue everybody behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import migrations
from broker.store.database import Database, database
from broker.store.tables import metadata

LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 300_000
_MIGRATING = 0x6D696772


def migrate(url: str, *, to: str = "head") -> None:
    """Up to ``to``. Not while a broker serves the same SQLite file: ``BadDatabase`` then."""
    _run(url, lambda config: command.upgrade(config, to))


def downgrade(url: str, *, to: str) -> None:
    """Down to ``to`` (``base``: nothing left)."""
    _run(url, lambda config: command.downgrade(config, to))


def differences(url: str) -> list[Any]:
    """What Alembic would still have to do: empty when migrations and tables say the same."""
    found: list[Any] = []

    def compare(config: Config) -> None:
        connection: Connection = config.attributes["connection"]
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        found.extend(compare_metadata(context, metadata))

    _run(url, compare)
    return found


def current(url: str) -> tuple[str | None, str]:
    """(the database's revision, the newest one this version knows)."""
    seen: list[str | None] = []
    _run(
        url,
        lambda config: seen.append(MigrationContext.configure(config.attributes["connection"]).get_current_revision()),
    )
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None
    return seen[0], newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config


def _run(url: str, job: Callable[[Config], object]) -> None:
    base: Database = database(url)
    engine = base.writer()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
                # Two brokers that start together: the second waits for the first, then finds nothing to do.
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            config = _config()
            config.attributes["connection"] = connection
            job(config)
    finally:
        engine.dispose()
        base.close()
