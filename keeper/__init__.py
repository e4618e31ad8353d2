"""The QuantDesk keeper: executes conditional orders on Solana exactly once, atomically with their positions."""

__version__ = "0.1.0"
