"""An Anchor IDL, read from either format, as one small model.

Anchor changed its IDL format in 0.30: discriminators are written out, accounts carry `address` and
`pda.seeds`, names are snake_case. Before it, discriminators were implied and names were camelCase. The keeper
reads both into the same frozen types, so nothing behind this module knows which it was.

Sources: Anchor's rule for discriminators (sha256 of "global:<name>" and "account:<Name>", 8 bytes).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from solders.pubkey import Pubkey

from keeper.domain.errors import Misconfigured

PACKAGED: Final[Mapping[str, Path]] = {
    revision: Path(__file__).parent / "idls" / f"quantdesk_{revision.replace('.', '_')}.json"
    for revision in ("0.1", "0.2")
}
"""The IDLs that the keeper brings, by the program's revision."""

_INT_WIDTHS: Final = {
    "u8": 1,
    "u16": 2,
    "u32": 4,
    "u64": 8,
    "u128": 16,
    "i8": 1,
    "i16": 2,
    "i32": 4,
    "i64": 8,
}


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed of a program-derived address.

    `const` has its bytes in `value`. `account` has a dotted `path`: "order" is that account's address,
    "order.user" a field of it, whose type is found in the account type `of`. `arg` names an argument.
    """

    kind: Literal["const", "account", "arg"]
    value: bytes = b""
    path: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class AccountDef:
    """An account that an instruction takes: its flags and, when the IDL says, where its address comes from."""

    name: str
    writable: bool
    signer: bool
    address: Pubkey | None = None
    seeds: tuple[Seed, ...] | None = None


@dataclass(frozen=True, slots=True)
class InstructionDef:
    """An instruction: snake_case name, 8-byte discriminator, accounts and arguments in order."""

    name: str
    discriminator: bytes
    accounts: tuple[AccountDef, ...]
    args: tuple[tuple[str, Any], ...]

    def account(self, name: str) -> AccountDef | None:
        """The account of that name, or None when the instruction does not take it."""
        return next((account for account in self.accounts if account.name == name), None)


@dataclass(frozen=True, slots=True)
class Idl:
    """A program's interface. `legacy` is the same in the format before Anchor 0.30, for anchorpy's coders."""

    name: str
    version: str
    address: Pubkey | None
    instructions: Mapping[str, InstructionDef]
    struct_fields: Mapping[str, Mapping[str, Any]]
    plain_enums: Mapping[str, int]
    """How many variants each enum has whose variants carry no fields."""
    errors: Mapping[int, str]
    """The names of the program's own errors, by their number."""
    legacy: str

    def instruction(self, name: str) -> InstructionDef:
        """The instruction of that snake_case name; Misconfigured when the program has none such."""
        found = self.instructions.get(name)
        if found is None:
            raise Misconfigured(
                f"The IDL of {self.name} {self.version} has no instruction {name}.",
                remedy="Give the IDL that belongs to the program (setting program.idl).",
            )
        return found


def load_idl(path: Path) -> Idl:
    """Read an IDL file of either format. Misconfigured, with the file's name, when it is not one."""
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise Misconfigured(
            f"The IDL file {path} can't be read: {e.strerror}.", remedy="Check the setting program.idl."
        ) from e
    try:
        return parse_idl(raw)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise Misconfigured(
            f"The file {path} is not an Anchor IDL ({type(e).__name__}: {e}).",
            remedy="Use the JSON that `anchor build` writes to target/idl/.",
        ) from e


def parse_idl(raw: bytes) -> Idl:
    """Parse an IDL's JSON. It is in the newer format when it has `metadata.spec` or written discriminators."""
    document = msgspec.json.decode(raw)
    if not isinstance(document, dict) or "instructions" not in document:
        raise ValueError("no instructions in it")
    metadata = document.get("metadata") or {}
    newer = "spec" in metadata or any("discriminator" in ix for ix in document["instructions"])
    return _parse_newer(document) if newer else _parse_legacy(document)


def discriminator(namespace: str, name: str) -> bytes:
    """Anchor's 8 bytes for an instruction ("global", snake name) or an account ("account", Pascal name)."""
    return hashlib.sha256(f"{namespace}:{name}".encode()).digest()[:8]


def seed_bytes(value: object, idl_type: Any) -> bytes:
    """A seed's bytes: a pubkey's 32, a string's UTF-8, an integer little-endian in its type's width."""
    if isinstance(value, Pubkey):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, int) and isinstance(idl_type, str) and idl_type in _INT_WIDTHS:
        return value.to_bytes(_INT_WIDTHS[idl_type], "little", signed=idl_type.startswith("i"))
    raise TypeError(f"a {type(value).__name__} can't be a seed of IDL type {idl_type!r}")


def snake(name: str) -> str:
    """`executeConditionalOrder` to `execute_conditional_order`; snake_case stays as it is."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def camel(name: str) -> str:
    """`execute_conditional_order` to `executeConditionalOrder`."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _parse_newer(document: Mapping[str, Any]) -> Idl:
    types = {t["name"]: t["type"] for t in document.get("types", ())}
    instructions = {
        ix["name"]: InstructionDef(
            name=ix["name"],
            discriminator=bytes(ix["discriminator"]),
            accounts=tuple(_newer_account(a) for a in ix["accounts"]),
            args=tuple((a["name"], a["type"]) for a in ix["args"]),
        )
        for ix in document["instructions"]
    }
    return Idl(
        name=document["metadata"]["name"],
        version=document["metadata"]["version"],
        address=Pubkey.from_string(document["address"]) if document.get("address") else None,
        instructions=instructions,
        struct_fields=_struct_fields(types),
        plain_enums=_plain_enums(types),
        errors={e["code"]: e["name"] for e in document.get("errors", ())},
        legacy=msgspec.json.encode(_legacy_view(document, types)).decode(),
    )


def _newer_account(raw: Mapping[str, Any]) -> AccountDef:
    pda = raw.get("pda")
    return AccountDef(
        name=raw["name"],
        writable=bool(raw.get("writable", False)),
        signer=bool(raw.get("signer", False)),
        address=Pubkey.from_string(raw["address"]) if raw.get("address") else None,
        seeds=tuple(_seed(s) for s in pda["seeds"]) if pda else None,
    )


def _seed(raw: Mapping[str, Any]) -> Seed:
    match raw["kind"]:
        case "const":
            return Seed("const", value=bytes(raw["value"]))
        case "account":
            return Seed("account", path=raw["path"], of=raw.get("account", ""))
        case "arg":
            return Seed("arg", path=raw["path"])
        case other:
            raise ValueError(f"unknown seed kind {other!r}")


def _parse_legacy(document: Mapping[str, Any]) -> Idl:
    accounts = document.get("accounts", ())
    types = {t["name"]: t["type"] for t in (*document.get("types", ()), *accounts)}
    instructions = {}
    for ix in document["instructions"]:
        name = snake(ix["name"])
        instructions[name] = InstructionDef(
            name=name,
            discriminator=discriminator("global", name),
            accounts=tuple(
                AccountDef(name=snake(a["name"]), writable=bool(a["isMut"]), signer=bool(a["isSigner"]))
                for a in ix["accounts"]
            ),
            args=tuple((snake(a["name"]), a["type"]) for a in ix["args"]),
        )
    address = (document.get("metadata") or {}).get("address")
    return Idl(
        name=document["name"],
        version=document["version"],
        address=Pubkey.from_string(address) if address else None,
        instructions=instructions,
        struct_fields=_struct_fields(types),
        plain_enums=_plain_enums(types),
        errors={e["code"]: e["name"] for e in document.get("errors", ())},
        legacy=msgspec.json.encode(document).decode(),
    )


def _plain_enums(types: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: len(found["variants"])
        for name, found in types.items()
        if found.get("kind") == "enum" and not any(variant.get("fields") for variant in found["variants"])
    }


def _struct_fields(types: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {snake(f["name"]): f["type"] for f in body.get("fields", ())}
        for name, body in types.items()
        if body.get("kind") == "struct"
    }


def _legacy_view(document: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The newer document in the older format, which is the only one that anchorpy 0.21 reads."""
    account_names = {a["name"] for a in document.get("accounts", ())}
    event_names = {e["name"] for e in document.get("events", ())}

    def type_entry(name: str) -> dict[str, Any]:
        return {"name": name, "type": _legacy_type_body(types[name])}

    return {
        "version": document["metadata"]["version"],
        "name": document["metadata"]["name"],
        "instructions": [
            {
                "name": camel(ix["name"]),
                "accounts": [
                    {
                        "name": camel(a["name"]),
                        "isMut": bool(a.get("writable", False)),
                        "isSigner": bool(a.get("signer", False)),
                    }
                    for a in ix["accounts"]
                ],
                "args": [{"name": camel(a["name"]), "type": _legacy_type(a["type"])} for a in ix["args"]],
            }
            for ix in document["instructions"]
        ],
        "accounts": [type_entry(name) for name in sorted(account_names)],
        "types": [type_entry(name) for name in types if name not in account_names | event_names],
        "errors": list(document.get("errors", ())),
    }


def _legacy_type_body(body: Mapping[str, Any]) -> dict[str, Any]:
    if body["kind"] == "enum":
        return {"kind": "enum", "variants": [{"name": v["name"]} for v in body["variants"]]}
    fields: Sequence[Mapping[str, Any]] = body["fields"]
    return {
        "kind": "struct",
        "fields": [{"name": camel(f["name"]), "type": _legacy_type(f["type"])} for f in fields],
    }


def _legacy_type(idl_type: Any) -> Any:
    if idl_type == "pubkey":
        return "publicKey"
    if isinstance(idl_type, dict):
        if "defined" in idl_type:
            defined = idl_type["defined"]
            return {"defined": defined["name"] if isinstance(defined, dict) else defined}
        if "array" in idl_type:
            inner, length = idl_type["array"]
            return {"array": [_legacy_type(inner), length]}
        (wrapper, inner), *_ = idl_type.items()
        return {wrapper: _legacy_type(inner)}
    return idl_type
