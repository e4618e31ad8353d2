"""The ground on which every episode begins: a chain with markets and users, made once and forked from.

Making a virtual machine takes longer than an episode. So a process makes this, and each episode runs in a fork of it:
all begin with the very same bytes, and nothing of one is left for the next.
"""

from __future__ import annotations

import itertools
import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.config.senders import SenderSettings
from keeper.config.settings import Settings
from keeper.localnet import Localnet, LocalnetConfig
from keeper.localnet.program import PROGRAM_ID, PROGRAM_SO
from tests.simulate.dice import clock
from tests.simulate.scenario import START_1E6, Purse
from tests.support.world import SOL, Trader, World

CONFIRMED_SLOTS: Final = 4
FINALIZED_SLOTS: Final = 10
COLLATERAL_1E6: Final = 1_000_000_000_000
TOKEN: Final = "an operator's token"
OPERATOR: Final = f"Bearer {TOKEN}"
NODES: Final = ("one.example:8899", "two.example:8899")
SENDERS: Final = ("three.example:8899", "four.example:8899")
"""Ways to send beside the nodes. The second one wants a tip."""
TIP_ACCOUNT: Final = Pubkey.from_bytes(sha256(b"simulated tips").digest())
_TIP_LAMPORTS: Final = 20_000
CALM_BLOCKS: Final = 12
STRANGE_1E6: Final = 97_400_000
STRANGE_PACE: Final = 3
"""Another cluster makes so many blocks to one of ours."""

_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "rpc": {
        "url": f"http://{NODES[0]}",
        "fallbacks": [{"url": f"http://{NODES[1]}"}],
        "deadline_s": 5.0,
        "silence_s": 4.0,
        "snapshot_every_s": 10.0,
    },
    "execution": {"finality_every_s": 1.0, "account_every_s": 3.0, "longest_pause_s": 8.0, "attempts_per_hour": 1_000},
    "health": {"stalled_after_s": 60.0},
    "http": {"admin_token_sha256": sha256(TOKEN.encode()).hexdigest()},
    # Prices jump here at will; the breaker has tests of its own.
    "trigger": {"breaker_trip": 1.0},
}


class SeededWorld(World):
    """A world whose wallets are the same in every process."""

    def __init__(self, net: Localnet) -> None:
        self._wallets = itertools.count(1)
        super().__init__(net)

    def wallet(self, lamports: int = 100 * SOL) -> Keypair:
        key = Keypair.from_seed(sha256(b"simulated wallet %d" % next(self._wallets)).digest())
        self.bank.airdrop(key.pubkey(), lamports)
        return key


def _world(seed: int) -> SeededWorld:
    config = LocalnetConfig(
        slot_ms=0, confirmed_slots=CONFIRMED_SLOTS, finalized_slots=FINALIZED_SLOTS, seed=seed, history_slots=2_000
    )
    net = Localnet(config)
    net.bank._clock = clock.real  # this machine's time of day may step; the chain's does not
    net.bank.add_program(Pubkey.from_string(PROGRAM_ID), PROGRAM_SO)
    return SeededWorld(net)


class Ground:
    """The chain, who is on it, and what a keeper is told of itself. `folder` is where lives have their files."""

    def __init__(self, folder: Path) -> None:
        self.world = _world(1)
        self.bank = self.world.bank
        self.market = self.world.market("SOL/USDC", price_1e6=START_1E6)
        # Another cluster, with a market at the same address, where the price is elsewhere and the slots run ahead.
        self.stranger = _world(2)
        self.stranger.market("SOL/USDC", price_1e6=STRANGE_1E6)
        self.users: dict[Purse, Trader] = {
            Purse.RICH: self.world.trader(collateral_1e6=COLLATERAL_1E6),
            Purse.POOR: self.world.trader(collateral_1e6=0),
            Purse.LATER: self.world.trader(collateral_1e6=0),
            Purse.NONE: self.world.trader(account=False),
        }
        self.key = self.world.wallet(1_000 * SOL)
        self.rival = self.world.wallet(1_000 * SOL)
        for _ in range(CALM_BLOCKS):
            self.bank.advance()
            for _ in range(STRANGE_PACE):
                self.stranger.bank.advance()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        key_file = folder / "key.json"
        key_file.touch(mode=0o600)
        key_file.write_text(json.dumps(list(bytes(self.key))))
        rpc = {**_SETTINGS["rpc"], "genesis": str(self.bank.chain.genesis_hash)}
        self._settings = Settings.model_validate({**_SETTINGS, "rpc": rpc, "key": {"file": str(key_file)}})

    def settings(self, journal: Path, *, cap_lamports: int, senders: bool) -> Settings:
        """What the keeper is told, with its journal there, and this cap unless it is 0."""
        told = self._settings
        fees, rpc = {}, {}
        if cap_lamports:
            fees["daily_outflow_cap_lamports"] = cap_lamports
        if senders:
            fees["tip_lamports"] = _TIP_LAMPORTS
            rpc["senders"] = (
                SenderSettings.model_validate({"name": "plain", "kind": "rpc", "url": f"http://{SENDERS[0]}"}),
                SenderSettings.model_validate(
                    {
                        "name": "tipped",
                        "kind": "sender",
                        "url": f"http://{SENDERS[1]}",
                        "tip_accounts": [str(TIP_ACCOUNT)],
                    }
                ),
            )
        return told.model_copy(
            update={
                "journal": told.journal.model_copy(update={"path": journal}),
                "fees": told.fees.model_copy(update=fees),
                "rpc": told.rpc.model_copy(update=rpc),
            }
        )
