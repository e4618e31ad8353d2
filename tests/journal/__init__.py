"""The journal on real SQLite files: commits, durability, queries, upkeep."""
