"""Keys in files: read, and refused when others can read them too."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
from solders.keypair import Keypair

from keeper.domain.errors import Misconfigured


def load_keypair(file: Path, setting: str = "key.file") -> Keypair:
    """A keypair from the JSON that solana-keygen writes: 64 numbers. Misconfigured says what is wrong with it: it can't
    be read, it is no keypair, or another user can read or change it. `setting` is where the file was named.
    """
    try:
        raw = file.read_bytes()
        mode = file.stat().st_mode
    except OSError as e:
        raise Misconfigured(f"The key file {file} can't be read: {e.strerror}.", remedy=f"Check {setting}.") from e
    try:
        keypair = Keypair.from_bytes(bytes(msgspec.json.decode(raw, type=list[int])))
    except (msgspec.MsgspecError, ValueError) as e:
        raise Misconfigured(
            f"The key file {file} is not a keypair (64 numbers in a JSON list).",
            remedy="Make one with `solana-keygen new -o FILE` or `keeper keygen FILE`.",
        ) from e
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        raise Misconfigured(f"The key file {file} can be read or changed by others.", remedy=f"chmod 600 {file}")
    return keypair
