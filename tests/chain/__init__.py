"""The chain room: clients against the embedded chain and against scripted nodes, placing, relay checks."""
