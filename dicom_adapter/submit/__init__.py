"""From the ledger's outbox to the platform: each submission arrives once, or people see why not."""
