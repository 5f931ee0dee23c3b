"""What a call says of its caller."""

import grpc

Context = grpc.ServicerContext


def actor_of(context: Context) -> str:
    """Return who calls, for the audit trail: the local socket's owner, or an address."""
    # Until callers are known by tokens.
    peer = str(context.peer())
    return "local" if peer.startswith("unix:") else peer.rpartition(":")[0]
