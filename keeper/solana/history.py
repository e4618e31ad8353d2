"""The last transactions that name an account, whoever sent them."""

from __future__ import annotations

import binascii
from typing import Any, NamedTuple

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.errors import ChainError, MalformedReply
from keeper.solana.client import CONFIRMED, ChainClient, landed_call


class Touch(NamedTuple):
    """A confirmed transaction. `err` is None for success, else the error in the RPC's JSON shape; `wire` are its bytes,
    none when the node no longer keeps it whole.
    """

    signature: Signature
    slot: int
    err: object
    wire: bytes = b""
    logs: tuple[str, ...] = ()


async def history(client: ChainClient, address: Pubkey, limit: int) -> list[Touch]:
    """The last transactions that name the address, oldest first, at most `limit`."""
    config = {"commitment": CONFIRMED, "limit": limit}
    rows = await client.pool.call("getSignaturesForAddress", str(address), config)
    try:
        replies = await client.pool.batch([landed_call(row["signature"]) for row in rows])
        return [_touch(row, reply) for row, reply in zip(reversed(rows), reversed(replies), strict=True)]
    except (AttributeError, LookupError, TypeError, ValueError) as e:
        raise MalformedReply(f"a history in an unknown shape ({type(e).__name__})") from None


def _touch(row: Any, reply: Any) -> Touch:
    touch = Touch(Signature.from_string(row["signature"]), int(row["slot"]), row["err"])
    if isinstance(reply, ChainError) or reply is None:
        return touch
    logs = (reply["meta"] or {}).get("logMessages") or ()
    return touch._replace(wire=binascii.a2b_base64(reply["transaction"][0]), logs=tuple(map(str, logs)))
