"""`keeper keygen` and `keeper admin-token`: a new secret, in a new file that its owner alone can read."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path

from keeper.commands import options
from keeper.domain.errors import Misconfigured


def keygen(file: options.NewFile) -> None:
    """Make a key for the keeper, in the format of solana-keygen, readable by you alone."""
    from solders.keypair import Keypair

    keypair = Keypair()
    _write_secret(file, json.dumps(list(bytes(keypair))))
    print(f"Wrote {file}. Send SOL for fees to {keypair.pubkey()}.")


def admin_token(file: options.NewFile) -> None:
    """Make an operator's token, readable by you alone, and print the setting that lets the keeper know it."""
    token = secrets.token_urlsafe(32)
    _write_secret(file, token + "\n")
    print(f"Wrote {file}. The keeper knows it by this setting, under [http]:")
    print(f'admin_token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"')


def _write_secret(file: Path, text: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise Misconfigured(f"The file {file} can't be made: {e.strerror}.", remedy="Give another name.") from e
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
