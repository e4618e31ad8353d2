"""A chain that is known by its RPC alone, and what the tests put on it: markets, wallets, prices."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from keeper.demo.ledger import Entry, read_ledger
from keeper.demo.world import price_update
from keeper.domain.errors import ChainError
from keeper.domain.orders import Order, Position
from keeper.solana.client import CONFIRMED, ChainClient, SignatureStatus
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.venue.program import Program
from keeper.venue.venue import decode_order, decode_position
from tests.support import KeeperConfig

T = TypeVar("T")
SOL: Final = 1_000_000_000
USDC: Final = 1_000_000
WITHIN_S: Final = 120.0
"""How long a state may take to come: a busy devnet confirms in seconds, and a blockhash lives a minute."""
_LOOK_EVERY_S: Final = 0.2
_RESEND_EVERY_S: Final = 2.0
_WALLET_LAMPORTS: Final = SOL // 10
_KEEPER_LAMPORTS: Final = SOL // 4
_PURSE_LAMPORTS: Final = 2 * SOL


@dataclass(frozen=True, slots=True)
class Wallet:
    """A key that no traceback shows: the one that pays may be worth something."""

    key: Keypair = field(default_factory=Keypair, repr=False)

    @property
    def address(self) -> Pubkey:
        return self.key.pubkey()


@dataclass(frozen=True, slots=True)
class Address:
    """Where the chain is. `payer` funds the tests; None asks the faucet."""

    rpc_url: str = field(repr=False)
    ws_url: str = field(repr=False)
    program_id: Pubkey
    payer: Wallet | None = None


@dataclass(frozen=True, slots=True)
class Market:
    """A market of this run alone: the chain may hold those of others."""

    symbol: str
    address: Pubkey


async def eventually(ask: Callable[[], Awaitable[T | None]], *, what: str, within_s: float = WITHIN_S) -> T:
    """Ask until the answer is something. TimeoutError names what did not come."""
    with anyio.move_on_after(within_s):
        while True:
            answer = await ask()
            if answer:
                return answer
            await anyio.sleep(_LOOK_EVERY_S)
    raise TimeoutError(f"not within {within_s:g} s: {what}")


class Cluster:
    """Speaks to the chain as anybody could; `oracle` is the authority of the run's markets."""

    def __init__(self, address: Address, client: ChainClient, program: Program) -> None:
        self.address = address
        self.program = program
        self.oracle = Wallet()
        self._client = client
        self._purse = address.payer or Wallet()
        # Two transactions with one content and one blockhash would be one.
        self._unlike = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Cluster with {self.program.id}>"

    @classmethod
    @asynccontextmanager
    async def open(cls, address: Address, program: Program) -> AsyncIterator[Cluster]:
        """Connected and funded. AssertionError when the program is not there."""
        transport = HttpTransport(address.rpc_url, label="chain")
        client = ChainClient(RpcPool([Endpoint("chain", transport)], PoolLimits(deadline_s=30.0)))
        try:
            _, [found] = await client.accounts([program.id])
            assert found is not None, (
                f"there is no program at {program.id}: deploy keeper/localnet/program/quantdesk_perp_dex.so, and say "
                "where with --program-id"
            )
            cluster = cls(address, client, program)
            if address.payer is None:
                await cluster._airdrop()
            await cluster.fund(cluster.oracle.address, _WALLET_LAMPORTS)
            yield cluster
        finally:
            await client.pool.aclose()

    # -- transactions

    async def land(self, *instructions: Instruction, signer: Wallet) -> Signature:
        """Sign, send the same bytes until they are confirmed. AssertionError when they fail, or can't land in time."""
        blockhash = await self._client.latest_blockhash()
        budget = [set_compute_unit_limit(200_000), set_compute_unit_price(next(self._unlike))]
        message = Message.new_with_blockhash(
            [*budget, *instructions], signer.address, Hash.from_string(blockhash.value)
        )
        transaction = VersionedTransaction(message, [signer.key])
        signature, sent_at = transaction.signatures[0], -_RESEND_EVERY_S

        async def confirmed() -> bool:
            nonlocal sent_at
            if anyio.current_time() - sent_at >= _RESEND_EVERY_S:
                await self._client.pool.send([bytes(transaction)]).replies()
                sent_at = anyio.current_time()
            return await self._confirmed(signature)

        await eventually(confirmed, what=f"the confirmation of {signature}")
        return signature

    async def _confirmed(self, signature: Signature) -> bool:
        _, [status] = await self._client.statuses([signature])
        if not isinstance(status, SignatureStatus):
            return False
        assert status.err is None, f"a transaction of the test's own failed: {status.err}"
        return status.confirmation != "processed"

    async def _airdrop(self) -> None:
        try:
            said = await self._client.pool.call("requestAirdrop", str(self._purse.address), _PURSE_LAMPORTS)
        except ChainError as e:
            raise AssertionError(f"the faucet gives nothing ({e}): name a funded wallet with --payer KEYFILE") from e
        signature = Signature.from_string(str(said))
        await eventually(lambda: self._confirmed(signature), what="the faucet's transaction")

    async def fund(self, to: Pubkey, lamports: int) -> None:
        """From the purse."""
        gift = transfer(TransferParams(from_pubkey=self._purse.address, to_pubkey=to, lamports=lamports))
        await self.land(gift, signer=self._purse)

    # -- the world

    async def market(self, *, price_1e6: int = 100 * USDC) -> Market:
        """A new market with a fresh price."""
        base = f"V{secrets.token_hex(3).upper()}"
        address = self.program.market_address(base, "USDC")
        terms = {
            "base_asset": base,
            "quote_asset": "USDC",
            "initial_price": price_1e6,
            "max_leverage": 20,
            "initial_margin_ratio": 500,
            "maintenance_margin_ratio": 250,
        }
        accounts = {"market": address, "authority": self.oracle.address}
        create = self.program.instruction("initialize_market", terms, accounts)
        await self.land(create, self._price(address, price_1e6), signer=self.oracle)
        return Market(f"{base}/USDC", address)

    async def set_price(self, market: Market, *prices_1e6: int) -> None:
        """Post these prices one after the other, in one transaction: nobody sees but the last."""
        await self.land(*(self._price(market.address, price) for price in prices_1e6), signer=self.oracle)

    def _price(self, market: Pubkey, price_1e6: int) -> Instruction:
        return price_update(self.program, market, self.oracle.address, price_1e6)

    async def trader(self, *, collateral_1e6: int = 10_000 * USDC) -> Wallet:
        """A wallet with a margin account."""
        trader = Wallet()
        await self.fund(trader.address, _WALLET_LAMPORTS)
        accounts = {"user_account": self.program.user_account_address(trader.address), "authority": trader.address}
        create = self.program.instruction("create_user_account", {"account_index": 0}, accounts)
        await self.land(create, signer=trader)
        await self.deposit(trader, collateral_1e6)
        return trader

    async def deposit(self, trader: Wallet, amount_1e6: int) -> None:
        """Add to a trader's collateral."""
        accounts = {"user_account": self.program.user_account_address(trader.address), "authority": trader.address}
        await self.land(self.program.instruction("deposit_collateral", {"amount": amount_1e6}, accounts), signer=trader)

    async def keeper(self, folder: Path, **sections: dict[str, Any]) -> KeeperConfig:
        """A funded keeper's files. Its settings are the defaults, but for the places."""
        key = Keypair()
        await self.fund(key.pubkey(), _KEEPER_LAMPORTS)
        rpc = {"url": self.address.rpc_url, "ws_url": self.address.ws_url}
        return KeeperConfig.at(folder, key, rpc=rpc, program={"id": str(self.program.id)}, **sections)

    # -- what the chain says

    async def order(self, address: Pubkey) -> Order | None:
        """The order as confirmed; None when there is none."""
        slot, [account] = await self._client.accounts([address], commitment=CONFIRMED)
        return None if account is None else decode_order(address, account.data, slot)

    async def position(self, order: Pubkey) -> Position | None:
        """The position that the order's fill made; None when there is none."""
        address = Pubkey.find_program_address([b"position", bytes(order)], self.program.id)[0]
        slot, [account] = await self._client.accounts([address], commitment=CONFIRMED)
        return None if account is None else decode_position(address, account.data, slot)

    async def history(self, order: Pubkey) -> Sequence[Entry]:
        """What the ledger says of an order, oldest first."""
        return (await read_ledger(self._client, self.program, (), [order])).by_order[order]
