"""The embedded chain through its RPC and its socket, as a client sees it."""
