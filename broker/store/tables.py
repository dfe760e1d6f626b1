"""Tables, column types and constraints; nothing else. Alembic reads this, and a test holds the two together.

The one rule everything hangs on is ``uq_lease_devices_live``: a unique index over the device references of live
leases. No code checks whether a device is free before it inserts: the constraint decides (facts: check-then-insert
oversells under every isolation level short of SERIALIZABLE).

Times are whole microseconds since the epoch, so that both databases compare, index and return them alike.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    TypeDecorator,
    text,
)

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMES)

LIVE_DEVICE = "uq_lease_devices_live"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


class Utc(TypeDecorator[datetime]):
    """An aware time, kept as microseconds since the epoch."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return None if value is None else (value - _EPOCH) // _MICRO

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


def holds(column: Column[bool]) -> TextClause:
    """``column`` as a condition in the very words of the partial indexes: for others SQLite reads the whole table."""
    return text(f"{column.table.name}.{column.name}")


clusters = Table(
    "clusters",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("signing_key", Text, nullable=False),
    Column("sealing_key", Text, nullable=False),
    Column("credential_hash", String(64), nullable=False),
    Column("version", Text, nullable=False),
    Column("joined_at", Utc, nullable=False),
    Column("revoked_at", Utc),
    Column("last_seen_at", Utc),
    Column("advert_sequence", BigInteger, nullable=False),
    Column("report_sequence", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("clock_offset_ms", BigInteger),
    Column("clock_safe", Boolean, nullable=False),
    Column("resynced", Boolean, nullable=False),
    Column("silent", Boolean, nullable=False),
    Column("valid_until", Utc),
    Column("counts", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index(None, "credential_hash", unique=True),
    Index(None, "tenant"),
)

offers = Table(
    "offers",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("cluster", String(63), ForeignKey("clusters.name"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text),
    Column("devices", Integer, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Column("withdrawn_at", Utc),
    Column("revision", BigInteger, nullable=False),
    Index(None, "cluster", "name", unique=True),
)

requests = Table(
    "requests",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("cluster", String(63), nullable=False),
    Column("policy", String(63)),
    Column("state", String(12), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Column("wait_until", Utc, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("excluded", Text, nullable=False),
    Column("lease", String(63)),
    Column("placement", Text),
    Column("reasons", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index(
        "ix_requests_open", "created_at", postgresql_where=text("state = 'Open'"), sqlite_where=text("state = 'Open'")
    ),
    Index(None, "tenant", "id"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("request", String(63), ForeignKey("requests.id"), nullable=False),
    Column("offer", String(63), nullable=False),
    Column("lender", String(63), ForeignKey("clusters.name"), nullable=False),
    Column("borrower", String(63), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("lender_tenant", String(63), nullable=False),
    Column("policy", String(63)),
    Column("month", String(7), nullable=False),
    Column("devices", Integer, nullable=False),
    Column("price_micros", BigInteger, nullable=False),
    Column("transfer_micros", BigInteger, nullable=False, server_default=text("0")),
    Column("cost_micros", BigInteger, nullable=False),
    Column("duration_s", Integer, nullable=False),
    Column("max_duration_s", Integer, nullable=False),
    Column("reclaim_notice_s", Integer, nullable=False),
    Column("minimum_runtime_s", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("workload_namespace", String(63), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("state", String(12), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("hold_until", Utc),
    Column("active_at", Utc),
    Column("expires_at", Utc),
    Column("drain_from", Utc),
    Column("draining_at", Utc),
    Column("ended_at", Utc),
    Column("due_at", Utc),
    Column("ending", String(12)),
    Column("message", Text, nullable=False),
    Column("token", Text),
    Column("sealed_credential", Text),
    Column("credential_serial", Integer, nullable=False),
    Column("lender_open", Boolean, nullable=False),
    Column("borrower_open", Boolean, nullable=False),
    Column("lender_mirrored", Boolean, nullable=False),
    Column("borrower_mirrored", Boolean, nullable=False),
    Index("ix_leases_lender_open", "lender", postgresql_where=text("lender_open"), sqlite_where=text("lender_open")),
    Index(
        "ix_leases_borrower_open",
        "borrower",
        postgresql_where=text("borrower_open"),
        sqlite_where=text("borrower_open"),
    ),
    Index(
        "ix_leases_due", "due_at", postgresql_where=text("due_at IS NOT NULL"), sqlite_where=text("due_at IS NOT NULL")
    ),
    Index(
        "ix_leases_spend",
        "borrower",
        "policy",
        "month",
        postgresql_where=text("policy IS NOT NULL"),
        sqlite_where=text("policy IS NOT NULL"),
    ),
    Index(None, "tenant", "id"),
    Index(None, "lender_tenant", "id"),
)

lease_devices = Table(
    "lease_devices",
    metadata,
    Column("lease", String(63), ForeignKey("leases.id"), primary_key=True),
    Column("ref", String(512), primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("live", Boolean, nullable=False),
    Index(LIVE_DEVICE, "ref", unique=True, postgresql_where=text("live"), sqlite_where=text("live")),
)

events = Table(
    "events",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Utc, nullable=False),
    Column("type", String(32), nullable=False),
    Column("lease", String(63)),
    Column("request", String(63)),
    Column("offer", String(63)),
    Column("cluster", String(63)),
    Column("peer", String(63)),
    Column("tenant", String(63)),
    Column("peer_tenant", String(63)),
    Column("subject", Text, nullable=False),
    Column("data", Text, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("revoked_at", Utc),
    Index(None, "secret_hash", unique=True),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("cluster", String(63), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("used_at", Utc),
    Column("revoked_at", Utc),
    Index(None, "secret_hash", unique=True),
)

burst_policies = Table(
    "burst_policies",
    metadata,
    Column("cluster", String(63), ForeignKey("clusters.name"), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("source", String(8), nullable=False),
    Column("spec", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("subject", String(128), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(128), nullable=False),
    Column("answer", Text, nullable=False),
    Column("salt", String(64)),
    Column("at", Utc, nullable=False),
    Index(None, "at"),
)
