"""Settings of where the keeper reads: the chain's nodes, streams of news, and oracles' own accounts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from keeper.config.fields import Address, FeedId, Genesis, Section, Share
from keeper.config.senders import SenderSettings


class Fallback(Section):
    """A further RPC endpoint: reads go to it when a better one is benched, sends go to all."""

    url: SecretStr
    ws_url: SecretStr | None = None


class StreamSettings(Section):
    """A stream of news beside the endpoints' WebSockets."""

    kind: Literal["yellowstone"]
    url: SecretStr
    token: SecretStr | None = None


class RpcSettings(Section):
    """The way to the chain."""

    url: SecretStr = Field(SecretStr("http://127.0.0.1:8899"), description="HTTP URL of the preferred RPC endpoint")
    ws_url: SecretStr | None = Field(
        None, description="its WebSocket URL; by default the HTTP URL with ws: and, if it names a port, the next port"
    )
    fallbacks: tuple[Fallback, ...] = Field((), description="further endpoints, in order of preference")
    streams: tuple[StreamSettings, ...] = Field(
        (),
        description="streams of news beside the WebSockets, each a [[rpc.streams]] table with kind (yellowstone), url "
        "(https://host:port, or http: without TLS) and, if need be, token (sent as x-token). The first news wins",
    )
    senders: tuple[SenderSettings, ...] = Field(
        (),
        max_length=8,
        description="ways that signed transactions go by beside the endpoints, each a [[rpc.senders]] table with name, "
        "kind (rpc: another node; sender: one that wants a tip; jito: a block engine), url, of those that want a tip "
        "tip_accounts and, if need be, token and token_header (docs/ways.md)",
    )
    genesis: Genesis | None = Field(
        None,
        description='the cluster to be on: "mainnet", "devnet", "testnet" or a genesis hash; unset takes any, and the '
        "journal remembers it",
    )
    deadline_s: float = Field(10.0, gt=0, le=120, description="total deadline of one call, in seconds")
    silence_s: float = Field(10.0, gt=0, le=600, description="a socket without a slot for so many seconds is dead")
    snapshot_every_s: float = Field(
        60.0,
        gt=0,
        description="how often everything is read again, in seconds; up to 5 times that for a book that takes long",
    )
    max_slot_lag: int = Field(50, gt=0, description="an endpoint so many slots behind the best is benched")
    probe_every_s: float = Field(5.0, gt=0, description="how often every endpoint's health is asked for, in seconds")
    blockhash_every_s: float = Field(
        2.0,
        gt=0,
        le=20,
        description="how often a new blockhash is fetched, in seconds; more often where 15 blocks take less, since "
        "each lives for 150 blocks",
    )

    @field_validator("senders")
    @classmethod
    def _apart(cls, value: tuple[SenderSettings, ...]) -> tuple[SenderSettings, ...]:
        if len({sender.name for sender in value}) < len(value):
            raise ValueError("two senders have one name")
        return value


class FeedSettings(Section):
    """A market's feed."""

    market: str = Field(min_length=1)
    kind: Literal["pyth", "pyth-legacy", "switchboard"]
    account: Address
    feed_id: FeedId
    owner: Address | None = None
    min_signatures: int | None = Field(None, ge=1, le=19)


class PriceSettings(Section):
    """Oracles' own accounts beside the markets' prices."""

    feeds: tuple[FeedSettings, ...] = Field(
        (),
        description="the feeds that markets name, each a [[prices.feeds]] table with market (symbol or address), kind "
        "(pyth, pyth-legacy or switchboard), account and feed_id, and, if need be, owner and min_signatures. The "
        "fresher of feed and market then decides",
    )
    max_deviation: Share = Field(
        0.01, description="while feed and market are further apart than this share, nothing of the market is decided"
    )
    max_confidence: Share = Field(
        0.01, description="a feed whose confidence is a greater share of its price says nothing"
    )

    @field_validator("feeds")
    @classmethod
    def _one_each(cls, value: tuple[FeedSettings, ...]) -> tuple[FeedSettings, ...]:
        if len({feed.market for feed in value}) < len(value):
            raise ValueError("two feeds are of one market")
        return value
