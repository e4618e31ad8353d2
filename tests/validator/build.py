"""`make validator`: a solana-test-validator in the user's cache, built from its registry crate or unpacked.

It is Agave's own, of the version that `keeper.demo.validator` names. A build takes about 30 minutes on two cores, some
GB of disk for as long as it lasts, and Rust with Debian's packages below. `--archive FILE.xz` unpacks one that was
built before.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from keeper.demo.validator import NAME, VERSION, cache

TOOLS = {
    "cargo": "Rust (https://rustup.rs)",
    "protoc": "protobuf-compiler",
    "clang": "clang and libclang-dev",
    "pkg-config": "pkg-config, libudev-dev and libssl-dev",
}
"""What the build calls, and what a Debian machine gets it from."""

PROFILE = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "64",
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_STRIP": "symbols",
}
"""Built for a test's machine: a quarter of the time of Agave's own profile, and fast enough for one node."""


def main() -> int:
    """Exit codes: 0 it is in the cache and runs, 1 it could not be made, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="make validator", description=__doc__)
    parser.add_argument("--archive", type=Path, help=f"an xz file with the binary of {NAME} {VERSION}")
    given = parser.parse_args()
    binary = cache()
    if not binary.exists():
        if given.archive is not None and not given.archive.is_file():
            parser.error(f"--archive: there is no file {given.archive}")
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
            made = _unpacked(given.archive, Path(folder)) if given.archive is not None else _built(Path(folder))
            if made is None:
                return 1
            made.chmod(0o755)
            # In one step, so that an interrupted run leaves no half a binary behind.
            made.replace(binary)
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    if VERSION not in said.stdout:
        print(f"{binary} does not run here: {(said.stderr or said.stdout).strip()}", file=sys.stderr)
        return 1
    print(f"{binary}: {said.stdout.strip()}")
    return 0


def _unpacked(archive: Path, folder: Path) -> Path:
    print(f"Unpacking {archive.name}", file=sys.stderr)
    made = folder / NAME
    with lzma.open(archive) as packed, made.open("wb") as out:
        shutil.copyfileobj(packed, out)
    return made


def _built(folder: Path) -> Path | None:
    lacking = [f"{tool} ({source})" for tool, source in TOOLS.items() if shutil.which(tool) is None]
    if lacking:
        print(f"The build needs what is not on the PATH: {', '.join(lacking)}.", file=sys.stderr)
        return None
    print(f"Building {NAME} {VERSION} from its crate: about 30 minutes on two cores", file=sys.stderr)
    command = ["cargo", "install", "agave-validator", "--version", VERSION, "--locked", "--bin", NAME]
    command += ["--root", str(folder / "root"), "--target-dir", str(folder / "target")]
    done = subprocess.run(command, env=os.environ | PROFILE, check=False)
    if done.returncode:
        print("The build failed; what cargo said is above.", file=sys.stderr)
        return None
    return folder / "root" / "bin" / NAME


if __name__ == "__main__":
    sys.exit(main())
