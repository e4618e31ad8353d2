"""What came in and what was decided, written down as it happens and decided again later (docs/record.md)."""
