"""The settings of a localnet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from solders.account import Account
from solders.pubkey import Pubkey

DEFAULT_RPC_PORT = 8899


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalnetConfig:
    """What to serve and how.

    Ports: HTTP on `rpc_port`, WebSocket on the next one; 0 picks a free pair. `slot_ms` is the time
    between blocks in milliseconds; 0 leaves them to `Bank.advance`. `pace_change` is a slot, and what that time is from
    there on. The reference program is deployed unless `reference_program` is off or `programs` puts another at its
    address. `first_slot` is final from the beginning. From the slot `alpenglow_from` on, consensus is Alpenglow; None:
    TowerBFT for ever. On `geyser_port` Yellowstone gRPC is served, 0 is a free one and None serves none; with
    `geyser_token` only for clients that send it. `seed` makes hashes and the node's keys repeatable. The other fields
    are limits: those of requests are Agave's.
    """

    rpc_port: int = DEFAULT_RPC_PORT
    geyser_port: int | None = None
    geyser_token: str | None = field(default=None, repr=False)
    bind_address: str = "127.0.0.1"
    slot_ms: int = 400
    pace_change: tuple[int, int] | None = None
    confirmed_slots: int = 1
    finalized_slots: int = 31
    alpenglow_from: int | None = None
    reference_program: bool = True
    programs: tuple[tuple[Pubkey, Path], ...] = ()
    accounts: tuple[tuple[Pubkey, Account], ...] = ()
    first_slot: int = 0
    seed: int | None = None
    history_transactions: int = 50_000
    history_slots: int = 10_000
    status_cache_blocks: int = 300
    max_body_bytes: int = 50 * 1024
    client_queue_messages: int = 10_000
