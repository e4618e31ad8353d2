"""Solana Actions: an order from a link."""
