"""Builds the reference program: `python -m keeper.localnet.program.build [--check]`.

Compiles every file in `src/` with the C compiler of the PyPI package `ziglang`, links them, and writes the
`.so` beside this file. `--check` builds too, and compares the bytes with those of the committed file instead.
The bytes depend on the source and on the compiler's version, not on the machine or on where the source lies.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keeper.localnet.program import PROGRAM_SO
from keeper.localnet.program.link import LinkError, link

SOURCE_DIR: Final = Path(__file__).with_name("src")

COMPILER_FLAGS: Final = (
    "-target",
    "bpfel-freestanding",
    # Version 2 of the instruction set: the VM has no 32-bit jumps, and its 32-bit arithmetic differs.
    "-mcpu=v2",
    "-std=c23",
    "-O2",
    "-ffreestanding",
    "-fno-builtin",
    # A table that a switch jumps or looks up through would hold pointers, which constants must not.
    "-fno-jump-tables",
    "-fno-asynchronous-unwind-tables",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Werror",
    # The VM's frames are 4 KiB, eight times what the back end takes for granted.
    "-mllvm",
    "-bpf-stack-size=4096",
)


class BuildError(Exception):
    """The compiler is missing or refused the source; the message is what to show."""


def compile_sources(source_dir: Path, object_dir: Path) -> dict[str, bytes]:
    """Return the object of every C file, by the file's name, in the order of the names."""
    objects: dict[str, bytes] = {}
    for source in sorted(source_dir.glob("*.c")):
        output = object_dir / f"{source.stem}.o"
        # In the source's own directory and by its bare name, so that no path gets into the object.
        command = [sys.executable, "-m", "ziglang", "cc", *COMPILER_FLAGS, "-c", source.name, "-o", str(output)]
        done = subprocess.run(command, cwd=source_dir, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise BuildError(f"cannot compile {source.name}:\n{done.stderr.strip()}")
        objects[source.name] = output.read_bytes()
    return objects


def build(source_dir: Path = SOURCE_DIR) -> bytes:
    """Compile and link; return the program. Raises BuildError or LinkError."""
    with tempfile.TemporaryDirectory() as object_dir:
        return link(compile_sources(source_dir, Path(object_dir)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or check; return the exit code, 0 or 1."""
    parser = argparse.ArgumentParser(prog="build", description="Build the reference program from its C source.")
    parser.add_argument("--check", action="store_true", help="compare with the committed .so, write nothing")
    options = parser.parse_args(arguments)
    try:
        program = build()
    except (BuildError, LinkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not options.check:
        PROGRAM_SO.write_bytes(program)
        print(f"{PROGRAM_SO.name}: {len(program)} bytes")
        return 0
    committed = PROGRAM_SO.read_bytes() if PROGRAM_SO.exists() else b""
    if committed != program:
        print(
            f"error: {PROGRAM_SO.name} ({len(committed)} bytes) is not what its source builds"
            f" ({len(program)} bytes). Run `make program` and commit the result.",
            file=sys.stderr,
        )
        return 1
    print(f"{PROGRAM_SO.name} is what its source builds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
