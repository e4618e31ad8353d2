"""The RPC methods that the keeper uses, typed: from JSON shapes to what they mean.

Limits are the RPC's: 256 signatures a status call, 100 addresses a multiple-account call. Every answer comes
with the slot of the node's context, because without it nothing can be merged.
"""

from __future__ import annotations

import base64
import binascii
import struct
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from solana.rpc.commitment import Commitment, Confirmed, Finalized, Processed
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.base58 import base58
from keeper.domain.errors import ChainError, MalformedReply, Transient
from keeper.solana.account_stream import KeyedAccount
from keeper.solana.consensus import Consensus
from keeper.solana.pool import RpcPool
from keeper.solana.rpc import Call, Reply
from keeper.solana.shapes import context_slot, field, number, shape
from keeper.solana.simulation import Simulation as Simulation
from keeper.solana.simulation import simulation_in

CommitmentWord = Literal["processed", "confirmed", "finalized"]
PROCESSED: Final[Commitment] = Processed
CONFIRMED: Final[Commitment] = Confirmed
FINALIZED: Final[Commitment] = Finalized

STATUSES_PER_CALL: Final = 256
ACCOUNTS_PER_CALL: Final = 100
BLOCKHASH_BLOCKS: Final = 150
"""So many blocks a blockhash lives: MAX_PROCESSING_AGE in solana-clock."""
TRANSACTIONS_PER_REQUEST: Final = 32

CLOCK_SYSVAR: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
_CLOCK: Final = struct.Struct("<QqQQq")
_CLOCK_WITHIN_S: Final = 2.0
_READ_CLOCK: Final = ("getMultipleAccounts", [str(CLOCK_SYSVAR)], {"commitment": PROCESSED, "encoding": "base64"})


@dataclass(frozen=True, slots=True)
class Blockhash:
    """A recent blockhash. A transaction with it can land up to block height `last_valid_block_height` + 1, which is
    `BLOCKHASH_BLOCKS` + 1 above its own block's.
    """

    value: str
    last_valid_block_height: int
    slot: int


class AccountBytes(msgspec.Struct, frozen=True, gc=False):
    """An account as read: `lamports` 0 means that it does not exist any more."""

    address: Pubkey
    owner: Pubkey
    lamports: int
    data: bytes
    executable: bool = False


class SignatureStatus(msgspec.Struct, frozen=True, gc=False):
    """A signature's status. `confirmation` is processed, confirmed or finalized; `err` is None for success,
    else the transaction error in the RPC's JSON shape.
    """

    slot: int
    confirmation: CommitmentWord
    err: object


@dataclass(frozen=True, slots=True)
class LandedTransaction:
    """A transaction from the ledger: the fee that it paid, its logs and its error."""

    slot: int
    fee_lamports: int
    logs: tuple[str, ...]
    err: object
    units: int


class ChainClient:
    """The chain, through a pool of endpoints. Raises `keeper.domain.errors` ChainErrors and nothing else."""

    def __init__(self, pool: RpcPool) -> None:
        self.pool = pool
        self.consensus = Consensus(pool)

    async def genesis_hash(self) -> str:
        """The cluster's genesis hash: which chain this is."""
        return str(await self.pool.call("getGenesisHash"))

    async def slot(self, commitment: Commitment = CONFIRMED) -> int:
        """The node's slot at a commitment."""
        return number(await self.pool.call("getSlot", {"commitment": commitment}))

    async def block_height_and_slot(self, commitment: Commitment = FINALIZED) -> tuple[int, int]:
        """Block height and slot at a commitment, from one node: `getEpochInfo` gives both together."""
        info = await self.pool.call("getEpochInfo", {"commitment": commitment})
        return number(field(info, "blockHeight")), number(field(info, "absoluteSlot"))

    async def latest_blockhash(self) -> Blockhash:
        """A blockhash to sign with, and until when it can land."""
        answer = await self.pool.call("getLatestBlockhash", {"commitment": CONFIRMED})
        value = field(answer, "value")
        blockhash = field(value, "blockhash")
        with shape("a blockhash"):
            Hash.from_string(blockhash)
        return Blockhash(blockhash, number(field(value, "lastValidBlockHeight")), context_slot(answer))

    async def balance(self, address: Pubkey, commitment: Commitment = CONFIRMED) -> int:
        """Lamports."""
        answer = await self.pool.call("getBalance", str(address), {"commitment": commitment})
        return number(field(answer, "value"))

    async def rent_exempt_minimum(self, size: int) -> int:
        """Lamports that an account of so many bytes must hold to stay."""
        return number(await self.pool.call("getMinimumBalanceForRentExemption", size))

    async def chain_time(self) -> tuple[int, int]:
        """The clock sysvar at processed: (slot, unix seconds). The program judges staleness and expiry by it."""
        return _clock(await self.pool.call(*_READ_CLOCK))

    async def chain_times(self) -> list[tuple[int, int]]:
        """The same, by each endpoint that is not benched and answers soon."""
        found: list[tuple[int, int]] = []
        for reply in await self.pool.each(*_READ_CLOCK, deadline_s=_CLOCK_WITHIN_S):
            with suppress(ChainError):
                found.append(_clock(reply))
        return found

    async def accounts(
        self,
        addresses: Sequence[Pubkey],
        *,
        commitment: Commitment = CONFIRMED,
        min_context_slot: int | None = None,
        data_slice: tuple[int, int] | None = None,
    ) -> tuple[int, list[AccountBytes | None]]:
        """Accounts in the order asked for, None where there is none, and the lowest context slot among the
        answers. BehindNode when no node has reached `min_context_slot`. Of the data only `data_slice`, an offset and
        a length in bytes, if that is given.
        """
        config = _config(commitment, min_context_slot, encoding="base64")
        if data_slice is not None:
            config["dataSlice"] = dict(zip(("offset", "length"), data_slice, strict=True))
        calls = [
            Call("getMultipleAccounts", ([base58(a) for a in addresses[i : i + ACCOUNTS_PER_CALL]], config))
            for i in range(0, len(addresses), ACCOUNTS_PER_CALL)
        ]
        found: list[AccountBytes | None] = []
        slots: list[int] = []
        for i, reply in enumerate(await self.pool.batch(calls)):
            slot, some = accounts_in(reply, addresses[i * ACCOUNTS_PER_CALL : (i + 1) * ACCOUNTS_PER_CALL])
            slots.append(slot)
            found += some
        return min(slots, default=0), found

    async def program_accounts(
        self,
        program_id: Pubkey,
        filters: Sequence[Mapping[str, Any]],
        *,
        commitment: Commitment = PROCESSED,
        deadline_s: float = 60.0,
    ) -> tuple[int, list[AccountBytes]]:
        """Every account of the program that passes the filters, with the context slot."""
        config = _filtered(filters, commitment)
        answer = await self.pool.call("getProgramAccounts", str(program_id), config, deadline_s=deadline_s)
        slot = context_slot(answer)
        entries = field(answer, "value")
        with shape("a list of accounts"):
            return slot, [parse_account(Pubkey.from_string(e["pubkey"]), e["account"]) for e in entries]

    async def program_accounts_in_parts(
        self,
        program_id: Pubkey,
        filters: Sequence[Mapping[str, Any]],
        *,
        deadline_s: float = 60.0,
    ) -> AsyncGenerator[tuple[int, list[KeyedAccount]]]:
        """The same, in parts as they arrive: for programs with more accounts than should be held at once."""
        config = _filtered(filters, PROCESSED)
        calls = self.pool.accounts("getProgramAccounts", str(program_id), config, deadline_s=deadline_s)
        async with aclosing(calls) as parts:
            async for part in parts:
                yield part

    async def statuses(
        self, signatures: Sequence[Signature], *, search_history: bool = False
    ) -> tuple[int, list[SignatureStatus | ChainError | None]]:
        """Each signature's status, None when the node does not know it, an error when its call failed; and the
        lowest context slot among the answers (0 when none answered).
        """
        config = {"searchTransactionHistory": search_history}
        groups = [signatures[i : i + STATUSES_PER_CALL] for i in range(0, len(signatures), STATUSES_PER_CALL)]
        calls = [Call("getSignatureStatuses", ([base58(s) for s in group], config)) for group in groups]
        found: list[SignatureStatus | ChainError | None] = []
        slots: list[int] = []
        for group, reply in zip(groups, await self.pool.batch(calls), strict=True):
            try:
                if isinstance(reply, ChainError):
                    raise reply
                values = field(reply, "value")
                if not isinstance(values, list) or len(values) != len(group):
                    raise MalformedReply("getSignatureStatuses answered another number of statuses")
                parsed = [None if raw is None else _status(raw) for raw in values]
                slots.append(context_slot(reply))
                found += parsed
            except ChainError as e:
                found += [e] * len(group)
        return min(slots, default=0), found

    async def simulate(
        self,
        wire: bytes,
        *,
        sig_verify: bool,
        replace_blockhash: bool = False,
        commitment: Commitment = PROCESSED,
        min_context_slot: int | None = None,
    ) -> Simulation:
        """Run a transaction without landing it. `replace_blockhash` can't go with `sig_verify`; it hides an
        expired blockhash, so it is never used for a user's transaction. BehindNode when no node has reached
        `min_context_slot`, or one answers as of an earlier slot all the same.
        """
        config = _config(
            commitment,
            min_context_slot,
            encoding="base64",
            sigVerify=sig_verify,
            replaceRecentBlockhash=replace_blockhash,
        )
        answer = await self.pool.call("simulateTransaction", base64.b64encode(wire).decode(), config)
        return simulation_in(answer, min_context_slot)

    async def transactions(self, signatures: Sequence[Signature]) -> list[LandedTransaction | ChainError | None]:
        """Each landed transaction's fee and logs; None when the node does not have it (yet), an error when it could
        not be read. In requests of a few dozen, because each reply may have many kilobytes of logs, and all of them
        within one call's deadline: what is left then was not read.
        """
        calls = [landed_call(str(signature)) for signature in signatures]
        ends = time.monotonic() + self.pool.limits.deadline_s
        found: list[LandedTransaction | ChainError | None] = []
        for start in range(0, len(calls), TRANSACTIONS_PER_REQUEST):
            some = calls[start : start + TRANSACTIONS_PER_REQUEST]
            left = ends - time.monotonic()
            if left <= 0:
                found += [Transient("there was no time left to read it")] * len(some)
                continue
            found += [_landed(reply) for reply in await self.pool.batch(some, deadline_s=left)]
        return found

    async def recent_priority_fees(self, writable: Sequence[Pubkey]) -> list[int]:
        """Per-slot minimum prices (micro-lamports a unit) that landed for these accounts: a floor, not a bid."""
        answer = await self.pool.call("getRecentPrioritizationFees", [str(a) for a in writable[:128]])
        with shape("a list of fees"):
            return [number(field(entry, "prioritizationFee")) for entry in answer or ()]


def landed_call(signature: str) -> Call:
    """Ask for a landed transaction as bytes. Of any version: a node refuses to show one that was not asked for."""
    config = {"commitment": CONFIRMED, "encoding": "base64", "maxSupportedTransactionVersion": 1}
    return Call("getTransaction", (signature, config))


def accounts_in(reply: Reply, addresses: Sequence[Pubkey]) -> tuple[int, list[AccountBytes | None]]:
    """The context slot of a reply to getMultipleAccounts, and what it says of each address. ChainError when it is none,
    MalformedReply when it has another shape.
    """
    if isinstance(reply, ChainError):
        raise reply
    values = field(reply, "value")
    if not isinstance(values, list) or len(values) != len(addresses):
        raise MalformedReply("getMultipleAccounts answered another number of accounts")
    pairs = zip(addresses, values, strict=True)
    return context_slot(reply), [None if raw is None else parse_account(address, raw) for address, raw in pairs]


def memcmp(offset: int, data: bytes) -> dict[str, Any]:
    """The RPC filter for accounts with these bytes there, in base64, so that nothing is decoded twice."""
    return {"memcmp": {"offset": offset, "bytes": base64.b64encode(data).decode(), "encoding": "base64"}}


def parse_account(address: Pubkey, raw: Any) -> AccountBytes:
    """An account in the RPC's JSON shape with base64 data. MalformedReply when it is not one."""
    with shape("an account"):
        text, encoding = raw["data"]
        if encoding != "base64":
            raise MalformedReply(f"an account came in {encoding}, not base64")
        return AccountBytes(
            address,
            Pubkey.from_string(raw["owner"]),
            number(raw["lamports"]),
            binascii.a2b_base64(text),
            bool(raw.get("executable", False)),
        )


def _status(raw: Any) -> SignatureStatus:
    slot, err = number(field(raw, "slot")), raw.get("err")
    word = raw.get("confirmationStatus")
    if word not in ("processed", "confirmed", "finalized"):
        # Old nodes leave the word out; null confirmations meant rooted.
        word = "finalized" if raw.get("confirmations") is None else "processed"
    return SignatureStatus(slot, word, err)


def _landed(reply: Reply) -> LandedTransaction | ChainError | None:
    if reply is None or isinstance(reply, ChainError):
        return reply
    try:
        # A node that pruned the outcome says null for it.
        meta = field(reply, "meta") or {}
        with shape("a transaction"):
            return LandedTransaction(
                slot=number(field(reply, "slot")),
                fee_lamports=number(meta.get("fee") or 0),
                logs=tuple(str(line) for line in meta.get("logMessages") or ()),
                err=meta.get("err"),
                units=number(meta.get("computeUnitsConsumed") or 0),
            )
    except ChainError as e:
        return e


def _clock(reply: Reply) -> tuple[int, int]:
    if isinstance(reply, ChainError):
        raise reply
    with shape("the clock"):
        account = parse_account(CLOCK_SYSVAR, field(reply, "value")[0])
        _slot, _epoch_start, _epoch, _leader_epoch, unix_time = _CLOCK.unpack_from(account.data)
        return context_slot(reply), unix_time


def _config(commitment: Commitment, min_context_slot: int | None, **more: Any) -> dict[str, Any]:
    config = {"commitment": commitment, **more}
    if min_context_slot is not None:
        config["minContextSlot"] = min_context_slot
    return config


def _filtered(filters: Sequence[Mapping[str, Any]], commitment: Commitment) -> dict[str, Any]:
    return {**_config(commitment, None, encoding="base64"), "withContext": True, "filters": filters}
