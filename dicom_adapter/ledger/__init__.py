"""The ledger: schema, migrations and every query; what is not in here is not known after a restart.

Queries are functions over an open transaction, grouped by what they are about: `instances`,
`groups`, `submissions`, `jobs` (to show them), `queue` (to make and move them), `leases` (who runs
them), `uploads`, `events`. `Ledger` opens the transactions.
"""

from dicom_adapter.ledger.database import Ledger

__all__ = ["Ledger"]
