"""`keeper keygen`: a key for the keeper."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from keeper.errors import Misconfigured


def keygen(file: Annotated[Path, typer.Argument(help="File to write; it must not exist.")]) -> None:
    """Make a key for the keeper, in the format of solana-keygen, readable by you alone."""
    from solders.keypair import Keypair

    keypair = Keypair()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise Misconfigured(f"The file {file} can't be made: {e.strerror}.", remedy="Give another name.") from e
    with os.fdopen(descriptor, "w") as out:
        json.dump(list(bytes(keypair)), out)
    print(f"Wrote {file}. Send SOL for fees to {keypair.pubkey()}.")
