"""The files of the demo's keeper, as an operator would write them: a key and the settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from solders.keypair import Keypair

from keeper.demo.options import MAX_PRICE_AGE_S


def write_key(file: Path, key: Keypair) -> Path:
    """A keypair in the format of solana-keygen, readable by its owner alone."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(list(bytes(key)), out)
    return file


def write_settings(
    directory: Path, key: Path, chain: Mapping[str, str], *, name: str = "keeper", url: str | None = None
) -> Path:
    """A keeper's settings file; `chain` is the ready line of the chain. The journal is a file, or the database at a
    URL, in which `name` is the keeper's.
    """
    sections: dict[str, dict[str, object]] = {
        "rpc": {"url": chain["rpc_url"], "ws_url": chain["ws_url"]},
        "program": {"id": chain["program_id"]},
        "key": {"file": str(key)},
        "journal": {"path": str(directory / "keeper.sqlite")} if url is None else {"url": url},
        "cluster": {"name": name},
        # Small, so that a dead feed shows within seconds; coarse, so that a trailing stop costs few ratchets.
        "trigger": {"max_price_age_s": MAX_PRICE_AGE_S, "trailing_step_ppm": 5_000},
        # One client places for all of the demo's traders, on a node that is the demo's own.
        "http": {"port": 0, "requests_per_s": 0, "node_calls_per_s": 1_000},
        "log": {"format": "json"},
    }
    lines: list[str] = []
    for section, values in sections.items():
        # A JSON string or number is a TOML one, too.
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""]
    file = directory / f"{name}.toml"
    file.write_text("\n".join(lines))
    return file
