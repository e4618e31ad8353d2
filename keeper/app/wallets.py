"""Who signs: the keeper itself, and the managed wallets that an operator configured; their keys read and checked."""

from __future__ import annotations

from solders.pubkey import Pubkey

from keeper.config.keys import load_keypair
from keeper.config.settings import KeySettings, ManagedSettings
from keeper.domain.decimals import parse_1e6
from keeper.domain.errors import Misconfigured
from keeper.http.edge.clients import Tokens
from keeper.http.orders.managed import ManagedWallet
from keeper.solana.transactions import Signer


def load_signer(settings: KeySettings) -> Signer:
    """The keeper's signer. Misconfigured as `load_keypair`, and when no file is set."""
    if settings.file is None:
        raise Misconfigured(
            "The keeper has no key to sign with.", remedy="Set key.file (make one with `keeper keygen FILE`)."
        )
    return Signer(load_keypair(settings.file))


def load_wallets(settings: ManagedSettings, keeper: Pubkey) -> list[ManagedWallet]:
    """Every managed wallet. Misconfigured, naming the wallet, when its key can't be used."""
    wallets = []
    for configured in settings.wallets:
        signer = Signer(load_keypair(configured.key_file, f"key_file of the managed wallet {configured.name}"))
        if signer.address == keeper:
            raise Misconfigured(
                f"The managed wallet {configured.name} is the keeper's own.",
                remedy="Give it a key of its own: an order must not spend what pays for executions.",
            )
        wallets.append(
            ManagedWallet(
                name=configured.name,
                signer=signer,
                markets=frozenset(configured.markets),
                max_size_1e6=parse_1e6(configured.max_size),
                orders_per_day=configured.orders_per_day,
                tokens=Tokens({digest.get_secret_value(): configured.name for digest in configured.token_sha256}),
            )
        )
    return wallets


def bearers(settings: ManagedSettings) -> dict[str, str]:
    """Every wallet token's hash, with the name that its bearer's requests are counted under."""
    return {
        digest.get_secret_value(): f"wallet {wallet.name} {n}"
        for wallet in settings.wallets
        for n, digest in enumerate(wallet.token_sha256)
    }
