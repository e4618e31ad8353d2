"""Generates the code of Yellowstone's messages beside their `.proto`: `python -m tests.support.stubs` (make proto).

A test fails when what is committed is not what the `.proto` builds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from grpc_tools import protoc

ROOT: Final = Path(__file__).parents[2]
PROTO: Final = "keeper/yellowstone/geyser.proto"
BUILT: Final = ("keeper/yellowstone/geyser_pb2.py", "keeper/yellowstone/geyser_pb2.pyi")


def build(into: Path) -> None:
    """Generate into this folder, as if it were the project's root."""
    code = protoc.main(["protoc", f"-I{ROOT}", f"--python_out={into}", f"--pyi_out={into}", PROTO])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
