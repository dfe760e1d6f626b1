"""Everything the broker remembers at first.

Revision 0001, the first. Times are microseconds since the epoch.
"""

import sqlalchemy as sa
from alembic import op


revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "key", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_at"), "answers", ["at"], unique=False)

    op.create_table(
        "clusters",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("signing_key", sa.Text(), nullable=False),
        sa.Column("sealing_key", sa.Text(), nullable=False),
        sa.Column("credential_hash", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=True),
        sa.Column("advert_sequence", sa.BigInteger(), nullable=False),
        sa.Column("report_sequence", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("clock_offset_ms", sa.BigInteger(), nullable=True),
        sa.Column("clock_safe", sa.Boolean(), nullable=False),
        sa.Column("resynced", sa.Boolean(), nullable=False),
        sa.Column("silent", sa.Boolean(), nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=True),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_clusters")),
    )
    op.create_index(op.f("ix_clusters_credential_hash"), "clusters", ["credential_hash"], unique=True)
    op.create_index(op.f("ix_clusters_tenant"), "clusters", ["tenant"], unique=False)

    op.create_table(
        "events",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("lease", sa.String(length=63), nullable=True),
        sa.Column("request", sa.String(length=63), nullable=True),
        sa.Column("offer", sa.String(length=63), nullable=True),
        sa.Column("cluster", sa.String(length=63), nullable=True),
        sa.Column("peer", sa.String(length=63), nullable=True),
        sa.Column("tenant", sa.String(length=63), nullable=True),
        sa.Column("peer_tenant", sa.String(length=63), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_events")),
    )
    op.create_table(
        "join_tokens",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("cluster", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_tokens")),
    )
    op.create_index(op.f("ix_join_tokens_secret_hash"), "join_tokens", ["secret_hash"], unique=True)

    op.create_table(
        "requests",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("cluster", sa.String(length=63), nullable=False),
        sa.Column("policy", sa.String(length=63), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("wait_until", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("excluded", sa.Text(), nullable=False),
        sa.Column("lease", sa.String(length=63), nullable=True),
        sa.Column("placement", sa.Text(), nullable=True),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index(
        "ix_requests_open",
        "requests",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("state = 'Open'"),
        sqlite_where=sa.text("state = 'Open'"),
    )
    op.create_index(op.f("ix_requests_tenant_id"), "requests", ["tenant", "id"], unique=False)

    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_secret_hash"), "tokens", ["secret_hash"], unique=True)

    op.create_table(
        "burst_policies",
        sa.Column("cluster", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["cluster"], ["clusters.name"], name=op.f("fk_burst_policies_cluster")),
        sa.PrimaryKeyConstraint("cluster", "name", name=op.f("pk_burst_policies")),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("request", sa.String(length=63), nullable=False),
        sa.Column("offer", sa.String(length=63), nullable=False),
        sa.Column("lender", sa.String(length=63), nullable=False),
        sa.Column("borrower", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("lender_tenant", sa.String(length=63), nullable=False),
        sa.Column("policy", sa.String(length=63), nullable=True),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("price_micros", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("duration_s", sa.Integer(), nullable=False),
        sa.Column("max_duration_s", sa.Integer(), nullable=False),
        sa.Column("reclaim_notice_s", sa.Integer(), nullable=False),
        sa.Column("minimum_runtime_s", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("workload_namespace", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("hold_until", sa.BigInteger(), nullable=True),
        sa.Column("active_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("drain_from", sa.BigInteger(), nullable=True),
        sa.Column("draining_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("ending", sa.String(length=12), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("sealed_credential", sa.Text(), nullable=True),
        sa.Column("credential_serial", sa.Integer(), nullable=False),
        sa.Column("lender_open", sa.Boolean(), nullable=False),
        sa.Column("borrower_open", sa.Boolean(), nullable=False),
        sa.Column("lender_mirrored", sa.Boolean(), nullable=False),
        sa.Column("borrower_mirrored", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["lender"], ["clusters.name"], name=op.f("fk_leases_lender")),
        sa.ForeignKeyConstraint(["request"], ["requests.id"], name=op.f("fk_leases_request")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
    )
    op.create_index(
        "ix_leases_borrower_open",
        "leases",
        ["borrower"],
        unique=False,
        postgresql_where=sa.text("borrower_open"),
        sqlite_where=sa.text("borrower_open"),
    )
    op.create_index(
        "ix_leases_due",
        "leases",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_leases_lender_open",
        "leases",
        ["lender"],
        unique=False,
        postgresql_where=sa.text("lender_open"),
        sqlite_where=sa.text("lender_open"),
    )
    op.create_index(op.f("ix_leases_lender_tenant_id"), "leases", ["lender_tenant", "id"], unique=False)
    op.create_index(
        "ix_leases_spend",
        "leases",
        ["borrower", "policy", "month"],
        unique=False,
        postgresql_where=sa.text("policy IS NOT NULL"),
        sqlite_where=sa.text("policy IS NOT NULL"),
    )
    op.create_index(op.f("ix_leases_tenant_id"), "leases", ["tenant", "id"], unique=False)

    op.create_table(
        "offers",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("cluster", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=True),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn_at", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["cluster"], ["clusters.name"], name=op.f("fk_offers_cluster")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offers")),
    )
    op.create_index(op.f("ix_offers_cluster_name"), "offers", ["cluster", "name"], unique=True)

    op.create_table(
        "lease_devices",
        sa.Column("lease", sa.String(length=63), nullable=False),
        sa.Column("ref", sa.String(length=512), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["lease"], ["leases.id"], name=op.f("fk_lease_devices_lease")),
        sa.PrimaryKeyConstraint("lease", "ref", name=op.f("pk_lease_devices")),
    )
    op.create_index(
        "uq_lease_devices_live",
        "lease_devices",
        ["ref"],
        unique=True,
        postgresql_where=sa.text("live"),
        sqlite_where=sa.text("live"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_lease_devices_live", "lease_devices", postgresql_where=sa.text("live"), sqlite_where=sa.text("live")
    )

    op.drop_table("lease_devices")
    op.drop_index(op.f("ix_offers_cluster_name"), "offers")

    op.drop_table("offers")
    op.drop_index(op.f("ix_leases_tenant_id"), "leases")
    op.drop_index(
        "ix_leases_spend",
        "leases",
        postgresql_where=sa.text("policy IS NOT NULL"),
        sqlite_where=sa.text("policy IS NOT NULL"),
    )
    op.drop_index(op.f("ix_leases_lender_tenant_id"), "leases")
    op.drop_index(
        "ix_leases_lender_open", "leases", postgresql_where=sa.text("lender_open"), sqlite_where=sa.text("lender_open")
    )
    op.drop_index(
        "ix_leases_due",
        "leases",
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.drop_index(
        "ix_leases_borrower_open",
        "leases",
        postgresql_where=sa.text("borrower_open"),
        sqlite_where=sa.text("borrower_open"),
    )

    op.drop_table("leases")
    op.drop_table("burst_policies")
    op.drop_index(op.f("ix_tokens_secret_hash"), "tokens")

    op.drop_table("tokens")
    op.drop_index(op.f("ix_requests_tenant_id"), "requests")
    op.drop_index(
        "ix_requests_open",
        "requests",
        postgresql_where=sa.text("state = 'Open'"),
        sqlite_where=sa.text("state = 'Open'"),
    )

    op.drop_table("requests")
    op.drop_index(op.f("ix_join_tokens_secret_hash"), "join_tokens")

    op.drop_table("join_tokens")
    op.drop_table("events")
    op.drop_index(op.f("ix_clusters_tenant"), "clusters")
    op.drop_index(op.f("ix_clusters_credential_hash"), "clusters")

    op.drop_table("clusters")
    op.drop_index(op.f("ix_answers_at"), "answers")

    op.drop_table("answers")
