"""What alembic runs: the connection comes from `migrations.__main__`, which holds the lock."""

from alembic import context

from jobs.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
