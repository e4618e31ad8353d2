"""Orders as they change: the feed that reads the journal once for all readers, and its event streams."""
