"""From the settings' feeds to what their watch demands."""

from __future__ import annotations

from solders.pubkey import Pubkey

from keeper.config.sources import PriceSettings
from keeper.venue.prices.layouts import KINDS
from keeper.venue.prices.quote import Demands
from keeper.venue.prices.watching import Feed


def feeds_of(settings: PriceSettings) -> list[Feed]:
    """What to watch, and what to demand of it. Without `owner`, the account has to be of the oracle's own program, as
    on mainnet; without `min_signatures`, the oracle's own full verification counts.
    """
    return [
        Feed(
            market=feed.market,
            kind=feed.kind,
            account=Pubkey.from_string(feed.account),
            demands=Demands(
                owner=KINDS[feed.kind][1] if feed.owner is None else Pubkey.from_string(feed.owner),
                feed_id=bytes.fromhex(feed.feed_id),
                max_confidence_ppm=round(settings.max_confidence * 1e6),
                min_signatures=feed.min_signatures,
            ),
        )
        for feed in settings.feeds
    ]
