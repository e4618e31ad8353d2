"""jsonParsed: what an instruction says, for the programs that transactions mostly consist of.

The names are a validator's (transaction-status). What has no parser here, or does not read as its program would read
it, is shown with its accounts and its data, as a validator does for programs that it has no parser for. The compute
budget is one of those, there and here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from solders.pubkey import Pubkey

from keeper.localnet.tokens import PROGRAMS, ui_amount

MEMO_PROGRAMS: Final = frozenset(
    (
        Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"),
        Pubkey.from_string("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo"),
    )
)
_SYSTEM: Final = Pubkey.default()
_ASSOCIATED_TOKEN: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")


class _Shape(NamedTuple):
    """An instruction: its name, its accounts' names in order, and its data's fields in order, each with its type.

    `signer` is the account that may be a multisig instead: then it is called so, and its signers follow.
    """

    name: str
    accounts: str
    fields: Mapping[str, str] = {}
    signer: str = ""


_CREATED: Final = {"lamports": "u64", "space": "u64", "owner": "key"}
_SYSTEM_SHAPES: Final = {
    0: _Shape("createAccount", "source newAccount", _CREATED),
    1: _Shape("assign", "account", {"owner": "key"}),
    2: _Shape("transfer", "source destination", {"lamports": "u64"}),
    3: _Shape("createAccountWithSeed", "source newAccount", {"base": "key", "seed": "text", **_CREATED}),
    4: _Shape("advanceNonce", "nonceAccount recentBlockhashesSysvar nonceAuthority"),
    5: _Shape(
        "withdrawFromNonce",
        "nonceAccount destination recentBlockhashesSysvar rentSysvar nonceAuthority",
        {"lamports": "u64"},
    ),
    6: _Shape("initializeNonce", "nonceAccount recentBlockhashesSysvar rentSysvar", {"nonceAuthority": "key"}),
    7: _Shape("authorizeNonce", "nonceAccount nonceAuthority", {"newAuthorized": "key"}),
    8: _Shape("allocate", "account", {"space": "u64"}),
    9: _Shape("allocateWithSeed", "account", {"base": "key", "seed": "text", "space": "u64", "owner": "key"}),
    10: _Shape("assignWithSeed", "account", {"base": "key", "seed": "text", "owner": "key"}),
    11: _Shape(
        "transferWithSeed",
        "source sourceBase destination",
        {"lamports": "u64", "sourceSeed": "text", "sourceOwner": "key"},
    ),
    12: _Shape("upgradeNonce", "nonceAccount"),
}
_AMOUNT: Final = {"amount": "amount"}
_CHECKED: Final = {"tokenAmount": "checked"}
_NEW_MINT: Final = {"decimals": "u8", "mintAuthority": "key", "freezeAuthority": "key?"}
_TOKEN_SHAPES: Final = {
    0: _Shape("initializeMint", "mint rentSysvar", _NEW_MINT),
    1: _Shape("initializeAccount", "account mint owner rentSysvar"),
    3: _Shape("transfer", "source destination authority", _AMOUNT, "authority"),
    4: _Shape("approve", "source delegate owner", _AMOUNT, "owner"),
    5: _Shape("revoke", "source owner", signer="owner"),
    7: _Shape("mintTo", "mint account mintAuthority", _AMOUNT, "mintAuthority"),
    8: _Shape("burn", "account mint authority", _AMOUNT, "authority"),
    9: _Shape("closeAccount", "account destination owner", signer="owner"),
    10: _Shape("freezeAccount", "account mint freezeAuthority", signer="freezeAuthority"),
    11: _Shape("thawAccount", "account mint freezeAuthority", signer="freezeAuthority"),
    12: _Shape("transferChecked", "source mint destination authority", _CHECKED, "authority"),
    13: _Shape("approveChecked", "source mint delegate owner", _CHECKED, "owner"),
    14: _Shape("mintToChecked", "mint account mintAuthority", _CHECKED, "mintAuthority"),
    15: _Shape("burnChecked", "account mint authority", _CHECKED, "authority"),
    16: _Shape("initializeAccount2", "account mint rentSysvar", {"owner": "key"}),
    17: _Shape("syncNative", "account"),
    18: _Shape("initializeAccount3", "account mint", {"owner": "key"}),
    20: _Shape("initializeMint2", "mint", _NEW_MINT),
    21: _Shape("getAccountDataSize", "mint", {"extensionTypes": "extensions"}),
    22: _Shape("initializeImmutableOwner", "account"),
}
_SET_AUTHORITY: Final = 6
_AUTHORITIES: Final = ("mintTokens", "freezeAccount", "accountOwner", "closeAccount")
_EXTENSIONS: Final = {7: "immutableOwner"}
"""What the associated token program asks for."""
_ASSOCIATED: Final = "source account wallet mint systemProgram tokenProgram"
_ASSOCIATED_SHAPES: Final = {0: _Shape("create", _ASSOCIATED), 1: _Shape("createIdempotent", _ASSOCIATED)}


def parse_instruction(program: Pubkey, accounts: Sequence[Pubkey], data: bytes) -> dict[str, Any] | None:
    """The program's name and what the instruction says; None where a validator would show bytes, too."""
    try:
        if program in MEMO_PROGRAMS:
            return {"program": "spl-memo", "parsed": data.decode()}
        if program == _SYSTEM:
            return {"program": "system", "parsed": _shown(_SYSTEM_SHAPES, 4, accounts, data)}
        if program == _ASSOCIATED_TOKEN:
            return {
                "program": "spl-associated-token-account",
                "parsed": _shown(_ASSOCIATED_SHAPES, 1, accounts, data or b"\0"),
            }
        if program in PROGRAMS:
            shapes = _set_authority(data) if data[:1] == bytes([_SET_AUTHORITY]) else _TOKEN_SHAPES
            return {"program": PROGRAMS[program], "parsed": _shown(shapes, 1, accounts, data)}
    except (LookupError, ValueError, struct.error):
        pass  # no instruction of the program, too few accounts, or too little data
    return None


def _set_authority(data: bytes) -> Mapping[int, _Shape]:
    """Whose authority it is, an account's or a mint's, is in its data."""
    owned = "mint" if _AUTHORITIES[data[1]] in ("mintTokens", "freezeAccount") else "account"
    fields = {"authorityType": "authority", "newAuthority": "key or null"}
    return {_SET_AUTHORITY: _Shape("setAuthority", f"{owned} authority", fields, "authority")}


def _shown(shapes: Mapping[int, _Shape], tag_bytes: int, accounts: Sequence[Pubkey], data: bytes) -> dict[str, Any]:
    """Raises LookupError, ValueError or struct.error for what is not of one of the shapes."""
    if len(data) < tag_bytes:
        raise ValueError("no tag")
    shape = shapes[int.from_bytes(data[:tag_bytes], "little")]
    names = shape.accounts.split()
    if len(accounts) < len(names):
        raise ValueError("too few accounts")
    info: dict[str, Any] = {name: str(account) for name, account in zip(names, accounts, strict=False)}
    if shape.signer and len(accounts) > len(names):
        info[f"multisig{shape.signer[0].upper()}{shape.signer[1:]}"] = info.pop(shape.signer)
        info["signers"] = [str(account) for account in accounts[len(names) :]]
    at = tag_bytes
    for name, kind in shape.fields.items():
        value, size = _FIELDS[kind](data[at:])
        at += size
        if value is not None or kind == "key or null":
            info[name] = value
    return {"type": shape.name, "info": info} if info else {"type": shape.name}


def _u64(data: bytes) -> tuple[int, int]:
    return struct.unpack_from("<Q", data)[0], 8


def _key(data: bytes) -> tuple[str, int]:
    return str(Pubkey.from_bytes(data[:32])), 32


def _optional_key(data: bytes) -> tuple[str | None, int]:
    return _key(data[1:]) if data[0:1] == b"\1" else (None, 1)


def _text(data: bytes) -> tuple[str, int]:
    length, begin = _u64(data)
    return data[begin : begin + length].decode(), begin + length


def _checked_amount(data: bytes) -> tuple[dict[str, Any], int]:
    amount, decimals = struct.unpack_from("<QB", data)
    return ui_amount(amount, decimals), 9


def _extensions(data: bytes) -> tuple[list[str] | None, int]:
    return [_EXTENSIONS[kind] for (kind,) in struct.iter_unpack("<H", data)] or None, len(data)


_FIELDS: Final[Mapping[str, Callable[[bytes], tuple[Any, int]]]] = {
    "u8": lambda data: (struct.unpack_from("<B", data)[0], 1),
    "u64": _u64,
    "amount": lambda data: (str(_u64(data)[0]), 8),
    "checked": _checked_amount,
    "key": _key,
    "key?": _optional_key,
    "key or null": _optional_key,
    "authority": lambda data: (_AUTHORITIES[data[0]], 1),
    "extensions": _extensions,
    "text": _text,
}
