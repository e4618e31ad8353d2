"""Unsigned transactions: what the wallet gets is exactly the order, for both revisions."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.orders import OrderType, Side
from keeper.solana.transactions import Budget
from keeper.venue.placing import BUDGET, ORDER_ID_BITS, cancel, new_order_id, place, unsigned_base64
from keeper.venue.program import Program
from tests.chain.placing_world import ATOMIC, BLOCKHASH, DEPLOYED, ORDER_ID, USER, terms

COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")


@pytest.fixture(params=[(ATOMIC, ORDER_ID), (DEPLOYED, None)], ids=["0.2", "0.1"])
def revision(request: pytest.FixtureRequest) -> tuple[Program, int | None]:
    found: tuple[Program, int | None] = request.param
    return found


def test_the_user_is_fee_payer_and_only_signer(revision: tuple[Program, int | None]) -> None:
    program, order_id = revision
    unsigned = place(program, terms(program), order_id, BLOCKHASH, BUDGET)
    message = Message.from_bytes(unsigned.message)
    assert message.header.num_required_signatures == 1
    assert message.account_keys[0] == USER.pubkey()
    assert str(message.recent_blockhash) == BLOCKHASH.value
    assert unsigned.last_valid_block_height == BLOCKHASH.last_valid_block_height


def test_the_transaction_has_a_zeroed_signature_before_the_message(revision: tuple[Program, int | None]) -> None:
    program, order_id = revision
    unsigned = place(program, terms(program), order_id, BLOCKHASH, BUDGET)
    wire = base64.b64decode(unsigned_base64(unsigned.message), validate=True)
    assert wire == bytes([1]) + bytes(64) + unsigned.message
    transaction = VersionedTransaction.from_bytes(wire)
    assert transaction.signatures == [Signature.default()]
    assert isinstance(transaction.message, Message)
    assert len(wire) < 1232


def test_the_arguments_are_those_that_were_asked_for(revision: tuple[Program, int | None]) -> None:
    program, order_id = revision
    unsigned = place(program, terms(program), order_id, BLOCKHASH, BUDGET)
    message = Message.from_bytes(unsigned.message)
    ours = [ix for ix in message.instructions if message.account_keys[ix.program_id_index] == program.id]
    assert len(ours) == 1
    name, args = program.coder.decode(bytes(ours[0].data))
    expected = {"order_type": OrderType.STOP_LOSS, "side": Side.LONG, "size": 2_500_000, "stop_price": 95_500_000}
    assert name == "place_order"
    assert {key: args[key] for key in expected} == expected
    assert args.get("order_id") == order_id
    assert args["leverage"] == 5
    unused = ("price", "trailing_distance", "hidden_size", "display_size", "target_price", "twap_duration")
    assert not any(args[key] for key in unused)


def test_the_order_is_the_derived_address(revision: tuple[Program, int | None]) -> None:
    program, order_id = revision
    unsigned = place(program, terms(program), order_id, BLOCKHASH, BUDGET)
    assert unsigned.order == program.order_address(USER.pubkey(), order_id)
    assert unsigned.order in Message.from_bytes(unsigned.message).account_keys


def test_cancel_names_the_order_and_its_user(revision: tuple[Program, int | None]) -> None:
    program, _ = revision
    order = Pubkey.new_unique()
    unsigned = cancel(program, [order], USER.pubkey(), BLOCKHASH, BUDGET)
    message = Message.from_bytes(unsigned.message)
    ours = next(ix for ix in message.instructions if message.account_keys[ix.program_id_index] == program.id)
    assert program.coder.decode(bytes(ours.data)) == ("cancel_order", {})
    assert [message.account_keys[i] for i in bytes(ours.accounts)] == [order, USER.pubkey()]


def test_the_budget_asks_for_units_and_bids_only_when_told_to() -> None:
    def budget_of(budget: Budget) -> list[bytes]:
        message = Message.from_bytes(place(ATOMIC, terms(ATOMIC), 1, BLOCKHASH, budget).message)
        keys = message.account_keys
        return [bytes(ix.data) for ix in message.instructions if keys[ix.program_id_index] == COMPUTE_BUDGET]

    limit = b"\x02" + (50_000).to_bytes(4, "little")
    assert budget_of(Budget(50_000, 0)) == [limit]
    assert budget_of(Budget(50_000, 7)) == [limit, b"\x03" + (7).to_bytes(8, "little")]


def test_drawn_ids_survive_signed_64_bit_integers() -> None:
    drawn = {new_order_id() for _ in range(100)}
    assert len(drawn) == 100
    assert all(0 <= order_id < 2**ORDER_ID_BITS for order_id in drawn)


@given(order_id=st.integers(0, 2**64 - 1))
def test_any_u64_is_an_order_id(order_id: int) -> None:
    unsigned = place(ATOMIC, terms(ATOMIC), order_id, BLOCKHASH, BUDGET)
    assert unsigned.order == ATOMIC.order_address(USER.pubkey(), order_id)


_U64 = st.integers(0, 2**64 - 1)


@given(st.sampled_from(OrderType), st.sampled_from(Side), st.lists(_U64, min_size=8, max_size=8), st.integers(0, 255))
def test_arguments_are_packed_as_anchorpy_reads_them(
    order_type: OrderType, side: Side, numbers: list[int], leverage: int
) -> None:
    """`encode` packs them by itself, `decode` reads them with anchorpy."""
    names = (
        "order_id",
        "size",
        "price",
        "stop_price",
        "trailing_distance",
        "hidden_size",
        "display_size",
        "target_price",
    )
    args = {name: 0 for name, _ in ATOMIC.idl.instruction("place_order").args}
    args |= {**dict(zip(names, numbers, strict=True)), "order_type": order_type, "side": side, "leverage": leverage}
    assert ATOMIC.coder.decode(ATOMIC.coder.encode("place_order", args)) == ("place_order", args)


@pytest.mark.parametrize(
    "wrong",
    [{"size": -1}, {"size": 2**64}, {"side": 2}, {"order_type": -1}, {"leverage": 256}, {"size": "1"}, {"more": 1}],
    ids=str,
)
def test_arguments_that_do_not_fit_are_named(wrong: dict[str, object]) -> None:
    args: dict[str, object] = {name: 0 for name, _ in ATOMIC.idl.instruction("place_order").args}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}|variant|place_order"):
        ATOMIC.coder.encode("place_order", {**args, **wrong})
    with pytest.raises(ValueError, match="needs the argument size"):
        ATOMIC.coder.encode("place_order", {name: value for name, value in args.items() if name != "size"})
