"""The gRPC face: `convert` between messages and values, `client` below, `server` above the rooms."""
