"""The recorded transactions of revision 0.1, run again on revision 0.2 under the same address.

Where the revisions share behaviour, the logs, the errors and the accounts' bytes must be the recorded ones.
Where they differ on purpose, `DIFFERS` says how.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction_metadata import FailedTransactionMetadata

from tests.program.program_vm import IDL, START, SYSTEM, USDC, Vm, custom_code

VECTORS = json.loads((Path(__file__).parents[1] / "fixtures" / "deployed_program.json").read_text())
DEPLOYED = Pubkey.from_string(VECTORS["program_id"])
PLACE, EXECUTE = (bytes(IDL.instructions[n]["discriminator"]) for n in ("place_order", "execute_conditional_order"))
OPEN_POSITION = [t["name"] for t in VECTORS["transactions"] if t["name"].startswith("open_position")]
DIFFERS = {
    # 0.1 does not compare the order's market with the one given, and goes on to the condition.
    "execute_conditional_order with the wrong market": 2001,
    # 0.2 opens positions by fills alone.
    **dict.fromkeys(OPEN_POSITION, 101),
}
# The clock of the recording, from the transaction so named on.
CLOCK = {
    "place_order TakeProfit long expiring": START + 1,
    "execute_conditional_order after its expiry": START + 62,
    "execute_conditional_order on a stale price": START + 401,
}


@dataclass
class Replay:
    """0.2 in the place of 0.1: orders lie elsewhere, executions take more accounts."""

    vm: Vm
    moved: dict[str, Pubkey] = field(default_factory=dict)  # an order's address in 0.1: in 0.2
    written: dict[str, list[bytes]] = field(default_factory=dict)  # what an address ever held

    def order(self, recorded: dict[str, Any], user: str) -> Pubkey:
        address = self.vm.order_at(Pubkey.from_string(user))
        self.moved[recorded["pubkey"]] = address
        return address

    def instruction(self, data: bytes, accounts: list[dict[str, Any]]) -> Instruction:
        metas = [
            AccountMeta(self.moved.get(a["pubkey"], Pubkey.from_string(a["pubkey"])), a["signer"], a["writable"])
            for a in accounts
        ]
        if data[:8] == PLACE:
            order = self.order(accounts[1], accounts[2]["pubkey"])
            metas[1] = AccountMeta(order, is_signer=False, is_writable=True)
            data = PLACE + bytes(8) + data[8:]
        elif data[:8] == EXECUTE:
            order = metas[1].pubkey
            books = self.vm.user_account_at(self.vm.read("Order", order)["user"])
            extra = [AccountMeta(key, False, True) for key in (self.vm.position_at(order), books)]
            metas = [*metas[:2], *extra, metas[2], AccountMeta(SYSTEM, False, False)]
        return Instruction(self.vm.program, data, metas)

    def run(self, recorded: dict[str, Any]) -> tuple[int | None, list[str]]:
        if recorded["name"] in CLOCK:
            self.vm.at(CLOCK[recorded["name"]])
        [data], [accounts] = recorded["instruction_data_base64"], recorded["accounts"]
        instruction = self.instruction(base64.b64decode(data), accounts)
        result = self.vm.send_unsigned(instruction)
        for meta in instruction.accounts:
            account = self.vm.account(meta.pubkey)
            if account is not None and account.owner == self.vm.program:
                self.written.setdefault(str(meta.pubkey), []).append(bytes(account.data))
        if isinstance(result, FailedTransactionMetadata):
            return custom_code(result.err()), list(result.meta().logs())
        return None, list(result.logs())

    def translated(self, line: str) -> str:
        for old, new in self.moved.items():
            line = line.replace(old, str(new))
        return line


@pytest.fixture(scope="module")
def replay() -> tuple[Replay, dict[str, tuple[int | None, list[str]]]]:
    svm = LiteSVM().with_sigverify(False)  # nobody here has the recorded wallets' keys
    replay = Replay(Vm(DEPLOYED, svm))
    wallets = {a["pubkey"] for t in VECTORS["transactions"] for a in t["accounts"][0] if a["signer"]}
    for wallet in wallets:
        svm.set_account(Pubkey.from_string(wallet), Account(100_000_000_000, b"", SYSTEM))
    # Fills need books, which no recorded user but one opens; these are that one's, with its collateral.
    books = next(a for a in VECTORS["accounts"] if a["name"].startswith("user account with 10,000"))
    for wallet in wallets - {"uY46ibBrA5pEsx4z8iiQ6BpNeBuMR6weo4u2ubREB9q"}:
        user = Pubkey.from_string(wallet)
        address, bump = Pubkey.find_program_address([b"user_account", bytes(user), bytes(2)], DEPLOYED)
        replay.vm.put(address, base64.b64decode(books["data_base64"]))
        replay.vm.patch(address, "UserAccount", authority=user, bump=bump)
    return replay, {t["name"]: replay.run(t) for t in VECTORS["transactions"]}


Replayed = tuple[Replay, dict[str, tuple[int | None, list[str]]]]


@pytest.mark.parametrize("recorded", VECTORS["transactions"], ids=lambda t: t["name"])
def test_a_recorded_transaction_ends_as_it_did(replay: Replayed, recorded: dict[str, Any]) -> None:
    code, logs = replay[1][recorded["name"]]
    if recorded["name"] in DIFFERS:
        assert code == DIFFERS[recorded["name"]]
        return
    assert code == (None if recorded["ok"] else recorded["err"]["custom"])
    assert [essence(line) for line in logs if says(line)] == [
        essence(replay[0].translated(line)) for line in recorded["logs"] if says(line)
    ]


def says(line: str) -> bool:
    """All but what the revisions cannot share: compute units, the event, a log where 0.1 has none."""
    return not re.match(r"Program data: |Program \w+ consumed |Program log: Order expired: ", line) and not (
        line.startswith(f"Program {SYSTEM} ")  # a position is created by a call that 0.1 does not make
    )


def essence(line: str) -> str:
    return re.sub(r"thrown in \S+:[0-9]+\.", "thrown in SOURCE.", line)


@pytest.mark.parametrize(
    "recorded", [a for a in VECTORS["accounts"] if a["type"] in ("Market", "Order")], ids=lambda a: a["name"]
)
def test_recorded_markets_and_orders_come_out_the_same(replay: Replayed, recorded: dict[str, Any]) -> None:
    bytes_of_0_1 = base64.b64decode(recorded["data_base64"])
    if recorded["type"] == "Market":
        # The market's authority and its time of creation are recorded ones: the same to the last byte.
        assert bytes_of_0_1 in replay[0].written[recorded["address"]]
        return
    assert len(bytes_of_0_1) == 175
    fields = as_0_2(bytes_of_0_1)
    written = replay[0].written[str(replay[0].moved[recorded["address"]])]
    assert fields in [IDL.decode_struct("Order", data)[0] | {"bump": fields["bump"]} for data in written]


def as_0_2(order_of_0_1: bytes) -> dict[str, Any]:
    fields, end = IDL.decode_struct("Order", order_of_0_1 + bytes(8))
    assert end == 183
    if fields["order_type"] == "TrailingStop":  # 0.1 leaves its stop at 0; 0.2 sets it 5 % away
        fields["stop_price"] = (95 if fields["side"] == "Long" else 105) * USDC
    return fields


def test_a_recorded_new_user_account_comes_out_the_same(replay: Replayed) -> None:
    recorded = next(a for a in VECTORS["accounts"] if a["name"] == "user account new")
    assert replay[0].written[recorded["address"]][0] == base64.b64decode(recorded["data_base64"])


def test_the_recorded_position_has_the_layout_of_0_2() -> None:
    recorded = next(a for a in VECTORS["accounts"] if a["type"] == "Position")
    data = base64.b64decode(recorded["data_base64"])
    fields, end = IDL.decode_struct("Position", data)
    assert (end, recorded["lamports"]) == (407, 3_723_600)
    assert {name: value for name, value in fields.items() if value and not isinstance(value, list | Pubkey)} == {
        "side": "Short",
        "status": "Open",
        "size": 5_000_000,
        "entry_price": 111 * USDC,
        "current_price": 111 * USDC,
        "liquidation_price": 111 * USDC * 101,  # not one that 0.2 would compute
        "last_funding_update": START + 401,
        "initial_margin": 111 * USDC,
        "maintenance_margin": 111 * USDC * 8 // 10,
        "leverage": 5,
        "opened_at": START + 401,
        "last_updated": START + 401,
        "bump": 255,
    }


@pytest.mark.parametrize(
    ("type_name", "offsets"),
    [
        (
            "Order",
            {"user": 8, "market": 40, "order_type": 72, "side": 73, "size": 74, "price": 82, "stop_price": 90}
            | {"trailing_distance": 98, "leverage": 106, "status": 107, "created_at": 108, "expires_at": 116}
            | {"filled_size": 124, "bump": 132, "hidden_size": 133, "display_size": 141, "time_in_force": 149}
            | {"target_price": 150, "parent_order": 158, "twap_duration": 159, "twap_interval": 167}
            | {"order_id": 175},
        ),
        ("UserAccount", {"authority": 8, "account_index": 40, "available_margin": 72, "is_active": 142, "bump": 143}),
        ("Position", {"user_account": 8, "user": 40, "market": 72, "side": 106, "status": 107, "size": 108}),
    ],
)
def test_the_offsets_that_clients_rely_on(type_name: str, offsets: dict[str, int]) -> None:
    assert {name: IDL.offset(type_name, name, bytes(512)) for name in offsets} == offsets
