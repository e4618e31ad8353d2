"""The fault campaign: the real keeper, killed again and again, behind a network that breaks (docs/chaos.md)."""
