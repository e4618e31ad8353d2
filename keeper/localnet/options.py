"""The command line of a localnet: solana-test-validator's flags where it has the feature."""

from __future__ import annotations

import argparse
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import msgspec
from solders.account import Account
from solders.pubkey import Pubkey

from keeper.localnet.config import DEFAULT_RPC_PORT, LocalnetConfig

_SLOTS_END = 1 << 48
"""Above it a chain at any pace would run out of what JavaScript's numbers hold."""


class UsageError(Exception):
    """The command line asks for something that cannot be; the message names the flag and the remedy."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    config: LocalnetConfig
    announce: Literal["text", "json", "nothing"]
    with_markets: bool


def parse_options(arguments: Sequence[str], *, program: str, has_markets: bool = False) -> Options:
    """Read the arguments after the program's name. `has_markets`: there is something to make markets with.

    Raises UsageError for what cannot be, and SystemExit(0) after printing what `--help` asks for.
    """
    parsed = _parser(program, has_markets=has_markets).parse_args(list(arguments))
    with_markets = has_markets and parsed.with_markets
    if with_markets and parsed.no_program:
        raise UsageError("--with-markets needs the reference program; leave --no-program out")
    if not 0 <= parsed.rpc_port <= 65_534:
        raise UsageError("--rpc-port must be 0 (free ports) or 1 to 65534: the WebSocket takes the next port")
    if parsed.geyser_port is not None and not 0 <= parsed.geyser_port <= 65_535:
        raise UsageError("--geyser-port must be 0 (a free port) or 1 to 65535")
    slot_ms, pace_change = _pace(parsed.slot_ms)
    if not 0 <= parsed.warp_slot < _SLOTS_END:
        raise UsageError(f"--warp-slot must be 0 to {_SLOTS_END - 1}")
    if not 1 <= parsed.confirmed_slots <= parsed.finalized_slots:
        raise UsageError("--confirmed-slots must be at least 1, and --finalized-slots at least as many")
    return Options(
        config=LocalnetConfig(
            rpc_port=parsed.rpc_port,
            geyser_port=parsed.geyser_port,
            bind_address=parsed.bind_address,
            slot_ms=slot_ms,
            pace_change=pace_change,
            confirmed_slots=parsed.confirmed_slots,
            finalized_slots=parsed.finalized_slots,
            alpenglow_from=_alpenglow_from(parsed.consensus),
            reference_program=not parsed.no_program,
            programs=tuple(_program(*pair) for pair in parsed.bpf_program),
            accounts=tuple(_account(*pair) for pair in (*_of_directories(parsed.account_dir), *parsed.account)),
            first_slot=parsed.warp_slot,
            seed=parsed.seed,
        ),
        announce="json" if parsed.json else "nothing" if parsed.quiet else "text",
        with_markets=with_markets,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong by raising: the caller prints one line and not the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def _parser(program: str, *, has_markets: bool) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description="Serve an embedded Solana chain: a real VM behind JSON-RPC and WebSocket, in memory.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--rpc-port",
        type=int,
        default=DEFAULT_RPC_PORT,
        metavar="PORT",
        help="JSON-RPC port, the WebSocket is on the next one; 0 picks a free pair (default: %(default)s)",
    )
    add(
        "--geyser-port",
        type=int,
        metavar="PORT",
        help="serve Yellowstone gRPC (accounts and slots) on this port, too; 0 picks a free one",
    )
    add(
        "--bind-address",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s)",
    )
    add(
        "--bpf-program",
        nargs=2,
        action="append",
        default=[],
        metavar=("ID", "FILE"),
        help="deploy the program FILE.so at address ID; can be repeated (over RPC no program can be deployed)",
    )
    add(
        "--account",
        nargs=2,
        action="append",
        default=[],
        metavar=("ADDRESS", "FILE"),
        help="load an account as `solana account --output json` writes it; ADDRESS - takes the file's own; "
        "can be repeated",
    )
    add(
        "--account-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="load every account file (*.json) in DIR; can be repeated",
    )
    add("--no-program", action="store_true", help="do not deploy the reference program")
    if has_markets:
        add(
            "--with-markets",
            action="store_true",
            help="open markets whose prices walk; `keeper faucet` gives SOL and collateral to trade there",
        )
    add(
        "--slot-ms",
        default="400",
        metavar="MS",
        help="milliseconds between blocks; 400,200@SLOT changes them at that slot (default: %(default)s)",
    )
    add(
        "--confirmed-slots",
        type=int,
        default=1,
        metavar="N",
        help="blocks on top of a block that make it confirmed (default: %(default)s)",
    )
    add(
        "--finalized-slots",
        type=int,
        default=31,
        metavar="N",
        help="blocks on top of a block that make it finalized (default: %(default)s)",
    )
    add(
        "--consensus",
        default="towerbft",
        metavar="NAME",
        help="towerbft, alpenglow, or alpenglow@SLOT to turn to it at that slot: one block on top then makes a block "
        "confirmed and final at once (default: %(default)s)",
    )
    add("--seed", type=int, metavar="N", help="make the genesis hash, blockhashes and keys repeatable")
    add(
        "--warp-slot",
        "-w",
        type=int,
        default=0,
        metavar="SLOT",
        help="begin at this slot: it is final when the node takes requests (default: %(default)s)",
    )
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--json", action="store_true", help="print one JSON object when ready, and nothing else")
    said.add_argument("--quiet", "-q", action="store_true", help="print nothing when ready")
    in_memory = parser.add_argument_group(
        "taken so that a script for solana-test-validator runs as it is",
        "They change nothing: the chain is in memory, starts fresh and leaves no file.",
    )
    in_memory.add_argument("--reset", "-r", action="store_true", help="it always starts fresh")
    in_memory.add_argument("--ledger", "-l", metavar="DIR", help="nothing is written there")
    in_memory.add_argument("--limit-ledger-size", metavar="SHREDS", help="the history's memory has its own bound")
    return parser


def _pace(said: str) -> tuple[int, tuple[int, int] | None]:
    """Milliseconds between blocks, and from which slot on another number."""
    found = re.fullmatch(r"([1-9]\d{0,6})(?:,([1-9]\d{0,6})@(\d{1,14}))?", said, re.ASCII)
    if found is None:
        raise UsageError(f"--slot-ms {said}: say milliseconds of at least 1, or 400,200@SLOT to change them at a slot")
    first, second, slot = found.groups()
    return int(first), None if second is None else (int(slot), int(second))


def _alpenglow_from(consensus: str) -> int | None:
    name, at, slot = consensus.partition("@")
    if consensus == "towerbft":
        return None
    if name != "alpenglow" or (at and not (slot.isascii() and slot.isdigit() and int(slot) < _SLOTS_END)):
        raise UsageError(f"--consensus {consensus}: say towerbft, alpenglow, or alpenglow@SLOT")
    return int(slot or 0)


def _program(address: str, file: str) -> tuple[Pubkey, Path]:
    path = Path(file)
    try:
        with path.open("rb") as program:
            magic = program.read(4)
    except OSError as exc:
        raise UsageError(
            f"--bpf-program {address}: cannot read {file} ({exc.strerror}); give the path of a built .so"
        ) from exc
    if magic != b"\x7fELF":
        raise UsageError(f"--bpf-program {address}: {file} is not a program; give the path of a built .so")
    return _address(address, "--bpf-program"), path


class _AccountFields(msgspec.Struct):
    lamports: int
    data: tuple[str, str]
    owner: str
    executable: bool
    rent_epoch: int = msgspec.field(name="rentEpoch", default=0)


class _AccountFile(msgspec.Struct):
    account: _AccountFields
    pubkey: str


def _account(address: str, file: str) -> tuple[Pubkey, Account]:
    flag = f"--account {address}"
    try:
        read = msgspec.json.decode(Path(file).read_bytes(), type=_AccountFile)
    except OSError as exc:
        raise UsageError(f"{flag}: cannot read {file} ({exc.strerror}); give an account's JSON file") from exc
    except msgspec.DecodeError as exc:
        raise UsageError(f"{flag}: {file} is not what `solana account --output json` writes ({exc})") from exc
    fields = read.account
    text, encoding = fields.data
    if encoding != "base64":
        raise UsageError(f"{flag}: {file} has {encoding} data; write it again with `--output json`")
    try:
        data = b64decode(text, validate=True)
    except ValueError as exc:
        raise UsageError(f"{flag}: the data in {file} is not base64 ({exc})") from exc
    account = Account(
        fields.lamports,
        data,
        _address(fields.owner, f"{flag}: owner in {file}"),
        fields.executable,
        fields.rent_epoch,
    )
    return _address(read.pubkey if address == "-" else address, "--account"), account


def _of_directories(directories: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What `--account` would be given for each account file of the directories."""
    for directory in directories:
        if not Path(directory).is_dir():
            raise UsageError(f"--account-dir: {directory} is no directory; give one with account files (*.json)")
        yield from (("-", str(file)) for file in sorted(Path(directory).glob("*.json")))


def _address(text: str, where: str) -> Pubkey:
    try:
        return Pubkey.from_string(text)
    except ValueError as exc:
        raise UsageError(f"{where}: {text!r} is not a Solana address (base58 of 32 bytes)") from exc
