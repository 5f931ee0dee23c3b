"""From the socket to the spool and the ledger: what is acknowledged here is never lost.

The data goes `listener` → `policy` (may it come in?) → `intake` → `spool` (the file) → ledger (the
row), and only then back to the sender as a status. `conversation` keeps what is known of one
association and logs it; `threads`, `libraries` and `pdu` keep pynetdicom in check.
"""
