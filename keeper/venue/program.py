"""The program that the keeper serves, as its IDL describes it.

Accounts of an instruction are found, in this order: given by name; the IDL's fixed `address`; the IDL's
`pda.seeds`, from other accounts, their fields and the arguments. So revision 0.1's three accounts of
`execute_conditional_order` and 0.2's six are the same code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from keeper.domain.errors import Misconfigured
from keeper.domain.orders import REVISION_0_1, REVISION_0_2, Order, OrderType
from keeper.domain.prices import Crank
from keeper.venue.idl import AccountDef, Idl, InstructionDef, Seed, seed_bytes

if TYPE_CHECKING:
    from keeper.venue.coder import ArgumentCoder

EXECUTE: Final = "execute_conditional_order"
RATCHET: Final = "update_trailing_stop"
PLACE: Final = "place_order"
CANCEL: Final = "cancel_order"
CRANK: Final = "update_oracle_price"

SYSTEM_PROGRAM: Final = Pubkey.from_string("11111111111111111111111111111111")

# Accounts that a legacy IDL does not say the address of, because Anchor's own client knew them by name.
WELL_KNOWN: Final = {"system_program": SYSTEM_PROGRAM}


class Program:
    """A program id with its IDL: builds instructions, derives addresses, names errors, knows its revision.

    `creates_position`: whether `execute_conditional_order` takes a writable position, without which a fill
    has no position behind it (promise 3). `executable`: the order types that the revision executes.
    """

    def __init__(self, program_id: Pubkey, idl: Idl) -> None:
        self.id = program_id
        self.idl = idl
        execute = idl.instruction(EXECUTE)
        position = execute.account("position")
        self.creates_position: bool = position is not None and position.writable
        # 0.2 is known by what it added: many orders a wallet and a ratchet for trailing stops.
        self.has_order_ids: bool = any(name == "order_id" for name, _ in idl.instruction(PLACE).args)
        self.can_ratchet: bool = RATCHET in idl.instructions
        self.executable: frozenset[OrderType] = REVISION_0_2 if self.can_ratchet else REVISION_0_1
        for required in ("market", "order"):
            if execute.account(required) is None:
                raise Misconfigured(
                    f"{EXECUTE} in the IDL takes no account {required}, so the IDL is not this program's.",
                    remedy="Check program.idl.",
                )

    @functools.cached_property
    def coder(self) -> ArgumentCoder:
        """Instructions' arguments, to bytes and back. Made when it is first asked for: its library takes half a second
        to import, which commands that only read need not wait for. A keeper's start asks (`check_idl`).
        """
        from keeper.venue.coder import ArgumentCoder

        return ArgumentCoder(self.idl)

    def __repr__(self) -> str:
        return f"Program({self.idl.name} {self.idl.version} at {self.id})"

    def instruction(
        self,
        name: str,
        args: Mapping[str, object] | None = None,
        accounts: Mapping[str, Pubkey] | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> Instruction:
        """Build an instruction. `accounts` are known addresses by name, `fields` values for seed paths
        (`{"order.user": ...}`). Misconfigured names the account that can't be found.
        """
        definition = self.idl.instruction(name)
        metas = [
            AccountMeta(address, account.signer, account.writable)
            for account, address in self.resolve(definition, args or {}, accounts or {}, fields or {})
        ]
        return Instruction(self.id, self.coder.encode(name, args or {}), metas)

    def resolve(
        self,
        definition: InstructionDef,
        args: Mapping[str, object],
        accounts: Mapping[str, Pubkey],
        fields: Mapping[str, object],
    ) -> list[tuple[AccountDef, Pubkey]]:
        """Every account of the instruction with its address, in order. Seeds may name accounts found later
        in the list, so it goes round until nothing new is found: at most once per account.
        """
        found = dict(accounts)
        types = dict(definition.args)

        def bytes_of(seed: Seed) -> bytes | None:
            if seed.kind == "const":
                return seed.value
            if seed.kind == "arg":
                return seed_bytes(args[seed.path], types[seed.path]) if seed.path in args else None
            if seed.path in found:
                return bytes(found[seed.path])
            if seed.path in fields:
                field = seed.path.partition(".")[2]
                return seed_bytes(fields[seed.path], self.idl.struct_fields.get(seed.of, {}).get(field, "pubkey"))
            return None

        for _ in definition.accounts:
            missing = [account for account in definition.accounts if account.name not in found]
            for account in missing:
                address = account.address
                if address is None and account.seeds is None:
                    address = WELL_KNOWN.get(account.name)
                elif address is None:
                    seeds = [bytes_of(seed) for seed in account.seeds or ()]
                    present = [seed for seed in seeds if seed is not None]
                    if len(present) == len(seeds):
                        address = Pubkey.find_program_address(present, self.id)[0]
                if address is not None:
                    found[account.name] = address
            if not missing:
                break
        for account in definition.accounts:
            if account.name not in found:
                raise Misconfigured(
                    f"The account {account.name} of {definition.name} can't be derived: the IDL gives no address "
                    "and its seeds need something that is not known.",
                    remedy="Check that program.idl belongs to the deployed program.",
                )
        return [(account, found[account.name]) for account in definition.accounts]

    def execute(self, order: Order, executor: Pubkey) -> Instruction:
        """`execute_conditional_order` for this order, on the market that the order itself names: a keeper
        that passes another market would, in revision 0.1, be believed (landing behaviour 7).
        """
        return self._keeper_instruction(EXECUTE, order, executor)

    def ratchet(self, order: Order, executor: Pubkey) -> Instruction:
        """`update_trailing_stop` for this order."""
        return self._keeper_instruction(RATCHET, order, executor)

    def crank(self, market: Pubkey, crank: Crank, authority: Pubkey) -> Instruction:
        """`update_oracle_price` for this market, by its authority. The program does not read the feed's account: it is
        named for whoever asks the chain where a price came from.
        """
        accounts = {"market": market, "price_feed": crank.feed, "authority": authority}
        return self.instruction(CRANK, {"new_price": crank.price.price_1e6}, accounts)

    def _keeper_instruction(self, name: str, order: Order, executor: Pubkey) -> Instruction:
        accounts, fields = self._order_context(name, order, executor)
        return self.instruction(name, {}, accounts, fields)

    def _order_context(self, name: str, order: Order, executor: Pubkey) -> tuple[dict[str, Pubkey], dict[str, object]]:
        signers = {account.name: executor for account in self.idl.instruction(name).accounts if account.signer}
        accounts = {"market": order.market, "order": order.address, **signers}
        return accounts, {
            "order.user": order.user,
            "order.market": order.market,
            "order.order_id": order.order_id,
        }

    def position_of(self, order: Order, executor: Pubkey) -> Pubkey | None:
        """Where the fill's position will be; None when the revision creates none."""
        return self._account_of_execute("position", order, executor) if self.creates_position else None

    def user_account_of(self, order: Order, executor: Pubkey) -> Pubkey | None:
        """The margin account that a fill draws on; None when the revision's fill takes none."""
        return self._account_of_execute("user_account", order, executor)

    def _account_of_execute(self, account_name: str, order: Order, executor: Pubkey) -> Pubkey | None:
        accounts, fields = self._order_context(EXECUTE, order, executor)
        resolved = self.resolve(self.idl.instruction(EXECUTE), {}, accounts, fields)
        return next((address for account, address in resolved if account.name == account_name), None)

    def order_address(self, user: Pubkey, order_id: int | None) -> Pubkey:
        """The order's PDA: `["order", user, order_id]` in 0.2, `["order", user]` in 0.1 (order_id None)."""
        seeds = [b"order", bytes(user)]
        if order_id is not None:
            seeds.append(order_id.to_bytes(8, "little"))
        return Pubkey.find_program_address(seeds, self.id)[0]

    def market_address(self, base_asset: str, quote_asset: str) -> Pubkey:
        """The market's PDA: `["market", base, quote]`."""
        seeds = [b"market", base_asset.encode(), quote_asset.encode()]
        return Pubkey.find_program_address(seeds, self.id)[0]

    def user_account_address(self, authority: Pubkey, account_index: int = 0) -> Pubkey:
        """A wallet's margin account: `["user_account", authority, account_index: u16]`."""
        seeds = [b"user_account", bytes(authority), account_index.to_bytes(2, "little")]
        return Pubkey.find_program_address(seeds, self.id)[0]
