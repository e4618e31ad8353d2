"""Who posts prices: the key of the markets' authority, and whether it is that on chain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from solders.pubkey import Pubkey

from keeper.config.keys import load_keypair
from keeper.config.settings import Settings
from keeper.domain.errors import ChainError, MalformedAccount, Misconfigured
from keeper.solana.client import ChainClient
from keeper.solana.transactions import Signer
from keeper.triggers.cranks import CrankRules
from keeper.venue.program import Program
from keeper.venue.venue import decode_market


@dataclass(frozen=True, slots=True)
class Authority:
    """The key that posts prices, and the markets, by the settings' words, whose authority it has to be."""

    signer: Signer
    markets: dict[str, Pubkey]


def load_authority(settings: Settings, program: Program, keeper: Pubkey) -> Authority | None:
    """None when no price is to be posted. Misconfigured as `load_keypair`, and when the key is the keeper's own without
    a word that it may be.
    """
    c = settings.crank
    if not c.markets or c.key_file is None:
        return None
    signer = Signer(load_keypair(c.key_file, "crank.key_file"))
    if signer.address == keeper and not c.allow_fee_key:
        raise Misconfigured(
            "crank.key_file holds the keeper's own key.",
            remedy="Give the markets an authority of their own; or set crank.allow_fee_key = true.",
        )
    return Authority(signer, {name: market_address(program, name) for name in c.markets})


def crank_rules(settings: Settings, program: Program) -> CrankRules | None:
    """For the decision; None when no price is to be posted. Misconfigured when it is not clear whose price that is."""
    c = settings.crank
    if not c.markets:
        return None
    fed = [(market_address(program, feed.market), feed) for feed in settings.prices.feeds]
    times = Counter(market for market, _ in fed)
    posted = [(market, feed) for market, feed in fed if feed.market in c.markets]
    for market, feed in posted:
        if times[market] > 1:
            raise Misconfigured(
                f"Two of prices.feeds are of the market {feed.market}, which crank.markets names.",
                remedy="Leave one: a price that is posted has one source.",
            )
    return CrankRules(
        feeds=tuple((bytes(market), bytes(Pubkey.from_string(feed.account))) for market, feed in posted),
        max_deviation_ppm=c.max_deviation_ppm,
        max_age_s=c.max_feed_age_s,
        min_step_ppm=c.min_step_ppm,
    )


async def check_authority(client: ChainClient, program: Program, authority: Authority) -> None:
    """Misconfigured, with the name of the setting, when the key is not each market's authority on chain."""
    names, addresses = list(authority.markets), list(authority.markets.values())
    try:
        slot, accounts = await client.accounts(addresses)
    except ChainError as e:
        raise Misconfigured(
            f"The markets of crank.markets can't be read: {e}.", remedy="Check rpc.url, and that the node is up."
        ) from e
    for name, address, account in zip(names, addresses, accounts, strict=True):
        try:
            market = (
                None if account is None or account.owner != program.id else decode_market(address, account.data, slot)
            )
        except MalformedAccount:
            market = None
        if market is None:
            raise Misconfigured(
                f"The program has no market {name}, which crank.markets names.", remedy="Check crank.markets."
            )
        if market.authority != authority.signer.address:
            raise Misconfigured(
                f"The key in crank.key_file, {authority.signer.address}, is not the authority of the market {name}: "
                f"{market.authority} is.",
                remedy="Give that one's key, or take the market out of crank.markets.",
            )


def market_address(program: Program, name: str) -> Pubkey:
    """A market by its symbol or its address. Misconfigured when it is neither."""
    base, slash, quote = name.partition("/")
    if slash:
        return program.market_address(base, quote)
    try:
        return Pubkey.from_string(name)
    except ValueError:
        raise Misconfigured(
            f"The market {name} of prices.feeds is neither a symbol such as SOL/USDC nor an address.",
            remedy="Check prices.feeds and crank.markets.",
        ) from None
