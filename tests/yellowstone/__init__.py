"""Yellowstone gRPC: the messages' code, the embedded chain's service, and the source that reads it."""
