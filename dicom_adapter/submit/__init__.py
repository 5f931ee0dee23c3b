"""From the ledger's outbox to the platform: every submission arrives once, or people see why not."""
