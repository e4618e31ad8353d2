"""Would it fill now? Asked of a node, with nothing signed and nothing at stake."""

from __future__ import annotations

from solders.hash import Hash
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.orders import Order
from keeper.solana.client import ChainClient
from keeper.venue.program import Program


class Rehearsal:
    """Simulates executions without a signature. `keeper` would be the executor."""

    def __init__(self, client: ChainClient, program: Program, keeper: Pubkey) -> None:
        self._client = client
        self._program = program
        self._keeper = keeper

    async def would_fill(self, order: Order) -> bool:
        """Whether the program would take an execution of the order now. Raises ChainError when no node says.

        One that would only mark it expired counts: the order ends by its name then.
        """
        instruction = self._program.execute(order, self._keeper)
        message = Message.new_with_blockhash([instruction], self._keeper, Hash.default())
        unsigned = VersionedTransaction.populate(message, [Signature.default()])
        result = await self._client.simulate(bytes(unsigned), sig_verify=False, replace_blockhash=True)
        return result.err is None
