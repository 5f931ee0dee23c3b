"""From the socket to the spool and the ledger: what is acknowledged here is never lost.

The bytes go `connection` → `framing` (PDUs) → `association` (may it come in? see `policy` and
`admission`; what may it send? see `negotiation`) → `exchange` and `message` (one C-STORE) →
`intake` → `spool` (the file), and when the last one is here `keeper` has the file made durable and
`recorder` the row; only then a status goes back.

One thread, the `loop`, serves all sockets; one more, the keeper, waits for the disk.
"""
