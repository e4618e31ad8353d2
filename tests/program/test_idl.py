"""The two IDL files, and the C headers that must say the same."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from anchorpy_core.idl import Idl as LegacyIdl
from solders.pubkey import Pubkey

from keeper.localnet.program import PROGRAM_ID
from keeper.localnet.program.build import SOURCE_DIR
from keeper.venue.idl import PACKAGED
from tests.program.program_vm import ANCHOR_ERRORS, IDL

LEGACY_PATH = PACKAGED["0.1"]
LEGACY = json.loads(LEGACY_PATH.read_text())


def discriminator(namespace: str, name: str) -> bytes:
    return hashlib.sha256(f"{namespace}:{name}".encode()).digest()[:8]


def test_the_idl_names_the_default_address() -> None:
    assert IDL.raw["address"] == PROGRAM_ID
    assert str(Pubkey.from_string(PROGRAM_ID)) == PROGRAM_ID
    assert IDL.raw["metadata"]["version"] == "0.2.0"


@pytest.mark.parametrize(
    ("namespace", "items"), [("global", IDL.instructions), ("account", IDL.accounts), ("event", IDL.events)]
)
def test_the_idl_has_anchors_discriminators(namespace: str, items: dict[str, dict[str, object]]) -> None:
    for name, item in items.items():
        assert bytes(item["discriminator"]) == discriminator(namespace, name)  # type: ignore[call-overload]


def test_the_source_has_anchors_discriminators() -> None:
    written = dict(re.findall(r"(\w+) = 0x([0-9a-f]{16})", (SOURCE_DIR / "discriminators.h").read_text()))
    expected = {
        **{f"IX_{name.upper()}": discriminator("global", name) for name in IDL.instructions},
        **{f"ACCOUNT_{snake(name)}": discriminator("account", name) for name in IDL.accounts},
        **{f"EVENT_{snake(name)}": discriminator("event", name) for name in IDL.events},
    }
    assert {name: bytes.fromhex(digits)[::-1] for name, digits in written.items()} == expected


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def test_the_source_and_the_idl_have_the_same_errors() -> None:
    header = re.sub(r"\\\n\s*", " ", (SOURCE_DIR / "errors.h").read_text())
    written = {
        name: (int(number), message) for name, number, message in re.findall(r'X\((\w+), (\d+),\s+"([^"]+)"\)', header)
    }
    in_idl = {name: (item["code"], item["msg"]) for name, item in IDL.errors.items()}
    # Anyone may execute, so nothing returns it; clients of both revisions know its number.
    assert in_idl.pop("UnauthorizedKeeper")[0] == 6012
    assert written == ANCHOR_ERRORS | in_idl


def test_revision_0_2_keeps_the_numbers_of_0_1() -> None:
    legacy = {e["name"]: (e["code"], e["msg"]) for e in LEGACY["errors"]}
    now = {name: (item["code"], item["msg"]) for name, item in IDL.errors.items()}
    assert legacy.items() <= now.items()
    assert min(code for name, (code, _) in now.items() if name not in legacy) == 6100


def test_revision_0_1_is_readable_as_legacy_anchor() -> None:
    parsed = LegacyIdl.from_json(LEGACY_PATH.read_text())
    assert {i.name for i in parsed.instructions} >= {"placeOrder", "executeConditionalOrder", "openPosition"}
    execute = next(i for i in LEGACY["instructions"] if i["name"] == "executeConditionalOrder")
    assert [a["name"] for a in execute["accounts"]] == ["market", "order", "executor"]


@pytest.mark.parametrize("name", ["OrderType", "PositionSide", "OrderStatus", "TimeInForce", "PositionStatus"])
def test_the_revisions_share_their_enumerations(name: str) -> None:
    legacy = next(t["type"] for t in LEGACY["types"] if t["name"] == name)
    assert legacy == IDL.types[name]


def test_an_executor_can_derive_every_account_of_a_fill_from_the_order() -> None:
    accounts = {a["name"]: a for a in IDL.instructions["execute_conditional_order"]["accounts"]}
    assert list(accounts) == ["market", "order", "position", "user_account", "executor", "system_program"]
    assert accounts["market"]["relations"] == ["order"]
    assert accounts["position"]["pda"]["seeds"] == [
        {"kind": "const", "value": list(b"position")},
        {"kind": "account", "path": "order"},
    ]
    assert accounts["user_account"]["pda"]["seeds"] == [
        {"kind": "const", "value": list(b"user_account")},
        {"kind": "account", "path": "order.user", "account": "Order"},
        {"kind": "const", "value": [0, 0]},
    ]
    assert accounts["system_program"]["address"] == str(Pubkey.default())
