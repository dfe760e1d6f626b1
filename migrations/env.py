"""How Alembic reaches the database: only ever through ``broker.store.migrate``, which hands its connection over.

So one place knows URLs, locks and timeouts, and a migration runs in one transaction: all of it or nothing.
"""

from alembic import context

from broker.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=True,
    compare_server_default=True,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
