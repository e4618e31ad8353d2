"""An embedded chain with markets, traders and orders on it.

Everything here is done straight in the bank, in the tip block, so that a test says what the chain is and does
not wait for it. The keeper under test sees none of this but through its RPC and its socket.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from solders.compute_budget import set_compute_unit_limit
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.orders import Market, Order, OrderType, Position, Side
from keeper.localnet import Bank, Commitment, Localnet, LocalnetConfig
from keeper.localnet.history import Landed
from keeper.localnet.program import PROGRAM_ID
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Budget
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.placing import OrderTerms, place
from keeper.venue.program import CANCEL, Program
from keeper.venue.venue import decode_market, decode_order, decode_position

USDC: Final = 1_000_000
SOL: Final = 1_000_000_000
PROGRAM: Final = Program(Pubkey.from_string(PROGRAM_ID), load_idl(PACKAGED["0.2"]))
"""The reference program, revision 0.2, at the address that the embedded chain gives it."""


class Refused(Exception):
    """A transaction of the test's own that did not succeed; `err` says how, in the RPC's JSON shape."""

    def __init__(self, err: object) -> None:
        super().__init__(str(err))
        self.err = err


@dataclass(frozen=True, slots=True)
class Trader:
    """A funded wallet. `ids` gives the order ids that it has not used."""

    key: Keypair
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    @property
    def address(self) -> Pubkey:
        """The wallet's address."""
        return self.key.pubkey()


class World:
    """A chain with the reference program, the markets' authority, and what a test adds.

    `net` is the chain; `net.bank` moves and breaks it. Blocks come every `slot_ms`; with 0 the test makes them.
    """

    def __init__(self, net: Localnet) -> None:
        self.net = net
        self.program = PROGRAM
        self.authority = self.wallet()
        self._unique = itertools.count()
        self._symbols = itertools.count(1)

    def __repr__(self) -> str:
        return f"<World {self.net!r}>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, slot_ms: int = 50, confirmed_slots: int = 2, finalized_slots: int = 8, **config: Any
    ) -> AsyncIterator[World]:
        """A running chain on free ports; `config` are further fields of LocalnetConfig."""
        wanted = LocalnetConfig(
            rpc_port=0, slot_ms=slot_ms, confirmed_slots=confirmed_slots, finalized_slots=finalized_slots, **config
        )
        async with Localnet(wanted) as net:
            yield cls(net)

    @property
    def bank(self) -> Bank:
        """The chain's bank."""
        return self.net.bank

    # -- transactions of the test's own

    def land(self, *instructions: Instruction, signer: Keypair) -> Landed:
        """Run them in the tip block, signed by `signer`, who pays. Raises Refused when they do not succeed."""
        # Another unit limit each time: the same wish twice in one slot is two transactions.
        limit = set_compute_unit_limit(300_000 + next(self._unique) % 100_000)
        message = Message.new_with_blockhash([limit, *instructions], signer.pubkey(), self.bank.chain.tip.blockhash)
        landed = self.bank.land(VersionedTransaction(message, [signer]))
        if isinstance(landed, str):
            raise Refused(landed)
        if landed.err is not None:
            raise Refused(landed.err)
        return landed

    def wallet(self, lamports: int = 100 * SOL) -> Keypair:
        """A new wallet with lamports for fees and rent."""
        key = Keypair()
        self.bank.airdrop(key.pubkey(), lamports)
        return key

    # -- markets

    def market(self, symbol: str | None = None, *, price_1e6: int = 100 * USDC) -> Pubkey:
        """A new market, priced; its symbol is made up unless given."""
        base, _, quote = (symbol or f"T{next(self._symbols)}/USDC").partition("/")
        address = self.program.market_address(base, quote)
        arguments = {
            "base_asset": base,
            "quote_asset": quote,
            "initial_price": price_1e6,
            "max_leverage": 20,
            "initial_margin_ratio": 500,
            "maintenance_margin_ratio": 300,
        }
        accounts = {"market": address, "authority": self.authority.pubkey()}
        self.land(self.program.instruction("initialize_market", arguments, accounts), signer=self.authority)
        self.set_price(address, price_1e6)
        return address

    def set_price(self, market: Pubkey, price_1e6: int) -> Landed:
        """The oracle says a price now."""
        accounts = {"market": market, "price_feed": Pubkey.default(), "authority": self.authority.pubkey()}
        instruction = self.program.instruction("update_oracle_price", {"new_price": price_1e6}, accounts)
        return self.land(instruction, signer=self.authority)

    # -- traders and their orders

    def trader(self, *, collateral_1e6: int = 1_000_000 * USDC, account: bool = True) -> Trader:
        """A wallet with a margin account that holds `collateral_1e6`; with `account` False, without one."""
        trader = Trader(self.wallet())
        if account:
            accounts = {"user_account": self.program.user_account_address(trader.address), "authority": trader.address}
            self.land(
                self.program.instruction("create_user_account", {"account_index": 0}, accounts), signer=trader.key
            )
            if collateral_1e6:
                self.deposit(trader, collateral_1e6)
        return trader

    def deposit(self, trader: Trader, amount_1e6: int) -> Landed:
        """Add to a trader's collateral."""
        accounts = {"user_account": self.program.user_account_address(trader.address), "authority": trader.address}
        instruction = self.program.instruction("deposit_collateral", {"amount": amount_1e6}, accounts)
        return self.land(instruction, signer=trader.key)

    def place(
        self,
        trader: Trader,
        market: Pubkey,
        order_type: OrderType = OrderType.STOP_LOSS,
        side: Side = Side.LONG,
        *,
        size_1e6: int = 1_000_000,
        price_1e6: int = 0,
        stop_price_1e6: int = 0,
        trailing_distance_ppm: int = 0,
        leverage: int = 5,
        expires_at: int = 0,
        order_id: int | None = None,
    ) -> Pubkey:
        """Place an order as the trader's wallet does; the order's address, which the trader and `order_id` make.

        `order_id` None: one that the trader has not used. With the id of an order that was closed, the new one is at
        that order's address.
        """
        terms = OrderTerms(
            trader.address,
            market,
            order_type,
            side,
            size_1e6,
            price_1e6,
            stop_price_1e6,
            trailing_distance_ppm,
            leverage,
            expires_at,
        )
        tip = self.bank.chain.tip
        blockhash = Blockhash(str(tip.blockhash), tip.height + 150, tip.slot)
        # Not the default unit limit: two orders in one slot differ by their id, whatever the rest.
        number = next(trader.ids) if order_id is None else order_id
        unsigned = place(self.program, terms, number, blockhash, Budget(100_000, 0))
        landed = self.bank.land(VersionedTransaction(Message.from_bytes(unsigned.message), [trader.key]))
        if isinstance(landed, str) or landed.err is not None:
            raise Refused(landed if isinstance(landed, str) else landed.err)
        return unsigned.order

    def cancel(self, trader: Trader, order: Pubkey) -> Landed:
        """The trader cancels. Raises Refused when it is no longer pending."""
        accounts = {"order": order, "user": trader.address}
        return self.land(self.program.instruction(CANCEL, {}, accounts), signer=trader.key)

    def close(self, trader: Trader, order: Pubkey) -> Landed:
        """The trader takes the rent of an ended order back: its account is gone."""
        accounts = {"order": order, "user": trader.address}
        return self.land(self.program.instruction("close_order", {}, accounts), signer=trader.key)

    def execute(self, order: Pubkey, executor: Keypair) -> Landed:
        """Another keeper executes the order. Raises Refused when the program does not."""
        known = self.order(order)
        assert known is not None, f"there is no order {order}"
        return self.land(self.program.execute(known, executor.pubkey()), signer=executor)

    # -- what the chain says

    def order(self, address: Pubkey, commitment: Commitment = Commitment.PROCESSED) -> Order | None:
        """The order; None when its account does not exist."""
        account = self.bank.account(address, commitment)
        return None if account is None else decode_order(address, bytes(account.data), self._slot(commitment))

    def market_state(self, address: Pubkey, commitment: Commitment = Commitment.PROCESSED) -> Market:
        """The market, with its price."""
        account = self.bank.account(address, commitment)
        assert account is not None, f"there is no market {address}"
        return decode_market(address, bytes(account.data), self._slot(commitment))

    def position(self, order: Pubkey, commitment: Commitment = Commitment.PROCESSED) -> Position | None:
        """The position that the order's fill made; None when there is none."""
        address = self.position_address(order)
        account = self.bank.account(address, commitment)
        return None if account is None else decode_position(address, bytes(account.data), self._slot(commitment))

    def position_address(self, order: Pubkey) -> Pubkey:
        """Where the position is that the order's fill makes."""
        return Pubkey.find_program_address([b"position", bytes(order)], self.program.id)[0]

    def landed(self, signature: Signature) -> Landed | None:
        """A transaction that is in a block; None when there is none of this signature."""
        return self.bank.history.get(signature)

    def history(self, address: Pubkey) -> Sequence[Landed]:
        """What landed and mentions this address."""
        return list(self.bank.history.mentioning(address))

    def is_final(self, slot: int) -> bool:
        """Whether the slot is finalized."""
        return self.bank.chain.commitment_of(slot) is Commitment.FINALIZED

    def now(self) -> int:
        """The chain's clock, in unix seconds."""
        return self.bank.chain.tip.time

    def _slot(self, commitment: Commitment) -> int:
        return self.bank.chain.at(commitment).slot
