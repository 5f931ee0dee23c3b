"""The gRPC face: messages and values (`convert`), the client below, the server above the rooms."""
