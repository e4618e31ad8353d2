"""What there is before the first order: markets with prices, traders with accounts and collateral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.demo.prices import LISTINGS, Listing
from keeper.demo.sending import Sender
from keeper.domain.orders import PRICE_SCALE
from keeper.venue.program import Program

LAMPORTS_PER_SOL: Final = 1_000_000_000
KEEPER_LAMPORTS: Final = 100 * LAMPORTS_PER_SOL
TRADER_LAMPORTS: Final = 2 * LAMPORTS_PER_SOL
ORACLE_LAMPORTS: Final = 1_000 * LAMPORTS_PER_SOL
"""What posting eight prices a second costs in most of a year."""
RICH: Final = 1_000_000 * PRICE_SCALE
POOR: Final = 1 * PRICE_SCALE
"""Quote units of collateral, x 1e6; no order of the demo needs less than 5 for its margin."""

_MAX_LEVERAGE: Final = 20
_INITIAL_MARGIN_BPS: Final = 500
_MAINTENANCE_MARGIN_BPS: Final = 250


@dataclass(frozen=True, slots=True)
class World:
    """Who is there. `oracle` is the authority of every market and posts its price."""

    oracle: Keypair
    markets: dict[str, Pubkey]
    """Addresses by symbol."""
    traders: tuple[Keypair, ...]
    poor: tuple[Keypair, ...]


async def build_world(program: Program, sender: Sender, traders: int, poor: int, keeper: Pubkey) -> World:
    """Create it all, on chain. The keeper's key gets lamports for fees and for the rent of positions."""
    oracle = Keypair()
    rich = tuple(Keypair() for _ in range(traders))
    paupers = tuple(Keypair() for _ in range(poor))
    markets = await build_markets(program, sender, oracle)
    await sender.airdrop([keeper], KEEPER_LAMPORTS)
    await sender.airdrop([trader.pubkey() for trader in (*rich, *paupers)], TRADER_LAMPORTS)
    wires = []
    for group, collateral in ((rich, RICH), (paupers, POOR)):
        wires += [
            await sender.sign([open_account(program, t.pubkey()), deposit(program, t.pubkey(), collateral)], t)
            for t in group
        ]
    await sender.send_and_wait(wires)
    return World(oracle, markets, rich, paupers)


async def build_markets(program: Program, sender: Sender, oracle: Keypair) -> dict[str, Pubkey]:
    """Create the markets, each with a price, by this new authority; their addresses by symbol."""
    await sender.airdrop([oracle.pubkey()], ORACLE_LAMPORTS)
    await sender.send_and_wait(
        [await sender.sign(_open_market(program, listing, oracle.pubkey()), oracle) for listing in LISTINGS]
    )
    return {listing.symbol: program.market_address(listing.base, listing.quote) for listing in LISTINGS}


def price_update(program: Program, market: Pubkey, oracle: Pubkey, price_1e6: int) -> Instruction:
    """`update_oracle_price`. The program reads nothing from the feed's account."""
    accounts = {"market": market, "price_feed": oracle, "authority": oracle}
    return program.instruction("update_oracle_price", {"new_price": price_1e6}, accounts)


def _open_market(program: Program, listing: Listing, oracle: Pubkey) -> Sequence[Instruction]:
    market = program.market_address(listing.base, listing.quote)
    terms = {
        "base_asset": listing.base,
        "quote_asset": listing.quote,
        "initial_price": listing.price_1e6,
        "max_leverage": _MAX_LEVERAGE,
        "initial_margin_ratio": _INITIAL_MARGIN_BPS,
        "maintenance_margin_ratio": _MAINTENANCE_MARGIN_BPS,
    }
    return (
        program.instruction("initialize_market", terms, {"market": market, "authority": oracle}),
        price_update(program, market, oracle, listing.price_1e6),
    )


def open_account(program: Program, trader: Pubkey) -> Instruction:
    """`create_user_account`: the trader's margin account, empty."""
    return program.instruction("create_user_account", {"account_index": 0}, _margin_account(program, trader))


def deposit(program: Program, trader: Pubkey, collateral_1e6: int) -> Instruction:
    """`deposit_collateral`, which moves no tokens: the reference program has no vault."""
    return program.instruction("deposit_collateral", {"amount": collateral_1e6}, _margin_account(program, trader))


def _margin_account(program: Program, trader: Pubkey) -> dict[str, Pubkey]:
    return {"user_account": program.user_account_address(trader), "authority": trader}
