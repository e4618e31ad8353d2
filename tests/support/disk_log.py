"""What a process did to its disk and to the network, in order: which bytes went to a file, when that was made durable,
which transactions left. A kill -9 can't show a missing fsync, because the kernel's cache outlives the process.
"""

from __future__ import annotations

import base64
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

SOURCE: Final = Path(__file__).with_suffix(".c")
_SENT: Final = re.compile(rb'"sendTransaction","params":\["([A-Za-z0-9+/=]+)"')


class Step(NamedTuple):
    """`kind` is "w" for a write to the file at `path`, "s" for its fsync or fdatasync, "x" for a request that left."""

    kind: str
    path: str
    data: bytes


class NoCompiler(Exception):
    """The log can't be built here; the message says why."""


@dataclass(frozen=True, slots=True)
class DiskLog:
    """The steps of the processes that run in `environment`. Made by `build`."""

    file: Path
    environment: dict[str, str]

    @classmethod
    def build(cls, folder: Path, *, under: Path) -> DiskLog:
        """Build it in `folder`, for files under `under`. Raises NoCompiler."""
        if sys.platform != "linux":
            raise NoCompiler("it is preloaded by Linux' dynamic linker")
        library = folder / "disk_log.so"
        compiler = ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
        command = [*compiler, "-shared", "-fPIC", "-O2", str(SOURCE), "-o", str(library), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoCompiler(f"the compiler refused it: {done.stderr[-500:]}")
        file = folder / "disk.log"
        file.touch()
        return cls(file, {"LD_PRELOAD": str(library), "DISK_LOG": str(file), "DISK_LOG_UNDER": str(under)})

    def steps(self) -> list[Step]:
        """Everything so far, in order."""
        raw, at, steps = self.file.read_bytes(), 0, []
        while at < len(raw):
            kind, path_bytes, data_bytes = struct.unpack_from("=cII", raw, at)
            at += 9
            path = raw[at : at + path_bytes].decode()
            at += path_bytes
            steps.append(Step(kind.decode(), path, raw[at : at + data_bytes]))
            at += data_bytes
        return steps


def durable_at(steps: list[Step], token: bytes) -> int | None:
    """The step by which `token` was on the disk to stay: the first sync of a file after a write of it there."""
    for at, step in enumerate(steps):
        if step.kind == "w" and token in step.data:
            return next((i for i, s in enumerate(steps) if i > at and s.kind == "s" and s.path == step.path), None)
    return None


def sent(steps: list[Step]) -> list[tuple[int, bytes]]:
    """Each transaction that left, and at which step."""
    return [
        (at, base64.b64decode(wire))
        for at, step in enumerate(steps)
        if step.kind == "x"
        for wire in _SENT.findall(step.data)
    ]
