"""The template's messages against those that solders compiles from the program's own instruction."""

from __future__ import annotations

import itertools

import pytest
from solders.hash import Hash
from solders.instruction import AccountMeta
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.app.program import load_program
from keeper.config.settings import ProgramSettings
from keeper.domain.orders import OnchainStatus, Order, OrderType, Side
from keeper.solana.client import Blockhash
from keeper.solana.transactions import Budget, Signer, general_message
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import EXECUTE, PLACE, RATCHET, Program
from keeper.venue.templates import Template
from tests.support.world import PROGRAM

KEY = Keypair()
BLOCKHASH = Blockhash(str(Hash.new_unique()), 150, 1)
BUDGET = Budget(123_456, 7_000_000_001)
OLD = load_program(ProgramSettings(idl="0.1"))
ids = itertools.count(1)


def order(program: Program, **changes: object) -> Order:
    user = Pubkey.new_unique()
    order_id = next(ids) if program.has_order_ids else None
    fields: dict[str, object] = {
        "address": program.order_address(user, order_id),
        "user": user,
        "market": Pubkey.new_unique(),
        "order_type": OrderType.STOP_LOSS,
        "side": Side.LONG,
        "size_1e6": 1,
        "price_1e6": 0,
        "stop_price_1e6": 1,
        "trailing_distance_ppm": 0,
        "leverage": 1,
        "status": OnchainStatus.PENDING,
        "created_at": 0,
        "expires_at": 0,
        "filled_size_1e6": 0,
        "order_id": order_id,
        "slot": 1,
    }
    return Order(**{**fields, **changes})  # type: ignore[arg-type]


def writable(message: Message, i: int) -> bool:
    header, signed = message.header, message.header.num_required_signatures
    if i < signed:
        return i < signed - header.num_readonly_signed_accounts
    return i < len(message.account_keys) - header.num_readonly_unsigned_accounts


def said(message: Message) -> list[tuple[Pubkey, bytes, list[AccountMeta]]]:
    """What a message asks for, whatever the order of its addresses."""
    keys = message.account_keys
    return [
        (
            keys[ix.program_id_index],
            bytes(ix.data),
            [AccountMeta(keys[i], message.is_signer(i), writable(message, i)) for i in ix.accounts],
        )
        for ix in message.instructions
    ]


@pytest.mark.parametrize(
    ("program", "name"), [(PROGRAM, EXECUTE), (PROGRAM, RATCHET), (OLD, EXECUTE)], ids=["0.2", "0.2-ratchet", "0.1"]
)
def test_it_says_what_the_compiled_message_says(program: Program, name: str) -> None:
    signer = Signer(KEY)
    template = Template.of(program, name, signer.address)
    assert template is not None
    for _ in range(20):
        resting = order(program)
        built = template.build(resting, BUDGET, BLOCKHASH)
        assert built is not None
        instruction = (program.execute if name == EXECUTE else program.ratchet)(resting, signer.address)
        reference = Message.from_bytes(general_message(signer.address, BUDGET, BLOCKHASH, instruction))
        message = Message.from_bytes(built.message)
        assert said(message) == said(reference)
        assert message.header == reference.header
        assert message.recent_blockhash == reference.recent_blockhash
        assert set(message.account_keys) == set(reference.account_keys)
        assert len(message.account_keys) == len(reference.account_keys)
        if name == EXECUTE:
            assert built.position == program.position_of(resting, signer.address)


def test_its_signature_is_valid_and_nothing_follows_the_message() -> None:
    signer = Signer(KEY)
    template = Template.of(PROGRAM, EXECUTE, signer.address)
    assert template is not None
    built = template.build(order(PROGRAM), BUDGET, BLOCKHASH)
    assert built is not None
    signed = signer.sign_message(built.message, BLOCKHASH)
    transaction = VersionedTransaction.from_bytes(signed.wire)
    assert bytes(transaction) == signed.wire
    assert transaction.verify_with_results() == [True]
    assert transaction.signatures == [signed.signature]
    transaction.sanitize()


def test_an_address_that_comes_twice_is_left_to_the_general_way() -> None:
    template = Template.of(PROGRAM, EXECUTE, KEY.pubkey())
    assert template is not None
    assert template.build(order(PROGRAM, market=KEY.pubkey()), BUDGET, BLOCKHASH) is None
    assert template.build(order(PROGRAM, market=PROGRAM.id), BUDGET, BLOCKHASH) is None


def test_instructions_with_arguments_have_no_template() -> None:
    assert Template.of(PROGRAM, PLACE, KEY.pubkey()) is None


@pytest.mark.parametrize("revision", PACKAGED)
def test_the_packaged_idls_have_one(revision: str) -> None:
    program = Program(PROGRAM.id, load_idl(PACKAGED[revision]))
    assert Template.of(program, EXECUTE, KEY.pubkey()) is not None
