"""What other settings, or another keeper, would have triggered, when, at what price and with what delay."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey
from typer.testing import CliRunner

from keeper.app.limits import decision_rules
from keeper.app.program import load_program
from keeper.cli import cli
from keeper.config.loading import load_settings
from keeper.domain.events import ChainTime, Event, OrderSeen
from keeper.domain.orders import OnchainStatus, OrderFields
from keeper.recording.blocks import HEAD, blocks
from keeper.recording.recorder import begin_entry
from keeper.recording.replay import Replay
from keeper.recording.tape import Heard, Tape, TapedDecision
from keeper.recording.trial import Trial
from keeper.triggers.decision import Rules
from tests.triggers.desk import Desk
from tests.triggers.order_making import SOL, make_order, market_seen

SETTINGS = load_settings(None)
PROGRAM = load_program(SETTINGS.program)
RULES = replace(decision_rules(SETTINGS, PROGRAM), breaker=None)
NOON_NS = 1_795_780_800 * 10**9


class Told:
    """An intake into a desk, which the tests tell by the second."""

    def __init__(self, rules: Rules = RULES, later_s: float = 0.0) -> None:
        self.tape = Tape()
        self._later_s = later_s
        self.decision = TapedDecision(rules, self.tape)
        begin = begin_entry(rules, PROGRAM.id, NOON_NS, "start")
        self.tape.begin((begin[0], 0, *begin[2:]))  # so that the recording's first moment is noon
        self.desk = Desk(rules, self.decision)
        self.heard = Heard(self.tape, "rpc", self)
        self._slot = 10

    def on_event(self, event: Event) -> None:
        assert isinstance(event, OrderSeen)
        self.desk.on_order(event, 1_000.0, 1)

    def unchanged(self, address: Pubkey, fields: OrderFields, slot: int) -> bool:
        return False

    def begin_load(self) -> None:
        return None

    async def end_load(self, load: Any) -> None:
        """Nothing is loaded."""

    def not_seen_since(self, slot: int, cursor: int) -> tuple[list[Pubkey], int | None]:
        return [], None

    def price(self, at_s: float, price: int, *, age_s: int = 0) -> None:
        """A price that was `age_s` old by the chain's clock, which began at 1,000."""
        self._slot += 1
        now_s, at_ns = 1_000 + at_s, round((at_s + self._later_s) * 1e9)
        seen = market_seen(price * 1_000_000, self._slot, updated_at_s=int(now_s) - age_s, received_at_ns=at_ns)
        self.desk.on_market(seen, now_s)

    def order(self, number: int, stop: int, status: OnchainStatus = OnchainStatus.PENDING, **fields: Any) -> None:
        self._slot += 1
        order = make_order(number, slot=self._slot, stop_price_1e6=stop * 1_000_000, status=status, **fields)
        self.heard.on_event(OrderSeen(order))

    def file(self, path: Path) -> Path:
        path.write_bytes(HEAD + b"".join(blocks(self.tape.take())))
        return path


def compared(*given: object) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["replay", "--json", *map(str, given)])
    assert result.exit_code == 0, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    found["orders"] = {row["order"]: row for row in found["orders"]}
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        return path

    return write


def test_fresher_prices_alone_trigger_later_at_another_price(tmp_path: Path, settings: Callable[[str], Path]) -> None:
    told = Told()
    for number in (1, 2, 3, 4):
        told.order(number, 90)
    told.order(5, 50)
    told.price(10, 85, age_s=30)  # triggers 1 to 4 as recorded
    told.order(1, 90, OnchainStatus.FILLED)
    told.order(2, 90, OnchainStatus.CANCELLED)
    told.price(16, 84, age_s=2)
    told.price(20, 95)
    file = told.file(tmp_path / "a.rec")
    strict = settings("[trigger]\nmax_price_age_s = 10\n")
    found = compared(file, "--config", strict)
    assert (found["same"], found["other_price"], found["only_a"], found["only_b"]) == (0, 3, 1, 0)
    filled, cancelled = (found["orders"][str(make_order(n).address)] for n in (1, 2))
    assert filled["a"] == {"at": "2026-11-27T12:00:10.000000Z", "price": "85", "slot": 16}
    assert (filled["b"]["at"], filled["b"]["price"]) == ("2026-11-27T12:00:16.000000Z", "84")
    assert filled["delay_s"] == 6.0
    assert (cancelled["b"], cancelled["delay_s"]) == (None, None)

    default = settings("")
    both = compared(file, "--config", default, "--config", strict)
    assert both["orders"] == found["orders"]
    text = CliRunner().invoke(cli, ["replay", str(file), "--config", str(strict)]).stdout
    assert "0 orders triggered alike, 3 at another price, 1 by" in text
    assert "12:00:16.000000" in text


def test_two_keepers_of_one_day_are_compared(tmp_path: Path) -> None:
    first, second = Told(), Told(later_s=0.25)
    for told in (first, second):
        told.order(1, 90)
        told.order(2, 80)
        told.price(1, 85)
    second.price(2, 79)
    found = compared(first.file(tmp_path / "a.rec"), second.file(tmp_path / "b.rec"))
    assert (found["same"], found["only_a"], found["only_b"]) == (1, 0, 1)
    assert found["orders"][str(make_order(1).address)]["delay_s"] == 0.25


def test_what_expires_and_what_is_cancelled_before_it_is_met_is_never_triggered() -> None:
    told = Told()
    told.order(1, 90, expires_at=1_005)
    told.order(2, 90)
    told.order(2, 90, OnchainStatus.CANCELLED)
    told.order(3, 90)
    told.desk.on_time(ChainTime(20, 1_006))
    told.price(10, 85)
    entries = told.tape.take()
    trial = Trial(replace(RULES, max_price_age_s=30.0))
    trial.play(entries)
    assert trial.triggers.keys() == {bytes(make_order(3).address)}
    again = Replay()
    again.play([[*entry] for entry in entries])
    assert again.told.triggers == trial.told.triggers == trial.triggers
    assert again.told.symbols == {bytes(SOL): "SOL/USDC"}
