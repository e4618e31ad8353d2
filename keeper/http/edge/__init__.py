"""The edge: sockets, limits, errors, and what every request and answer has in common; nothing of orders."""
