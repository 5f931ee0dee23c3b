"""Lets Alembic run the migrations over the connection that the ledger hands it."""

from alembic import context

from dicom_adapter.ledger.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
