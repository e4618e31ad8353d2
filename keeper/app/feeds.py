"""From the settings' feeds to what their watch demands."""

from __future__ import annotations

from solders.pubkey import Pubkey

from keeper.config.crank import CrankSettings
from keeper.config.sources import PriceSettings
from keeper.venue.prices.layouts import KINDS
from keeper.venue.prices.quote import Demands
from keeper.venue.prices.watching import Feed


def feeds_of(settings: PriceSettings, crank: CrankSettings, authority: Pubkey | None = None) -> list[Feed]:
    """What to watch, and what to demand of it. Without `owner`, the account has to be of the oracle's own program, as
    on mainnet; without `min_signatures`, the oracle's own full verification counts. One whose price may be posted has
    to be as sure as that demands, too; and its market's `authority` to be who posts it.
    """
    return [
        Feed(
            market=feed.market,
            kind=feed.kind,
            account=Pubkey.from_string(feed.account),
            demands=Demands(
                owner=KINDS[feed.kind][1] if feed.owner is None else Pubkey.from_string(feed.owner),
                feed_id=bytes.fromhex(feed.feed_id),
                max_confidence_ppm=min(
                    round(settings.max_confidence * 1e6),
                    crank.max_confidence_ppm if feed.market in crank.markets else 1_000_000,
                ),
                min_signatures=feed.min_signatures,
            ),
            authority=authority if feed.market in crank.markets else None,
        )
        for feed in settings.feeds
    ]
