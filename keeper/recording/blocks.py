"""A recording as a file: a first line that says what it is, then blocks, each whole or not there.

    qdkeeper-recording 1\\n
    block*    u32 length, u32 CRC-32 of the bytes that follow, both little-endian; a zstd frame of so many bytes,
              which holds a MessagePack array of entries

A block that is cut short, or whose sum is wrong, ends what can be read: whoever writes on cuts it off first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import zstandard

from keeper.domain.errors import KeeperError, Misconfigured
from keeper.recording.entries import PAGE, Entry

VERSION: Final = 1
_MAGIC: Final = b"qdkeeper-recording "
HEAD: Final = b"%b%d\n" % (_MAGIC, VERSION)
_BLOCK: Final = struct.Struct("<II")
_ENTRIES_A_BLOCK: Final = 1_024
_MOST_BYTES: Final = 64 << 20
"""No block is so long, packed or not; one that says so is none."""
_encode: Final = msgspec.msgpack.Encoder().encode


def blocks(entries: Sequence[Entry]) -> Iterator[bytes]:
    """The entries in whole blocks. A page of the book is one by itself: it is as large as thousands of others."""
    pack = zstandard.ZstdCompressor(level=3).compress
    some: list[Entry] = []
    for entry in entries:
        if some and (len(some) >= _ENTRIES_A_BLOCK or entry[0] == PAGE or some[-1][0] == PAGE):
            yield _block(pack(_encode(some)))
            some = []
        some.append(entry)
    if some:
        yield _block(pack(_encode(some)))


def _block(packed: bytes) -> bytes:
    return _BLOCK.pack(len(packed), zlib.crc32(packed)) + packed


@dataclass
class Reading:
    """A recording that is read from its beginning. `torn`: bytes at its end that are not whole, known at the end."""

    path: Path
    size: int = 0
    at: int = 0
    torn: int = 0

    def entries(self) -> Iterator[list[Entry]]:
        """The entries, block by block. Misconfigured when the file can't be read, or is none of this version."""
        decoder = msgspec.msgpack.Decoder()
        with _opened(self.path) as file:
            self.size = file.seek(0, 2)
            file.seek(0)
            self.at = _check_head(self.path, file)
            unpack = zstandard.ZstdDecompressor().decompress
            for packed in _whole(file):
                try:
                    some = decoder.decode(unpack(packed, max_output_size=_MOST_BYTES))
                except (zstandard.ZstdError, msgspec.MsgspecError) as e:
                    # Its sum is right: this is how it was written.
                    raise KeeperError(f"{self.path} has a block at byte {self.at} that does not decode: {e}") from None
                self.at += _BLOCK.size + len(packed)
                yield some
        self.torn = self.size - self.at


def whole_bytes(path: Path) -> int:
    """How many bytes of a recording are whole, from its beginning; 0 when it has not even its first line."""
    with _opened(path) as file:
        return _check_head(path, file) + sum(_BLOCK.size + len(packed) for packed in _whole(file))


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as e:
        raise Misconfigured(f"The recording {path} can't be read: {e.strerror}.", remedy="Give another file.") from None


def _check_head(path: Path, file: BinaryIO) -> int:
    head = file.readline(64)
    if head == HEAD:
        return len(head)
    if HEAD.startswith(head):
        return 0  # whoever made it was killed before anything was written
    if not head.startswith(_MAGIC):
        raise Misconfigured(f"{path} is no recording of the keeper.", remedy="Give a file of the folder record.folder.")
    version = head.removeprefix(_MAGIC).strip().decode("ascii", "replace")
    raise Misconfigured(
        f"{path} is a recording of format {version}, and this keeper reads format {VERSION}.",
        remedy="Replay it with the keeper that wrote it: the file says which, in its first entry.",
    )


def _whole(file: BinaryIO) -> Iterator[bytes]:
    """What the whole blocks hold, packed, up to the first that is not whole."""
    while len(head := file.read(_BLOCK.size)) == _BLOCK.size:
        length, crc = _BLOCK.unpack(head)
        packed = file.read(length) if length <= _MOST_BYTES else b""
        if len(packed) < length or not length or zlib.crc32(packed) != crc:
            return
        yield packed
