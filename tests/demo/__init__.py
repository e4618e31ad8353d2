"""The demo: its plan, its audit, and the command itself."""
