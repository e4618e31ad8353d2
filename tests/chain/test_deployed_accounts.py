"""The deployed program's recorded accounts decode to what they were recorded as, and its errors have names."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from keeper.app.program import load_program
from keeper.config.settings import ProgramSettings
from keeper.domain.errors import MalformedAccount
from keeper.domain.orders import OnchainStatus, OrderType, Side
from keeper.venue.fates import fate_of
from keeper.venue.program import Program
from keeper.venue.program_errors import name_failure
from keeper.venue.venue import decode_market, decode_order, decode_position

RECORD: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures" / "deployed_program.json").read_text())
PROGRAM_ID = Pubkey.from_string(RECORD["program_id"])

TYPE_WORDS = {
    "Market": OrderType.MARKET,
    "Limit": OrderType.LIMIT,
    "StopLoss": OrderType.STOP_LOSS,
    "TakeProfit": OrderType.TAKE_PROFIT,
    "TrailingStop": OrderType.TRAILING_STOP,
    "PostOnly": OrderType.POST_ONLY,
    "IOC": OrderType.IOC,
    "FOK": OrderType.FOK,
    "Iceberg": OrderType.ICEBERG,
    "TWAP": OrderType.TWAP,
    "StopLimit": OrderType.STOP_LIMIT,
    "Bracket": OrderType.BRACKET,
}
STATUS_WORDS = {
    "pending": OnchainStatus.PENDING,
    "filled": OnchainStatus.FILLED,
    "cancelled": OnchainStatus.CANCELLED,
    "expired": OnchainStatus.EXPIRED,
}


@pytest.fixture(scope="module")
def deployed() -> Program:
    return load_program(ProgramSettings(idl="0.1"))


def accounts(kind: str) -> list[Any]:
    return [pytest.param(a, id=a["name"]) for a in RECORD["accounts"] if a["type"] == kind]


def data_of(account: dict[str, Any]) -> tuple[Pubkey, bytes]:
    return Pubkey.from_string(account["address"]), base64.b64decode(account["data_base64"])


def test_the_packaged_idl_is_of_the_recorded_program(deployed: Program) -> None:
    assert deployed.id == PROGRAM_ID
    assert not deployed.creates_position
    assert not deployed.has_order_ids
    assert deployed.executable == {OrderType.STOP_LOSS, OrderType.TAKE_PROFIT, OrderType.STOP_LIMIT}


@pytest.mark.parametrize("account", accounts("Order"))
def test_order(account: dict[str, Any], deployed: Program) -> None:
    address, data = data_of(account)
    order = decode_order(address, data, slot=7)
    _, type_word, side_word, *rest = account["name"].split()
    assert order.order_type is TYPE_WORDS[type_word]
    assert order.side is Side[side_word.upper()]
    assert order.status is STATUS_WORDS[rest[-1]]
    assert order.size_1e6 == 5_000_000
    assert order.leverage == 5
    assert order.order_id is None
    assert order.slot == 7
    assert order.address == deployed.order_address(order.user, None)
    assert order.market == deployed.market_address("SOL", "USDC")
    assert order.filled_size_1e6 == (order.size_1e6 if order.status is OnchainStatus.FILLED else 0)
    assert (order.expires_at != 0) == (rest[0] == "expiring" or rest[-1] == "expired")


@pytest.mark.parametrize("account", accounts("Market"))
def test_market(account: dict[str, Any], deployed: Program) -> None:
    address, data = data_of(account)
    market = decode_market(address, data, slot=3)
    _, symbol, *words = account["name"].split()
    assert market.symbol == symbol
    assert market.is_active
    assert market.max_leverage == 20
    assert market.address == deployed.market_address(market.base_asset, market.quote_asset)
    price = 0 if words[0] == "never" else int(words[-1]) * 1_000_000
    assert market.last_oracle_price_1e6 == price
    assert (market.last_oracle_update_s > 0) == (price > 0)


@pytest.mark.parametrize("account", accounts("Position"))
def test_position(account: dict[str, Any]) -> None:
    address, data = data_of(account)
    position = decode_position(address, data, slot=1)
    assert position.side is Side.SHORT
    assert position.size_1e6 == 5_000_000
    assert position.entry_price_1e6 == 111_000_000
    assert position.leverage == 5


@pytest.mark.parametrize("account", [*accounts("UserAccount"), *accounts("Market"), *accounts("Position")])
def test_what_is_no_order_is_malformed(account: dict[str, Any]) -> None:
    with pytest.raises(MalformedAccount, match="is not an Order"):
        decode_order(*data_of(account), slot=0)


@pytest.mark.parametrize("length", [0, 7, 8, 100, 158])
def test_a_cut_order_is_malformed(length: int) -> None:
    address, data = data_of(accounts("Order")[0].values[0])
    with pytest.raises(MalformedAccount):
        decode_order(address, data[:length], slot=0)


@pytest.mark.parametrize(("offset", "value"), [(72, 12), (73, 2), (107, 6), (158, 2)])
def test_an_order_with_an_unknown_word_is_malformed(offset: int, value: int) -> None:
    address, data = data_of(accounts("Order")[0].values[0])
    broken = bytearray(data)
    broken[offset] = value
    with pytest.raises(MalformedAccount):
        decode_order(address, bytes(broken), slot=0)


@pytest.mark.parametrize("length", [8, 12, 20, 60, 120])
def test_a_cut_market_is_malformed(length: int) -> None:
    address, data = data_of(accounts("Market")[0].values[0])
    with pytest.raises(MalformedAccount):
        decode_market(address, data[:length], slot=0)


FAILED = [pytest.param(t, id=t["name"]) for t in RECORD["transactions"] if not t["ok"]]


@pytest.mark.parametrize("transaction", FAILED)
def test_every_recorded_error_is_named(transaction: dict[str, Any], deployed: Program) -> None:
    recorded = transaction["err"]
    if "raw" in recorded:
        err: object = {"InstructionError": [0, "ProgramFailedToComplete"]}
        logged = "ProgramFailedToComplete"
    else:
        err = {"InstructionError": [recorded["instruction"], {"Custom": recorded["custom"]}]}
        logged = next(
            (line.split("Error Code: ")[1].split(".")[0] for line in transaction["logs"] if "Error Code: " in line),
            "AccountAlreadyInUse",
        )
    failure = name_failure(err, [PROGRAM_ID], PROGRAM_ID, deployed.idl, transaction["logs"])
    # What the program logged is the oracle: the name must not come from the number alone.
    assert failure.name == logged
    assert fate_of(failure.name, failure.program, PROGRAM_ID)


def test_two_programs_with_one_number_are_told_apart(deployed: Program) -> None:
    other = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
    err = {"InstructionError": [1, {"Custom": 6013}]}
    ours = name_failure(err, [other, PROGRAM_ID], PROGRAM_ID, deployed.idl)
    theirs = name_failure(err, [PROGRAM_ID, other], PROGRAM_ID, deployed.idl)
    assert (ours.name, ours.program) == ("ConditionNotMet", PROGRAM_ID)
    assert (theirs.name, theirs.program) == ("Custom6013", other)


@pytest.mark.parametrize(
    "transaction", [t for t in RECORD["transactions"] if "place_order" in t["name"] and t["ok"]][:8]
)
def test_recorded_arguments_decode_and_encode_back(transaction: dict[str, Any], deployed: Program) -> None:
    data = base64.b64decode(transaction["instruction_data_base64"][0])
    name, args = deployed.coder.decode(data)
    assert name == "place_order"
    assert args["size"] == 5_000_000
    assert deployed.coder.encode(name, args) == data
