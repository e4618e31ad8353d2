"""Each relay check refuses a transaction that is right in everything else, and no mutation gets past them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import request_heap_frame, set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, CompiledInstruction, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageHeader, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from keeper.domain.errors import ChainError
from keeper.solana.transactions import Budget
from keeper.venue.placing import BUDGET, cancel, place
from keeper.venue.relay_checks import LIGHTHOUSE, MAX_WIRE_BYTES, RelayLimits, RelayRefused, check_relayed
from tests.chain.placing_world import ATOMIC, BLOCKHASH, DEPLOYED, KEEPER, ORDER_ID, USER, terms

PREPARED = place(ATOMIC, terms(ATOMIC), ORDER_ID, BLOCKHASH, BUDGET)
HASH = Hash.from_string(BLOCKHASH.value)
SYSTEM = Pubkey.default()


def instructions_of(message: bytes) -> list[Instruction]:
    """The prepared message's instructions, taken apart, so that a test changes one thing of them."""
    parsed = Message.from_bytes(message)
    keys = parsed.account_keys
    header = parsed.header
    writable_others = len(keys) - header.num_readonly_unsigned_accounts

    def meta(i: int) -> AccountMeta:
        return AccountMeta(keys[i], i < 1, i < 1 or i < writable_others)

    return [
        Instruction(keys[ix.program_id_index], bytes(ix.data), [meta(i) for i in bytes(ix.accounts)])
        for ix in parsed.instructions
    ]


LIMIT_IX, OURS = instructions_of(PREPARED.message)


def signed(message: Message | MessageV0, *signers: Keypair) -> bytes:
    return bytes(VersionedTransaction(message, list(signers or [USER])))


def legacy(*instructions: Instruction, payer: Keypair = USER, blockhash: Hash = HASH) -> Message:
    return Message.new_with_blockhash(list(instructions), payer.pubkey(), blockhash)


def v0(*instructions: Instruction, tables: Sequence[AddressLookupTableAccount] = ()) -> MessageV0:
    return MessageV0.try_compile(USER.pubkey(), list(instructions), list(tables), HASH)


def check(wire: bytes, **changes: Any) -> Signature:
    arguments: dict[str, Any] = {
        "prepared": PREPARED.message,
        "user": USER.pubkey(),
        "program_id": ATOMIC.id,
        "keeper": KEEPER.pubkey(),
        "limits": RelayLimits(),
        **changes,
    }
    return check_relayed(wire, **arguments)


def assertion(*, kind: int = 2, account: AccountMeta | None = None) -> Instruction:
    read = account or AccountMeta(Pubkey.new_unique(), False, False)
    return Instruction(LIGHTHOUSE, bytes([kind, 0, 1, 2, 3]), [read])


def changed(*, data: bytes | None = None, accounts: Sequence[AccountMeta] | None = None) -> Instruction:
    return Instruction(
        OURS.program_id, OURS.data if data is None else data, OURS.accounts if accounts is None else list(accounts)
    )


# --- what passes


@pytest.mark.parametrize(
    "message",
    [
        Message.from_bytes(PREPARED.message),
        legacy(OURS),
        v0(LIMIT_IX, OURS),
        legacy(set_compute_unit_price(1_000), set_compute_unit_limit(90_000), OURS),
        legacy(assertion(), LIMIT_IX, assertion(), OURS, assertion(), assertion(kind=17)),
        # Guards are often about accounts that the order touches anyway; that makes nothing more writable.
        legacy(LIMIT_IX, OURS, assertion(account=AccountMeta(USER.pubkey(), False, False))),
    ],
    ids=["as prepared", "no budget", "v0", "another fee", "four assertions", "assertion on the payer"],
)
def test_what_a_wallet_may_change(message: Message | MessageV0) -> None:
    wire = signed(message)
    assert check(wire) == VersionedTransaction.from_bytes(wire).signatures[0]


def test_a_cancel_and_the_other_revision() -> None:
    for program in (ATOMIC, DEPLOYED):
        prepared = cancel(program, [Pubkey.new_unique()], USER.pubkey(), BLOCKHASH, Budget(60_000, 5))
        check(signed(Message.from_bytes(prepared.message)), prepared=prepared.message, program_id=program.id)


# --- what does not: each is right but for one thing


@dataclass(frozen=True)
class Bad:
    """A transaction that fails the check `code`, and no check that comes before it."""

    code: str
    wire: Callable[[], bytes]


def _unsanitary() -> bytes:
    parsed = Message.from_bytes(PREPARED.message)
    beyond = [CompiledInstruction(200, bytes(ix.data), bytes(ix.accounts)) for ix in parsed.instructions]
    message = Message.new_with_compiled_instructions(1, 0, 3, parsed.account_keys, HASH, beyond)
    return _signed_by_hand(bytes(message))


def _signed_by_hand(message: bytes, key: Keypair = USER) -> bytes:
    return bytes([1]) + bytes(key.sign_message(message)) + message


def _duplicate() -> bytes:
    parsed = Message.from_bytes(PREPARED.message)
    keys = [*parsed.account_keys, parsed.account_keys[-1]]
    message = Message.new_with_compiled_instructions(
        1, 0, parsed.header.num_readonly_unsigned_accounts + 1, keys, HASH, parsed.instructions
    )
    return _signed_by_hand(bytes(message))


def _lookup() -> bytes:
    readable = AccountMeta(Pubkey.new_unique(), False, False)
    table = AddressLookupTableAccount(Pubkey.new_unique(), [readable.pubkey])
    message = v0(LIMIT_IX, OURS, assertion(account=readable), tables=[table])
    assert message.address_table_lookups
    return signed(message)


def _two_signers() -> bytes:
    other = Keypair()
    return signed(legacy(LIMIT_IX, OURS, assertion(account=AccountMeta(other.pubkey(), True, False))), USER, other)


def _other_payer() -> bytes:
    other = Keypair()
    return signed(legacy(LIMIT_IX, _with_user(other.pubkey()), payer=other), other)


def _with_user(user: Pubkey) -> Instruction:
    accounts = [AccountMeta(user, True, True) if m.pubkey == USER.pubkey() else m for m in OURS.accounts]
    return changed(accounts=accounts)


def _swapped(index: int, meta: AccountMeta) -> bytes:
    accounts = list(OURS.accounts)
    accounts[index] = meta
    return signed(legacy(LIMIT_IX, changed(accounts=accounts)))


def _nonce_advance() -> Instruction:
    accounts = [AccountMeta(Pubkey.new_unique(), False, False), AccountMeta(USER.pubkey(), True, False)]
    return Instruction(SYSTEM, b"\x04\0\0\0", accounts)


MARKET, ORDER, _, SYSTEM_META = OURS.accounts
RIGHT = signed(legacy(LIMIT_IX, OURS))

BAD = [
    Bad("too_large", lambda: RIGHT + bytes(MAX_WIRE_BYTES + 1 - len(RIGHT))),
    Bad("undecodable", lambda: b""),
    Bad("undecodable", lambda: RIGHT[:-1]),
    Bad("undecodable", lambda: b"\xff" * 200),
    Bad("not_canonical", lambda: RIGHT + b"\0"),
    Bad("lookup_table", _lookup),
    Bad("unsanitary", _unsanitary),
    Bad("duplicate_account", _duplicate),
    Bad("signers", _two_signers),
    Bad("fee_payer", _other_payer),
    Bad("not_signed", lambda: bytes([1]) + bytes(64) + RIGHT[65:]),
    Bad("bad_signature", lambda: bytes([1]) + bytes(Keypair().sign_message(RIGHT[65:])) + RIGHT[65:]),
    Bad("bad_signature", lambda: RIGHT[:10] + bytes([RIGHT[10] ^ 1]) + RIGHT[11:]),
    Bad(
        "keeper_account",
        lambda: signed(legacy(LIMIT_IX, OURS, assertion(account=AccountMeta(KEEPER.pubkey(), False, False)))),
    ),
    Bad("durable_nonce", lambda: signed(legacy(_nonce_advance(), LIMIT_IX, OURS))),
    Bad("durable_nonce", lambda: signed(legacy(LIMIT_IX, OURS, _nonce_advance()))),
    Bad("blockhash_changed", lambda: signed(legacy(LIMIT_IX, OURS, blockhash=Hash.new_unique()))),
    Bad(
        "foreign_instruction",
        lambda: signed(
            legacy(
                LIMIT_IX,
                OURS,
                transfer(TransferParams(from_pubkey=USER.pubkey(), to_pubkey=MARKET.pubkey, lamports=1)),
            )
        ),
    ),
    Bad("foreign_instruction", lambda: signed(legacy(LIMIT_IX, OURS, Instruction(Pubkey.new_unique(), b"hi", [])))),
    Bad("instruction_count", lambda: signed(legacy(LIMIT_IX))),
    Bad("instruction_count", lambda: signed(legacy(LIMIT_IX, OURS, OURS))),
    Bad(
        "other_instruction",
        lambda: signed(
            legacy(
                LIMIT_IX,
                changed(data=ATOMIC.idl.instruction("cancel_order").discriminator + OURS.data[8:]),
            )
        ),
    ),
    Bad("other_instruction", lambda: signed(legacy(LIMIT_IX, changed(data=b"")))),
    Bad("arguments_changed", lambda: signed(legacy(LIMIT_IX, changed(data=OURS.data + b"\0")))),
    Bad("arguments_changed", lambda: signed(legacy(LIMIT_IX, changed(data=OURS.data[:-1])))),
    Bad("arguments_changed", lambda: signed(legacy(LIMIT_IX, changed(data=OURS.data[:18] + b"\1" + OURS.data[19:])))),
    Bad("accounts_changed", lambda: _swapped(0, AccountMeta(Pubkey.new_unique(), False, True))),
    Bad("accounts_changed", lambda: _swapped(1, AccountMeta(Pubkey.new_unique(), False, True))),
    Bad("accounts_changed", lambda: signed(legacy(LIMIT_IX, changed(accounts=OURS.accounts[:3])))),
    Bad("accounts_changed", lambda: signed(legacy(LIMIT_IX, changed(accounts=[*OURS.accounts, MARKET])))),
    Bad("accounts_changed", lambda: signed(legacy(LIMIT_IX, changed(accounts=[ORDER, MARKET, *OURS.accounts[2:]])))),
    Bad("flags_changed", lambda: _swapped(1, AccountMeta(ORDER.pubkey, False, False))),
    Bad("flags_changed", lambda: _swapped(3, AccountMeta(SYSTEM_META.pubkey, False, True))),
    Bad("compute_budget", lambda: signed(legacy(LIMIT_IX, LIMIT_IX, OURS))),
    Bad("compute_budget", lambda: signed(legacy(request_heap_frame(65_536), OURS))),
    Bad("compute_budget", lambda: signed(legacy(Instruction(LIMIT_IX.program_id, LIMIT_IX.data + b"\0", []), OURS))),
    Bad("compute_budget", lambda: signed(legacy(Instruction(LIMIT_IX.program_id, b"", []), OURS))),
    Bad("compute_budget", lambda: signed(legacy(Instruction(LIMIT_IX.program_id, LIMIT_IX.data, [MARKET]), OURS))),
    Bad("unit_limit", lambda: signed(legacy(set_compute_unit_limit(1_400_001), OURS))),
    Bad(
        "priority_fee", lambda: signed(legacy(set_compute_unit_limit(100_000), set_compute_unit_price(10**8 + 1), OURS))
    ),
    # Without a limit the runtime grants 200,000 units an instruction, and the user pays for all of them.
    Bad("priority_fee", lambda: signed(legacy(set_compute_unit_price(50_000_001), OURS))),
    Bad("priority_fee", lambda: signed(legacy(set_compute_unit_price(2**64 - 1), OURS))),
    Bad("assertion_count", lambda: signed(legacy(OURS, *[assertion() for _ in range(5)]))),
    Bad("not_an_assertion", lambda: signed(legacy(LIMIT_IX, OURS, assertion(kind=0)))),
    Bad("not_an_assertion", lambda: signed(legacy(LIMIT_IX, OURS, assertion(kind=1)))),
    Bad("not_an_assertion", lambda: signed(legacy(LIMIT_IX, OURS, Instruction(LIGHTHOUSE, b"", [])))),
    Bad(
        "writable_account",
        lambda: signed(legacy(LIMIT_IX, OURS, assertion(account=AccountMeta(Pubkey.new_unique(), False, True)))),
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.code}-{i}" for i, bad in enumerate(BAD)])
def test_each_check_refuses(bad: Bad) -> None:
    with pytest.raises(RelayRefused) as refused:
        check(bad.wire())
    assert refused.value.code == bad.code
    assert str(refused.value).endswith(".")
    assert isinstance(refused.value, ChainError)


def test_the_limits_are_settings() -> None:
    wire = signed(legacy(set_compute_unit_price(1), set_compute_unit_limit(1_000), OURS, assertion()))
    check(wire, limits=RelayLimits(priority_fee_lamports=1, unit_limit=1_000, assertions=1))
    for limits, code in (
        (replace(RelayLimits(), priority_fee_lamports=0), "priority_fee"),
        (replace(RelayLimits(), unit_limit=999), "unit_limit"),
        (replace(RelayLimits(), assertions=0), "assertion_count"),
    ):
        with pytest.raises(RelayRefused) as refused:
            check(wire, limits=limits)
        assert refused.value.code == code


def test_without_a_keeper_key_nothing_is_the_keepers() -> None:
    check(signed(legacy(OURS, assertion(account=AccountMeta(KEEPER.pubkey(), False, False)))), keeper=None)


# --- mutations


def _accepts_only_the_prepared(wire: bytes) -> None:
    """Whatever passes carries the prepared instruction with its accounts, signed by the user."""
    try:
        signature = check(wire)
    except RelayRefused:
        return
    transaction = VersionedTransaction.from_bytes(wire)
    message = transaction.message
    assert bytes(transaction) == wire
    assert signature.verify(USER.pubkey(), to_bytes_versioned(message))
    ours = [ix for ix in message.instructions if message.account_keys[ix.program_id_index] == ATOMIC.id]
    assert [bytes(ix.data) for ix in ours] == [OURS.data]
    assert [message.account_keys[i] for i in bytes(ours[0].accounts)] == [meta.pubkey for meta in OURS.accounts]


@settings(max_examples=600)
@given(position=st.integers(0, len(RIGHT) - 1), value=st.integers(1, 255), resign=st.booleans())
def test_no_changed_byte_gets_past(position: int, value: int, resign: bool) -> None:
    """Also when the user's own key signs the changed message: a wallet may be wrong, or not the user's friend."""
    wire = bytearray(RIGHT)
    wire[position] ^= value
    body = bytes(wire[65:])
    mutated = _signed_by_hand(body) if resign and position >= 65 else bytes(wire)
    _accepts_only_the_prepared(mutated)
    if not resign:
        with pytest.raises(RelayRefused):
            check(mutated)


@settings(max_examples=300)
@given(st.binary(max_size=1_300))
def test_noise_is_refused_by_name(noise: bytes) -> None:
    for wire in (noise, RIGHT[:65] + noise, _signed_by_hand(noise)):
        assume(wire != RIGHT)
        with pytest.raises(RelayRefused):
            check(wire)


_META = st.builds(
    AccountMeta,
    st.sampled_from([m.pubkey for m in OURS.accounts] + [KEEPER.pubkey(), Pubkey.new_unique()]),
    st.just(False),
    st.booleans(),
)
_INSTRUCTION = st.builds(
    Instruction,
    st.sampled_from([ATOMIC.id, LIGHTHOUSE, SYSTEM, LIMIT_IX.program_id]),
    st.one_of(st.just(OURS.data), st.binary(max_size=20), st.just(LIMIT_IX.data)),
    st.one_of(st.just(OURS.accounts), st.lists(_META, max_size=5)),
)


@settings(max_examples=300)
@given(st.lists(st.one_of(st.just(OURS), _INSTRUCTION), max_size=6))
def test_no_other_composition_gets_past(instructions: list[Instruction]) -> None:
    wire = signed(legacy(*instructions))
    _accepts_only_the_prepared(wire)


_HEADER = st.builds(MessageHeader, st.integers(0, 3), st.integers(0, 3), st.integers(0, 8))


@settings(max_examples=300)
@given(
    header=_HEADER,
    indices=st.lists(st.integers(0, 255), max_size=6),
    program=st.integers(0, 255),
    version=st.sampled_from([b"", b"\x80", b"\x81", b"\xff"]),
)
def test_no_header_or_index_makes_it_panic(
    header: MessageHeader, indices: list[int], program: int, version: bytes
) -> None:
    """Raw messages, with counts and indices that no honest builder writes: solders panics on some."""
    keys = [bytes(key) for key in Message.from_bytes(PREPARED.message).account_keys]
    counts = [
        header.num_required_signatures,
        header.num_readonly_signed_accounts,
        header.num_readonly_unsigned_accounts,
    ]
    instruction = bytes([program, len(indices), *indices, len(OURS.data)]) + OURS.data
    body = version + bytes(counts) + bytes([len(keys)]) + b"".join(keys) + bytes(HASH) + bytes([1]) + instruction
    body += b"\0" if version else b""
    for wire in (_signed_by_hand(body), b"\0" + body, b"\2" + bytes(128) + body):
        _accepts_only_the_prepared(wire)
