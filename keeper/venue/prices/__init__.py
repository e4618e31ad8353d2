"""Prices from oracles that programs really use: an account's bytes to a price that was checked, or to what is wrong."""
