"""The messages of Yellowstone gRPC that are used: `geyser.proto`, what `make proto` generates of it, and gRPC itself.

Nothing else is here, so that the keeper's client and the embedded chain's server can share it and know nothing of each
other. Importing it takes a fifth of a second and 20 MB: only those who use it do.
"""

import os

# gRPC writes to standard error by itself, between the log's own lines, and names addresses there. It reads this when it
# is loaded, so nobody else loads it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

__all__ = ["grpc"]
