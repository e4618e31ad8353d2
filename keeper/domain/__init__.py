"""The words of the field: orders, prices, past facts and actions. Frozen, and known to every room."""
