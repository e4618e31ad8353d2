"""The types of settings: what a value has to be, with a sentence for who writes another."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from solders.pubkey import Pubkey

CLUSTERS: Final = {
    "mainnet": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    "devnet": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
    "testnet": "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY",
}
"""The genesis hashes of the public clusters."""


def _base58(value: str) -> str:
    try:
        Pubkey.from_string(value)
    except ValueError:
        raise ValueError("it is not a base58 public key of 32 bytes") from None
    return value


def _genesis(value: str) -> str:
    try:
        return CLUSTERS.get(value) or _base58(value)  # a hash has an address's form: 32 bytes in base58
    except ValueError:
        raise ValueError(f"it is neither {', '.join(CLUSTERS)} nor a genesis hash") from None


def _sha256(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9a-f]{64}", value.get_secret_value()):
        raise ValueError("it is not the SHA-256 of a token: 64 hexadecimal digits in lower case")
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError(f"{value!r} is neither an IP address nor a network such as 10.0.0.0/8") from None


def _origin(value: str) -> str:
    if value != "*" and not re.fullmatch(r"https?://[^\s/]+", value):
        raise ValueError(f"{value!r} is no origin: that has a scheme and a host, and no path")
    return value


def _feed_id(value: str) -> str:
    digits = value.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError(
            "it is not 64 hexadecimal digits: of pyth the price feed's id, of pyth-legacy the product account's key, "
            "of switchboard the feed's hash"
        )
    return digits


def _postgres(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("it is no URL of a PostgreSQL database: postgresql://user@host/database")
    return value


Share = Annotated[float, Field(gt=0, le=1)]
Address = Annotated[str, AfterValidator(_base58)]
Genesis = Annotated[str, AfterValidator(_genesis)]
FeedId = Annotated[str, AfterValidator(_feed_id)]
Digest = Annotated[SecretStr, AfterValidator(_sha256)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres)]
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, AfterValidator(_origin)]


class Section(BaseModel):
    """A table of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
