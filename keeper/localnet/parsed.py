"""jsonParsed: what an account's data says, for the programs and sysvars that clients ask about.

The shapes are a validator's (account-decoder). What has no parser here is shown as base64, as a validator does for
programs that it has none for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from solders.account import Account
from solders.address_lookup_table_account import AddressLookupTable
from solders.hash import Hash
from solders.pubkey import Pubkey

from keeper.localnet.accounts import DataSlice, encode_account
from keeper.localnet.tokens import PROGRAMS, Reader, parsed_token

_LOOKUP_TABLES: Final = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
_SYSTEM: Final = Pubkey.default()
_SYSVARS: Final = Pubkey.from_string("Sysvar1111111111111111111111111111111111111")
_NONCE: Final = struct.Struct("<II32s32sQ")
"""Version, state, authority, blockhash, lamports a signature."""
_NONCE_INITIALIZED: Final = 1
_CLOCK: Final = struct.Struct("<QqQQq")
_EPOCH_SCHEDULE: Final = struct.Struct("<QQ?QQ")
_RENT: Final = struct.Struct("<QdB")
_EPOCH_REWARDS: Final = struct.Struct("<QQ32s16sQQ?")
_BLOCKHASH: Final = struct.Struct("<32sQ")
_SLOT_HASH: Final = struct.Struct("<Q32s")
_COUNT: Final = struct.Struct("<Q")


def show_account(
    address: Pubkey, account: Account, encoding: str, read: Reader, data_slice: DataSlice | None = None
) -> dict[str, Any]:
    """One account in `encoding`; jsonParsed where there is a parser for it, and base64 where there is none.

    `read` finds other accounts that are needed to read this one, at the same commitment.
    """
    shown = encode_account(account, encoding, data_slice)
    if encoding == "jsonParsed" and (parsed := _parse(address, account, read)) is not None:
        shown["data"] = parsed
    return shown


def _parse(address: Pubkey, account: Account, read: Reader) -> dict[str, Any] | None:
    owner, data = account.owner, account.data
    parsed: dict[str, Any] | None = None
    program = ""
    if (token_program := PROGRAMS.get(owner)) is not None:
        program, parsed = token_program, parsed_token(account, read)
    elif owner == _SYSTEM and len(data) == _NONCE.size:
        program, parsed = "nonce", _nonce(data)
    elif owner == _LOOKUP_TABLES:
        program, parsed = "address-lookup-table", _lookup_table(data)
    elif owner == _SYSVARS and (sysvar := _SYSVAR_PARSERS.get(str(address))) is not None:
        kind, parser = sysvar
        program, parsed = "sysvar", {"type": kind, "info": parser(data)}
    return None if parsed is None else {"program": program, "parsed": parsed, "space": len(data)}


def _nonce(data: bytes) -> dict[str, Any] | None:
    _, state, authority, blockhash, lamports = _NONCE.unpack(data)
    if state != _NONCE_INITIALIZED:
        return None
    return {
        "type": "initialized",
        "info": {
            "authority": str(Pubkey(authority)),
            "blockhash": str(Hash(blockhash)),
            "feeCalculator": {"lamportsPerSignature": str(lamports)},
        },
    }


def _lookup_table(data: bytes) -> dict[str, Any] | None:
    try:
        table = AddressLookupTable.deserialize(data)
    except ValueError:
        return None
    meta = table.meta
    info: dict[str, Any] = {
        "addresses": [str(address) for address in table.addresses],
        "deactivationSlot": str(meta.deactivation_slot),
        "lastExtendedSlot": str(meta.last_extended_slot),
        "lastExtendedSlotStartIndex": meta.last_extended_slot_start_index,
    }
    if meta.authority is not None:
        info["authority"] = str(meta.authority)
    return {"type": "lookupTable", "info": info}


def _clock(data: bytes) -> dict[str, Any]:
    slot, started_at, epoch, leader_schedule_epoch, now = _CLOCK.unpack_from(data)
    return {
        "epoch": epoch,
        "epochStartTimestamp": started_at,
        "leaderScheduleEpoch": leader_schedule_epoch,
        "slot": slot,
        "unixTimestamp": now,
    }


def _epoch_schedule(data: bytes) -> dict[str, Any]:
    slots, offset, warmup, first_epoch, first_slot = _EPOCH_SCHEDULE.unpack_from(data)
    return {
        "firstNormalEpoch": first_epoch,
        "firstNormalSlot": first_slot,
        "leaderScheduleSlotOffset": offset,
        "slotsPerEpoch": slots,
        "warmup": warmup,
    }


def _rent(data: bytes) -> dict[str, Any]:
    lamports, threshold, burn = _RENT.unpack_from(data)
    return {"burnPercent": burn, "exemptionThreshold": threshold, "lamportsPerByteYear": str(lamports)}


def _last_restart_slot(data: bytes) -> dict[str, Any]:
    return {"lastRestartSlot": _COUNT.unpack_from(data)[0]}


def _epoch_rewards(data: bytes) -> dict[str, Any]:
    height, partitions, parent, points, total, distributed, active = _EPOCH_REWARDS.unpack_from(data)
    return {
        "active": active,
        "distributedRewards": str(distributed),
        "distributionStartingBlockHeight": height,
        "numPartitions": partitions,
        "parentBlockhash": str(Hash(parent)),
        "totalPoints": str(int.from_bytes(points, "little")),
        "totalRewards": str(total),
    }


def _recent_blockhashes(data: bytes) -> list[dict[str, Any]]:
    return [
        {"blockhash": str(Hash(blockhash)), "feeCalculator": {"lamportsPerSignature": str(lamports)}}
        for blockhash, lamports in _rows(_BLOCKHASH, data)
    ]


def _slot_hashes(data: bytes) -> list[dict[str, Any]]:
    return [{"hash": str(Hash(blockhash)), "slot": slot} for slot, blockhash in _rows(_SLOT_HASH, data)]


def _rows(row: struct.Struct, data: bytes) -> list[tuple[Any, ...]]:
    """The rows behind a count; what is behind them is room for more."""
    count = _COUNT.unpack_from(data)[0]
    end = min(len(data), _COUNT.size + count * row.size)
    return list(row.iter_unpack(data[_COUNT.size : end - (end - _COUNT.size) % row.size]))


_SYSVAR_PARSERS: Final[dict[str, tuple[str, Callable[[bytes], Any]]]] = {
    "SysvarC1ock11111111111111111111111111111111": ("clock", _clock),
    "SysvarEpochSchedu1e111111111111111111111111": ("epochSchedule", _epoch_schedule),
    "SysvarRent111111111111111111111111111111111": ("rent", _rent),
    "SysvarLastRestartS1ot1111111111111111111111": ("lastRestartSlot", _last_restart_slot),
    "SysvarEpochRewards1111111111111111111111111": ("epochRewards", _epoch_rewards),
    "SysvarRecentB1ockHashes11111111111111111111": ("recentBlockhashes", _recent_blockhashes),
    "SysvarS1otHashes111111111111111111111111111": ("slotHashes", _slot_hashes),
}
