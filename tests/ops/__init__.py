"""What an operator touches: commands, checks, logs, metrics, units, the service."""
