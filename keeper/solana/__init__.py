"""Solana, and no program of it: RPC pool, HTTP, sockets, blockhashes, the signer. Foreign errors end here."""
