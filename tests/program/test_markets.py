"""initialize_market and update_oracle_price."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.program.program_vm import START, SYSTEM, USDC, Vm, assert_refused

U64_MAX = 2**64 - 1


def test_a_market_begins_active_and_without_a_price(vm: Vm) -> None:
    outcome = vm.initialize_market("BTC", "USDT", initial_price=65_000 * USDC)
    assert outcome.said == [
        "Instruction: InitializeMarket",
        "Market initialized: BTC/USDT with max leverage 20x",
    ]
    market = vm.market_at("BTC", "USDT")
    fields = vm.read("Market", market)
    assert len(vm.data(market)) == 175
    bump = fields.pop("bump")
    assert Pubkey.create_program_address([b"market", b"BTC", b"USDT", bytes([bump])], vm.program) == market
    assert fields == {
        "base_asset": "BTC",
        "quote_asset": "USDT",
        "base_reserve": 1_000_000,
        "quote_reserve": 65_000 * USDC * 1_000_000,
        "k": 0,
        "funding_rate": 0,
        "last_funding_time": START,
        "funding_interval": 3600,
        "authority": vm.authority.pubkey(),
        "max_leverage": 20,
        "initial_margin_ratio": 500,
        "maintenance_margin_ratio": 300,
        "is_active": True,
        "last_oracle_price": 0,
        "last_oracle_update": 0,
    }


def test_a_market_takes_names_of_a_seeds_length(vm: Vm) -> None:
    base, quote = "B" * 32, "Ü" * 12
    assert vm.initialize_market(base, quote).said[-1] == f"Market initialized: {base}/{quote} with max leverage 20x"
    assert vm.read("Market", vm.market_at(base, quote))["quote_asset"] == quote


def test_names_longer_than_the_account_are_refused(vm: Vm) -> None:
    assert_refused(vm.initialize_market("B" * 32, "Q" * 25), "AccountDidNotSerialize", account="market")
    assert vm.initialize_market("B" * 32, "Q" * 24).error is None


@pytest.mark.parametrize(("base", "quote"), [("B" * 33, "Q"), ("B", "Q" * 33)])
def test_names_longer_than_a_seed_are_refused(vm: Vm, base: str, quote: str) -> None:
    accounts = {"market": vm.market_at(), "authority": vm.authority.pubkey()}
    args = _market_args(base, quote)
    outcome = vm.send(vm.instruction("initialize_market", accounts, args), signers=[vm.authority])
    assert "MaxSeedLengthExceeded" in repr(outcome.error)


@pytest.mark.parametrize(
    "name",
    [
        b"\x80",
        b"\xc1\xbf",  # over-long
        b"\xc3",  # cut off
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",  # a surrogate
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",  # beyond the last character
        b"\xf5\x80\x80\x80",
        b"a\xe2\x82",
        b"\xe2\x82a",
    ],
)
def test_names_that_are_not_utf8_do_not_deserialize(vm: Vm, name: bytes) -> None:
    accounts = {"market": vm.market_at(), "authority": vm.authority.pubkey()}
    instruction = vm.instruction("initialize_market", accounts, _market_args(name, "Q"))
    assert_refused(vm.send(instruction, signers=[vm.authority]), "InstructionDidNotDeserialize")


@pytest.mark.parametrize("name", ["€", "𐍈", "\ud7ff", "\U0010ffff", "ﬁ", "\x7f", "߿", "ࠀ", ""])
def test_names_may_be_any_text(vm: Vm, name: str) -> None:
    assert vm.initialize_market(name, "Q").error is None
    assert vm.read("Market", vm.market_at(name, "Q"))["base_asset"] == name


def _market_args(base: str | bytes, quote: str | bytes) -> dict[str, object]:
    return {
        "base_asset": base,
        "quote_asset": quote,
        "initial_price": 1,
        "max_leverage": 1,
        "initial_margin_ratio": 0,
        "maintenance_margin_ratio": 0,
    }


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"initial_price": 0}, "InvalidPrice"),
        ({"max_leverage": 0}, "InvalidLeverage"),
        ({"initial_price": U64_MAX // 1_000_000 + 1}, "MathOverflow"),
    ],
)
def test_what_initialize_market_refuses(vm: Vm, changes: dict[str, int], error: str) -> None:
    assert_refused(vm.initialize_market("X", "Y", **changes), error)
    assert vm.account(vm.market_at("X", "Y")) is None


def test_a_market_exists_once(vm: Vm) -> None:
    outcome = vm.initialize_market()
    assert outcome.code == 0
    assert any("already in use" in line for line in outcome.logs)


def test_the_authority_sets_the_price_and_its_time(vm: Vm) -> None:
    vm.at(START + 77)
    before = vm.read("Market", vm.market_at())
    outcome = vm.set_price(U64_MAX)
    assert outcome.said == ["Instruction: UpdateOraclePrice", f"Oracle price updated: {U64_MAX} for SOL/USDC"]
    assert vm.read("Market", vm.market_at()) == before | {
        "last_oracle_price": U64_MAX,
        "last_oracle_update": START + 77,
    }


def test_a_price_of_nothing_is_refused(vm: Vm) -> None:
    assert_refused(vm.set_price(0), "InvalidPrice")


def test_nobody_else_sets_the_price(vm: Vm) -> None:
    stranger = vm.fund(Keypair())
    accounts = {"market": vm.market_at(), "price_feed": SYSTEM, "authority": stranger.pubkey()}
    outcome = vm.send(vm.instruction("update_oracle_price", accounts, {"new_price": 1}), signers=[stranger])
    assert_refused(outcome, "ConstraintHasOne", account="market")
    keys = [str(vm.authority.pubkey()), str(stranger.pubkey())]
    assert outcome.said[-4:] == ["Left:", keys[0], "Right:", keys[1]]
