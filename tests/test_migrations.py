"""The schema's history: up, in step with the tables, down, and never in anybody's way for long."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from broker.store import migrate
from broker.store.database import BadDatabase, database
from broker.store.engine import Store
from broker.store.tables import metadata


def tables_of(url: str) -> set[str]:
    base = database(url)
    engine = base.writer()
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
        base.close()


def test_up_gives_what_the_tables_say_and_down_leaves_nothing(database_url: str) -> None:
    migrate.migrate(database_url)
    assert migrate.differences(database_url) == []
    assert tables_of(database_url) == {*metadata.tables, "alembic_version"}
    found, newest = migrate.current(database_url)
    assert found == newest

    migrate.migrate(database_url)  # again: nothing to do

    migrate.downgrade(database_url, to="base")
    assert tables_of(database_url) == {"alembic_version"}
    assert migrate.current(database_url)[0] is None
    migrate.migrate(database_url)
    assert migrate.differences(database_url) == []


def test_the_index_that_keeps_the_promise_is_unique_and_partial(database_url: str) -> None:
    migrate.migrate(database_url)
    base = database(database_url)
    engine = base.writer()
    try:
        indexes = {index["name"]: index for index in inspect(engine).get_indexes("lease_devices")}
    finally:
        engine.dispose()
        base.close()
    index = indexes["uq_lease_devices_live"]
    assert index["unique"]
    assert index["column_names"] == ["ref"]
    assert any("where" in name for name in index.get("dialect_options", {}))


async def test_an_sqlite_file_that_a_broker_serves_is_not_migrated_under_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    migrate.migrate(url)
    store = await Store.open(url)
    with pytest.raises(BadDatabase, match="Another broker process"):
        migrate.migrate(url)
    await store.close()
    migrate.migrate(url)


@pytest.mark.postgres
def test_a_migration_gives_up_when_a_table_stays_locked(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.migrate(postgres_url)
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_MS", 50)
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as other:
        other.exec_driver_sql("LOCK TABLE leases IN ACCESS SHARE MODE")
        with pytest.raises(Exception, match="lock timeout"):
            migrate.downgrade(postgres_url, to="base")
        other.rollback()
    engine.dispose()
    assert migrate.differences(postgres_url) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://host/name", "mysql is not a database the broker knows"),
        ("what is this", "can't be read"),
    ],
)
def test_a_url_that_cannot_work_is_refused_with_what_to_write_instead(url: str, says: str) -> None:
    with pytest.raises(BadDatabase, match=says):
        database(url)
