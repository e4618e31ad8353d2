"""The demo: a chain and a keeper as real processes, traders who place orders, prices that move, and an audit.

It talks to the keeper over HTTP and to the chain over RPC, as anybody could, and what it says at the end it has read
from the chain's ledger. Nothing here reaches into the keeper.
"""
