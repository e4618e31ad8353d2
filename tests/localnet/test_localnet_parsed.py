"""jsonParsed instructions: what a transaction says, in the words of solana-test-validator 3.1.12, asked the same."""

from __future__ import annotations

from typing import Any

import pytest
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountWithSeedParams, create_account_with_seed

from keeper.localnet import Localnet
from keeper.localnet.parsed_instructions import parse_instruction
from keeper.localnet.tokens import NATIVE_MINT
from tests.localnet.localnet_clients import SOL, Payer, Rpc, make_blocks, payment
from tests.localnet.test_localnet_programs import ASSOCIATED, SYSTEM, TOKEN, create_token_account

pytestmark = pytest.mark.anyio

MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
BUDGET = "ComputeBudget111111111111111111111111111111"
CONFIG = {"encoding": "jsonParsed", "commitment": "confirmed", "maxSupportedTransactionVersion": 0}
A, B, M, S = (Pubkey.from_bytes(bytes([number] * 32)) for number in (1, 2, 3, 4))


def u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


async def landed(net: Localnet, rpc: Rpc, payer: Payer, *instructions: Instruction) -> dict[str, Any]:
    """The transaction as getTransaction shows it; getBlock shows the same."""
    signature = str(net.bank.submit(payer.sign(*instructions)))
    make_blocks(net, 2)
    shown: dict[str, Any] = await rpc("getTransaction", signature, CONFIG)
    assert shown["meta"]["err"] is None
    (in_block,) = (await rpc("getBlock", shown["slot"], CONFIG))["transactions"]
    assert in_block["transaction"] == shown["transaction"]
    return shown


async def test_system_memo_and_what_has_no_parser(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    memo = Instruction(MEMO, "grüße".encode(), [AccountMeta(payer.address, is_signer=True, is_writable=True)])
    seeded = Pubkey.create_with_seed(payer.address, "seed", SYSTEM)
    create = create_account_with_seed(
        CreateAccountWithSeedParams(
            from_pubkey=payer.address,
            to_pubkey=seeded,
            base=payer.address,
            seed="seed",
            lamports=SOL,
            space=10,
            owner=SYSTEM,
        )
    )
    pay = payment(payer.address, B, SOL)
    shown = await landed(net, rpc, payer, set_compute_unit_limit(200_000), pay, memo, create)
    me = str(payer.address)
    assert shown["transaction"]["message"]["instructions"] == [
        # A validator has no parser for the compute budget either.
        {"accounts": [], "data": "Fj2Eoy", "programId": BUDGET, "stackHeight": 1},
        {
            "parsed": {"info": {"destination": str(B), "lamports": SOL, "source": me}, "type": "transfer"},
            "program": "system",
            "programId": str(SYSTEM),
            "stackHeight": 1,
        },
        {"parsed": "grüße", "program": "spl-memo", "programId": str(MEMO), "stackHeight": 1},
        {
            "parsed": {
                "info": {
                    "base": me,
                    "lamports": SOL,
                    "newAccount": str(seeded),
                    "owner": str(SYSTEM),
                    "seed": "seed",
                    "source": me,
                    "space": 10,
                },
                "type": "createAccountWithSeed",
            },
            "program": "system",
            "programId": str(SYSTEM),
            "stackHeight": 1,
        },
    ]


async def test_what_programs_call_is_parsed_too(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    address, transaction = create_token_account(payer, NATIVE_MINT)
    signature = str(net.bank.submit(transaction))
    make_blocks(net, 2)
    shown = await rpc("getTransaction", signature, CONFIG)
    (outer,) = shown["transaction"]["message"]["instructions"]
    me, held = str(payer.address), str(address)
    assert outer["program"] == "spl-associated-token-account"
    assert outer["parsed"] == {
        "info": {
            "account": held,
            "mint": str(NATIVE_MINT),
            "source": me,
            "systemProgram": str(SYSTEM),
            "tokenProgram": str(TOKEN),
            "wallet": me,
        },
        "type": "create",
    }
    (group,) = shown["meta"]["innerInstructions"]
    assert [(inner["program"], inner["stackHeight"]) for inner in group["instructions"]] == [
        ("spl-token", 2),
        ("system", 2),
        ("spl-token", 2),
        ("spl-token", 2),
    ]
    assert [inner["parsed"] for inner in group["instructions"]] == [
        {"info": {"extensionTypes": ["immutableOwner"], "mint": str(NATIVE_MINT)}, "type": "getAccountDataSize"},
        {
            "info": {"lamports": 2_039_280, "newAccount": held, "owner": str(TOKEN), "source": me, "space": 165},
            "type": "createAccount",
        },
        {"info": {"account": held}, "type": "initializeImmutableOwner"},
        {"info": {"account": held, "mint": str(NATIVE_MINT), "owner": me}, "type": "initializeAccount3"},
    ]


@pytest.mark.parametrize(
    ("data", "accounts", "info"),
    [
        (b"\x03" + u64(5), [A, B, S], {"source": A, "destination": B, "authority": S, "amount": "5"}),
        (
            b"\x0c" + u64(1_500) + b"\x03",
            [A, M, B, S],
            {
                "source": A,
                "mint": M,
                "destination": B,
                "authority": S,
                "tokenAmount": {"amount": "1500", "decimals": 3, "uiAmount": 1.5, "uiAmountString": "1.5"},
            },
        ),
        # With a multisig, its signers follow it.
        (
            b"\x07" + u64(9),
            [M, A, S, B],
            {"mint": M, "account": A, "multisigMintAuthority": S, "signers": [str(B)], "amount": "9"},
        ),
        (b"\x06\x00\x00", [M, S], {"mint": M, "authority": S, "authorityType": "mintTokens", "newAuthority": None}),
        (
            b"\x06\x02\x01" + bytes(B),
            [A, S],
            {"account": A, "authority": S, "authorityType": "accountOwner", "newAuthority": str(B)},
        ),
        (
            b"\x14\x06" + bytes(A) + b"\x00",
            [M],
            {"mint": M, "decimals": 6, "mintAuthority": str(A)},
        ),
    ],
)
def test_token_instructions(data: bytes, accounts: list[Pubkey], info: dict[str, Any]) -> None:
    said = parse_instruction(TOKEN, accounts, data)
    assert said is not None
    assert said["program"] == "spl-token"
    assert said["parsed"]["info"] == {k: str(v) if isinstance(v, Pubkey) else v for k, v in info.items()}


@pytest.mark.parametrize(
    ("program", "accounts", "data"),
    [
        (SYSTEM, [A, B], b""),
        (SYSTEM, [A, B], b"\x02\0\0"),
        (SYSTEM, [A, B], b"\x02\0\0\0" + bytes(7)),
        (SYSTEM, [A], b"\x02\0\0\0" + bytes(8)),
        (SYSTEM, [A, B], b"\xff\0\0\0" + bytes(8)),
        (SYSTEM, [A, B], b"\x03\0\0\0" + bytes(32) + u64(2**40)),
        (TOKEN, [A, B, S], b"\x06\x09\x00"),
        (TOKEN, [M], b"\x15\x63\x00"),
        (ASSOCIATED, [A, B, S], b"\x00"),
        (MEMO, [], b"\xff\xfe"),
        (B, [A], b"\x00"),
    ],
)
def test_what_does_not_read_as_its_program_would_read_it_is_left_as_it_is(
    program: Pubkey, accounts: list[Pubkey], data: bytes
) -> None:
    assert parse_instruction(program, accounts, data) is None
