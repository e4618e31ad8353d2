"""What can be read of the keeper: orders and attempts as they travel, markets, history, health, metrics."""
