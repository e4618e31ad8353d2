"""The messages of Yellowstone gRPC that are used: `geyser.proto`, and what `make proto` generates of it.

Nothing else is here, so that the keeper's client and the embedded chain's server can share it and know nothing of each
other.
"""
