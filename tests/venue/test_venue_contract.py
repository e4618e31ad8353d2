"""What the rest of the keeper relies on of a venue, for both revisions of the program: accounts become facts, actions
become messages, failures become fates.

Nothing here is computed by the code that it tests: the accounts are recorded or packed by hand, the messages are
read by solders, and the addresses are derived from the seeds that the program documents.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptKind, Fate
from keeper.domain.errors import MalformedAccount, Misconfigured
from keeper.domain.orders import OnchainStatus, Order, OrderType, Side
from keeper.domain.prices import Crank, Price
from keeper.solana.client import AccountBytes, Blockhash
from keeper.solana.transactions import Budget, Signer
from keeper.venue.fates import fate_of
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import Program
from keeper.venue.venue import Venue
from tests.triggers.order_making import key, make_order

COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
SYSTEM = Pubkey.from_string("11111111111111111111111111111111")
KEEPER, USER, MARKET, ORDER = key(1), key(2), key(3), key(4)
BLOCKHASH = Blockhash(str(Hash(bytes(range(32)))), 150, 1)
BUDGET = Budget(123_456, 7_000_000_001)
ORDER_MARK, MARKET_MARK = bytes.fromhex("86addfb94d561c33"), bytes.fromhex("dbbed53700e3c69a")
EXECUTE_MARK, RATCHET_MARK = bytes((41, 108, 144, 244, 28, 207, 141, 254)), bytes((9, 64, 172, 21, 17, 22, 27, 226))
RECORD = json.loads((Path(__file__).parents[1] / "fixtures" / "deployed_program.json").read_text())

Account = tuple[Pubkey, bool, bool]  # of an instruction: its address, whether it signs, whether it is written


@dataclass(frozen=True)
class Revision:
    """One revision of the program, and what a keeper's calls of it take."""

    name: str
    program_id: Pubkey

    @property
    def venue(self) -> Venue:
        return Venue(Program(self.program_id, load_idl(PACKAGED[self.name])), KEEPER)

    @property
    def order_id(self) -> int | None:
        return 2**64 - 2 if self.name == "0.2" else None

    def derived(self, *seeds: bytes) -> Pubkey:
        return Pubkey.find_program_address(list(seeds), self.program_id)[0]

    @property
    def position(self) -> Pubkey | None:
        return self.derived(b"position", bytes(ORDER)) if self.name == "0.2" else None

    @property
    def user_account(self) -> Pubkey | None:
        return self.derived(b"user_account", bytes(USER), b"\0\0") if self.name == "0.2" else None

    @property
    def accounts_of_a_fill(self) -> list[Account]:
        first, executor = [(MARKET, False, True), (ORDER, False, True)], (KEEPER, True, True)
        if self.position is None or self.user_account is None:
            return [*first, executor]
        return [
            *first,
            (self.position, False, True),
            (self.user_account, False, True),
            executor,
            (SYSTEM, False, False),
        ]


OLD = Revision("0.1", Pubkey.from_string(RECORD["program_id"]))
NEW = Revision("0.2", Pubkey.from_string("QuantDeskPerpDex111111111111111111111111111"))
each = pytest.mark.parametrize("revision", [OLD, NEW], ids=lambda revision: revision.name)


def order_bytes(revision: Revision, **changes: Any) -> bytes:
    """An order account as the program lays it out; revision 0.1's ends where the order id would begin."""
    said = {"kind": 4, "side": 1, "status": 0} | changes
    head = ORDER_MARK + bytes(USER) + bytes(MARKET) + bytes((said["kind"], said["side"]))
    numbers = struct.pack("<QQQQ", 2**64 - 1, 7, 95_500_000, 50_000) + bytes((20, said["status"]))
    times = struct.pack("<qqQ", 1_700_000_000, 1_700_000_900, 3) + b"\xfe"
    rest = struct.pack("<QQBQ", 0, 0, 0, 0) + b"\0" + struct.pack("<QQ", 0, 0)
    number = b"" if revision.order_id is None else struct.pack("<Q", revision.order_id)
    return head + numbers + times + rest + number


def market_bytes() -> bytes:
    names = b"".join(struct.pack("<I", len(word)) + word for word in (b"SOL", b"USDC"))
    pool = struct.pack("<QQQqqq", 1, 2, 3, 4, 5, 6) + bytes(USER)
    return MARKET_MARK + names + pool + struct.pack("<BHH?QqB", 20, 500, 300, True, 99_000_001, 1_700_000_123, 254)


def account(revision: Revision, data: bytes, owner: Pubkey | None = None) -> AccountBytes:
    return AccountBytes(ORDER, revision.program_id if owner is None else owner, 2_000_000, data)


def order_of(revision: Revision) -> Order:
    return make_order(address=ORDER, user=USER, market=MARKET, order_id=revision.order_id)


# -- account bytes to facts


@each
def test_an_orders_account_becomes_an_order(revision: Revision) -> None:
    expected = Order(
        ORDER, USER, MARKET, OrderType.TRAILING_STOP, Side.SHORT, 2**64 - 1, 7, 95_500_000, 50_000, 20,
        OnchainStatus.PENDING, 1_700_000_000, 1_700_000_900, 3, revision.order_id, 77,
    )  # fmt: skip
    assert revision.venue.order(account(revision, order_bytes(revision)), 77) == expected


@each
def test_a_list_of_pending_orders_is_asked_for_by_its_mark_and_its_status_byte(revision: Revision) -> None:
    venue = revision.venue
    assert (venue.order_discriminator, venue.market_discriminator) == (ORDER_MARK, MARKET_MARK)
    assert venue.pending_filter == {"memcmp": {"offset": 107, "bytes": "AA==", "encoding": "base64"}}
    filled = order_bytes(revision, status=1)
    assert [place for place, byte in enumerate(order_bytes(revision)) if byte != filled[place]] == [107]


@each
def test_a_markets_account_becomes_a_market_with_its_price(revision: Revision) -> None:
    market = revision.venue.market(account(revision, market_bytes()), 78)
    assert market is not None
    assert (market.address, market.symbol, market.authority) == (ORDER, "SOL/USDC", USER)
    assert (market.last_oracle_price_1e6, market.last_oracle_update_s, market.slot) == (99_000_001, 1_700_000_123, 78)
    assert (market.max_leverage, market.is_active) == (20, True)


@each
def test_what_is_not_there_or_another_programs_is_no_fact(revision: Revision) -> None:
    venue, theirs = revision.venue, account(revision, order_bytes(revision), owner=SYSTEM)
    for read in (venue.order, venue.market, venue.position):
        assert read(None, 1) is None
        assert read(theirs, 1) is None


@each
@pytest.mark.parametrize(
    "broken", [{"kind": 12}, {"side": 2}, {"status": 6}, {"cut": 1}, {"cut": 60}], ids=lambda it: str(it)
)
def test_what_does_not_decode_is_malformed_and_no_fact(revision: Revision, broken: dict[str, int]) -> None:
    data = order_bytes(revision, **{name: value for name, value in broken.items() if name != "cut"})
    if "cut" in broken:
        data = data[: 120 - broken["cut"]]
    with pytest.raises(MalformedAccount, match=str(ORDER)):
        revision.venue.order(account(revision, data), 1)


@each
def test_one_kind_of_account_is_not_taken_for_another(revision: Revision) -> None:
    venue = revision.venue
    with pytest.raises(MalformedAccount):
        venue.order(account(revision, market_bytes() + bytes(100)), 1)
    with pytest.raises(MalformedAccount):
        venue.market(account(revision, order_bytes(revision)), 1)
    with pytest.raises(MalformedAccount):
        venue.position(account(revision, order_bytes(revision) + bytes(400)), 1)


# -- an action to a message


def said(message: bytes) -> list[tuple[Pubkey, bytes, list[Account]]]:
    """What a message has done: each instruction's program, data and accounts."""
    m = Message.from_bytes(message)
    keys, header = m.account_keys, m.header
    signed, read = header.num_required_signatures, len(keys) - header.num_readonly_unsigned_accounts
    written = {*range(signed - header.num_readonly_signed_accounts), *range(signed, read)}
    return [
        (keys[ix.program_id_index], bytes(ix.data), [(keys[i], i < signed, i in written) for i in ix.accounts])
        for ix in m.instructions
    ]


def budget_instructions() -> list[tuple[Pubkey, bytes, list[Account]]]:
    return [(COMPUTE_BUDGET, d, []) for d in (struct.pack("<BI", 2, 123_456), struct.pack("<BQ", 3, 7_000_000_001))]


@each
def test_a_fill_names_its_accounts_in_the_programs_order_after_the_budget(revision: Revision) -> None:
    built = revision.venue.message(AttemptKind.EXECUTE, order_of(revision), BUDGET, BLOCKHASH)
    fill = (revision.program_id, EXECUTE_MARK, revision.accounts_of_a_fill)
    assert said(built.message) == [*budget_instructions(), fill]
    assert built.position == revision.position
    message = Message.from_bytes(built.message)
    assert (message.account_keys[0], message.header.num_required_signatures) == (KEEPER, 1), "the keeper pays"
    assert str(message.recent_blockhash) == BLOCKHASH.value
    assert len(built.message) + 65 <= 1_232, "with its signature it is one packet"


@each
def test_what_a_fill_draws_on_and_makes_is_named_beforehand(revision: Revision) -> None:
    order = order_of(revision)
    assert revision.venue.position_of(order) == revision.position
    assert revision.venue.user_account_of(order) == revision.user_account


def test_a_stop_is_moved_where_the_revision_can_and_named_where_it_can_not() -> None:
    built = NEW.venue.message(AttemptKind.RATCHET, order_of(NEW), BUDGET, BLOCKHASH)
    ratchet = (NEW.program_id, RATCHET_MARK, [(MARKET, False, False), (ORDER, False, True), (KEEPER, True, True)])
    assert said(built.message) == [*budget_instructions(), ratchet]
    assert built.position is None
    with pytest.raises(Misconfigured, match="update_trailing_stop"):
        OLD.venue.message(AttemptKind.RATCHET, order_of(OLD), BUDGET, BLOCKHASH)


# -- a price that is posted first

AUTHORITY, FEED = key(5), key(6)
CRANK = Crank(FEED, Price(MARKET, 94_200_000, 7, 1_700_000_000))


def cranked(revision: Revision, authority: Pubkey = AUTHORITY) -> tuple[Venue, bytes]:
    """A venue with an authority, and its message that posts a price."""
    venue = Venue(Program(revision.program_id, load_idl(PACKAGED[revision.name])), KEEPER, authority)
    built = venue.message(AttemptKind.EXECUTE, order_of(revision), BUDGET, BLOCKHASH, CRANK)
    assert built.position == revision.position
    return venue, built.message


@each
def test_a_post_comes_before_the_fill_and_is_signed_by_the_authority(revision: Revision) -> None:
    """As the deployed program took it: the recorded calls have the same eight bytes and accounts in the same order."""
    _, message = cranked(revision)
    recorded = next(row for row in RECORD["transactions"] if row["name"].startswith("update_oracle_price"))
    mark = base64.b64decode(recorded["instruction_data_base64"][0])[:8]
    roles = [(account["signer"], account["writable"]) for account in recorded["accounts"][0]]
    accounts = [(MARKET, False, True), (FEED, False, False), (AUTHORITY, True, False)]
    assert [(signs, written) for _, signs, written in accounts] == roles
    post = (revision.program_id, mark + struct.pack("<Q", 94_200_000), accounts)
    # In one message an account that is written once counts as written in each of its instructions.
    fill = (revision.program_id, EXECUTE_MARK, revision.accounts_of_a_fill)
    assert said(message) == [*budget_instructions(), post, fill]
    m = Message.from_bytes(message)
    assert (m.header.num_required_signatures, list(m.account_keys[:2])) == (2, [KEEPER, AUTHORITY])
    assert len(message) + 129 <= 1_232, "with its signatures it is one packet"


@each
def test_both_keys_sign_or_one_where_they_are_the_same(revision: Revision) -> None:
    keeper, authority = Keypair(), Keypair()
    for poster, signatures in ((authority, 2), (keeper, 1)):
        program = Program(revision.program_id, load_idl(PACKAGED[revision.name]))
        venue = Venue(program, keeper.pubkey(), poster.pubkey())
        built = venue.message(AttemptKind.EXECUTE, order_of(revision), BUDGET, BLOCKHASH, CRANK)
        signed = Signer(keeper).sign_with(Signer(poster), built.message, BLOCKHASH)
        transaction = VersionedTransaction.from_bytes(signed.wire)
        assert transaction.verify_with_results() == [True] * signatures
        assert (signed.wire[0], transaction.signatures[0]) == (signatures, signed.signature)


@each
@pytest.mark.parametrize(
    ("err", "name", "fate"),
    [
        ({"InstructionError": [2, {"Custom": 2001}]}, "ConstraintHasOne", Fate.CRANK_REFUSED),
        ({"InstructionError": [2, {"Custom": 6007}]}, "InvalidPrice", Fate.CRANK_REFUSED),
        ({"InstructionError": [2, {"Custom": 6010}]}, "OrderNotPending", Fate.CRANK_REFUSED),
        ({"InstructionError": [2, "ComputationalBudgetExceeded"]}, "ComputationalBudgetExceeded", Fate.TRANSIENT),
        ({"InstructionError": [3, {"Custom": 2001}]}, "ConstraintHasOne", Fate.MISCONFIGURED),
        ({"InstructionError": [3, {"Custom": 6010}]}, "OrderNotPending", Fate.LOST_RACE),
        ({"InstructionError": [3, {"Custom": 6002}]}, "InsufficientCollateral", Fate.CANNOT_PAY),
        ({"InstructionError": [9, {"Custom": 6002}]}, "Custom6002", Fate.REFUSED),
        ("BlockhashNotFound", "BlockhashNotFound", Fate.TRANSIENT),
    ],
)
def test_what_the_post_fails_by_says_nothing_of_the_order(
    revision: Revision, err: object, name: str, fate: Fate
) -> None:
    venue, message = cranked(revision)
    failure = venue.failure(err, b"\x02" + 2 * bytes(Signature.default()) + message)
    assert (failure.name, failure.fate) == (name, fate)
    # The same place in a transaction without a post is the fill's.
    alone = venue.message(AttemptKind.EXECUTE, order_of(revision), BUDGET, BLOCKHASH).message
    wire = b"\x01" + bytes(Signature.default()) + alone
    found = venue.failure({"InstructionError": [2, {"Custom": 2001}]}, wire)
    assert found.fate is Fate.MISCONFIGURED


# -- a failure to its fate


def test_the_programs_own_log_goes_before_a_table_that_is_another_builds() -> None:
    """Each failure that was recorded of the deployed program, with an IDL whose errors are all one further."""
    idl = load_idl(PACKAGED["0.1"])
    off = replace(idl, errors={code + 1: name for code, name in idl.errors.items()})
    venue = Venue(Program(OLD.program_id, off), KEEPER)
    wire = (
        b"\x01"
        + bytes(Signature.default())
        + OLD.venue.message(AttemptKind.EXECUTE, order_of(OLD), BUDGET, BLOCKHASH).message
    )
    named = 0
    for landed in RECORD["transactions"]:
        code = (landed["err"] or {}).get("custom", 0)
        if code >= 6000:
            failure = venue.failure({"InstructionError": [2, {"Custom": code}]}, wire, landed["logs"])
            assert f"Error Code: {failure.name}." in " ".join(landed["logs"])
            assert failure.fate is fate_of(idl.errors[code], OLD.program_id, OLD.program_id)
            named += 1
    assert named > 20
    # What another program logs before it is not believed of this one's number.
    other = ["Program log: Error Code: OrderNotPending. Error Number: 6999.", f"Program {OLD.program_id} failed: x"]
    assert venue.failure({"InstructionError": [2, {"Custom": 6014}]}, wire, other).name == "ConditionNotMet"


@each
@pytest.mark.parametrize(
    ("err", "name", "fate"),
    [
        ({"InstructionError": [2, {"Custom": 6010}]}, "OrderNotPending", Fate.LOST_RACE),
        ({"InstructionError": [2, {"Custom": 6013}]}, "ConditionNotMet", Fate.PRICE_MOVED_BACK),
        ({"InstructionError": [2, {"Custom": 6018}]}, "PriceStale", Fate.PRICE_STALE),
        ({"InstructionError": [2, {"Custom": 6016}]}, "MarketInactive", Fate.MARKET_PAUSED),
        ({"InstructionError": [2, {"Custom": 6022}]}, "OrderExpired", Fate.EXPIRED_ORDER),
        ({"InstructionError": [2, {"Custom": 6002}]}, "InsufficientCollateral", Fate.CANNOT_PAY),
        ({"InstructionError": [2, {"Custom": 6000}]}, "InvalidLeverage", Fate.REFUSED),
        ({"InstructionError": [2, {"Custom": 2006}]}, "ConstraintSeeds", Fate.MISCONFIGURED),
        ({"InstructionError": [2, {"Custom": 6999}]}, "Custom6999", Fate.REFUSED),
        ({"InstructionError": [0, {"Custom": 6010}]}, "Custom6010", Fate.REFUSED),
        ({"InstructionError": [2, "ComputationalBudgetExceeded"]}, "ComputationalBudgetExceeded", Fate.TRANSIENT),
        ("BlockhashNotFound", "BlockhashNotFound", Fate.TRANSIENT),
        ({"InsufficientFundsForRent": {"account_index": 0}}, "InsufficientFundsForRent", Fate.TRANSIENT),
        (None, "UnknownError", Fate.REFUSED),
    ],
)
def test_a_failure_has_a_name_and_a_fate(revision: Revision, err: object, name: str, fate: Fate) -> None:
    built = revision.venue.message(AttemptKind.EXECUTE, order_of(revision), BUDGET, BLOCKHASH)
    failure = revision.venue.failure(err, b"\x01" + bytes(Signature.default()) + built.message)
    assert (failure.name, failure.fate) == (name, fate)
