"""The demo's own transactions: signed by a trader or by the oracle, sent, and waited for."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.demo.errors import DemoFailed
from keeper.domain.errors import ChainError
from keeper.solana.client import Blockhash, ChainClient, SignatureStatus
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Call, Endpoint

_BLOCKHASH_AGE_S: Final = 10.0
_WAIT_S: Final = 20.0
_POLL_S: Final = 0.05
_UNIT_LIMIT: Final = 200_000
_UNLIKE: Final = 10_000
"""More than are ever signed with one blockhash, and few enough that the last one's price is small, too."""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[ChainClient]:
    """A client of the node at this URL."""
    client = ChainClient(RpcPool([Endpoint("chain", HttpTransport(url, label="chain"))], PoolLimits(deadline_s=20.0)))
    try:
        yield client
    finally:
        await client.pool.aclose()


class Sender:
    """Signs with a recent blockhash and sends. DemoFailed when the chain refuses what the demo itself does."""

    def __init__(self, client: ChainClient) -> None:
        self._client = client
        self._blockhash: Blockhash | None = None
        self._fetched_at = 0.0
        # Two transactions with one content and one blockhash would have one signature, and count once.
        self._prices = itertools.cycle(range(1, _UNLIKE + 1))

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[Sender]:
        """One that speaks to the node at this URL."""
        async with connected(url) as client:
            yield cls(client)

    async def sign(self, instructions: Sequence[Instruction], signer: Keypair) -> bytes:
        """A transaction's wire bytes; the signer pays."""
        blockhash = await self._recent_blockhash()
        budget = [set_compute_unit_limit(_UNIT_LIMIT), set_compute_unit_price(next(self._prices))]
        message = Message.new_with_blockhash(
            [*budget, *instructions], signer.pubkey(), Hash.from_string(blockhash.value)
        )
        return bytes(VersionedTransaction(message, [signer]))

    async def send(self, wires: Sequence[bytes]) -> list[Signature]:
        """Hand the bytes to the node, in one request and in this order; what becomes of them is not waited for."""
        replies = await self._client.pool.send(wires).replies()
        for reply in replies:
            if isinstance(reply, ChainError):
                raise DemoFailed(f"The chain does not take a transaction: {reply}") from reply
        return [Signature.from_string(str(reply)) for reply in replies]

    async def send_and_wait(self, wires: Sequence[bytes]) -> None:
        """Until all are confirmed. DemoFailed when one failed."""
        await self.wait(await self.send(wires))

    async def airdrop(self, addresses: Sequence[Pubkey], lamports: int) -> None:
        """Lamports from the embedded chain's faucet."""
        calls = [Call("requestAirdrop", (str(address), lamports)) for address in addresses]
        replies = await self._client.pool.batch(calls)
        for reply in replies:
            if isinstance(reply, ChainError):
                raise DemoFailed(f"The chain gives no lamports: {reply}") from reply
        await self.wait([Signature.from_string(str(reply)) for reply in replies])

    async def wait(self, signatures: Sequence[Signature]) -> None:
        """Until all are confirmed. DemoFailed when one failed, or is not confirmed in time."""
        missing = list(signatures)
        with anyio.move_on_after(_WAIT_S):
            while missing:
                _, statuses = await self._client.statuses(missing)
                for signature, status in zip(missing, statuses, strict=True):
                    if isinstance(status, SignatureStatus) and status.err is not None:
                        raise DemoFailed(f"The transaction {signature} failed: {status.err}")
                missing = [s for s, status in zip(missing, statuses, strict=True) if not _confirmed(status)]
                if missing:
                    await anyio.sleep(_POLL_S)
        if missing:
            raise DemoFailed(f"{len(missing)} transactions were not confirmed within {_WAIT_S:.0f} s.")

    async def _recent_blockhash(self) -> Blockhash:
        now = anyio.current_time()
        if self._blockhash is None or now - self._fetched_at > _BLOCKHASH_AGE_S:
            self._blockhash, self._fetched_at = await self._client.latest_blockhash(), now
        return self._blockhash


def _confirmed(status: SignatureStatus | ChainError | None) -> bool:
    return isinstance(status, SignatureStatus) and status.confirmation != "processed"
