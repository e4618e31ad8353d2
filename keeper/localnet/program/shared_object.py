"""Writes linked code and constants as the shared object that a Solana VM loads.

It is an ELF64 file of type ET_DYN in which every address is a file offset. The VM's loader

- turns a call that `.rel.dyn` names into a syscall, by the symbol's name (R_BPF_64_32);
- moves an address that the code loads to where it maps the file (R_BPF_64_RELATIVE);
- takes any other call as relative to the program counter, in instructions.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

EM_BPF: Final = 247
SHF_ALLOC: Final = 0x2
R_BPF_64_RELATIVE: Final = 8
R_BPF_64_32: Final = 10
INSTRUCTION_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the output: an offset into the code or into the read-only data."""

    segment: str
    offset: int


@dataclass(slots=True)
class Image:
    """The output while it grows."""

    text: bytearray = field(default_factory=bytearray)
    rodata: bytearray = field(default_factory=bytearray)
    globals: dict[str, Place] = field(default_factory=dict)
    addresses: list[tuple[int, Place]] = field(default_factory=list)  # of a 64-bit load, and what it loads
    syscalls: list[tuple[int, str]] = field(default_factory=list)  # of a call, and what it calls


def append(segment: bytearray, content: bytes, alignment: int) -> int:
    """Append the content at the next aligned offset, and return the offset."""
    segment.extend(bytes(-len(segment) % max(alignment, 1)))
    offset = len(segment)
    segment.extend(content)
    return offset


def set_immediate(text: bytearray, at: int, value: int) -> None:
    """Set the 32-bit immediate of the instruction at an offset of the code."""
    struct.pack_into("<i", text, at + 4, value)


@dataclass(frozen=True, slots=True)
class _Section:
    """One section of the output, by the fields of its header."""

    name: str
    type: int
    flags: int
    content: bytes
    link: int = 0
    info: int = 0
    alignment: int = 8
    entry_size: int = 0


_SHT_PROGBITS, _SHT_STRTAB, _SHT_DYNAMIC, _SHT_REL, _SHT_DYNSYM = 1, 3, 6, 9, 11
_SHF_EXECINSTR: Final = 0x4
_EHDR_SIZE, _PHDR_SIZE, _SHDR_SIZE = 64, 56, 64
_PT_LOAD, _PT_DYNAMIC = 1, 2
_PF_X, _PF_R = 1, 4
_DYNSYM, _DYNSTR = 4, 5  # indices of these sections, for the headers that point at them


def write(image: Image, entry: int) -> bytes:
    """Lay the image out as a file. Every address is a file offset."""
    text_at = _EHDR_SIZE + 4 * _PHDR_SIZE
    rodata_at = text_at + len(image.text) + -len(image.text) % 8
    bases = {"text": text_at, "rodata": rodata_at}
    for at, target in image.addresses:
        set_immediate(image.text, at, bases[target.segment] + target.offset)
        set_immediate(image.text, at + INSTRUCTION_SIZE, 0)

    names = sorted({name for _, name in image.syscalls})
    dynstr, name_offsets = _string_table(names)
    symbol_format = "<IBBHQQ"  # name, info (global, no type), other, section (undefined), value, size
    dynsym = bytes(24) + b"".join(struct.pack(symbol_format, name_offsets[n], 0x10, 0, 0, 0, 0) for n in names)
    relative = [(text_at + at, R_BPF_64_RELATIVE) for at, _ in sorted(image.addresses, key=lambda a: a[0])]
    named = [(text_at + at, names.index(name) + 1 << 32 | R_BPF_64_32) for at, name in sorted(image.syscalls)]
    rel_dyn = b"".join(struct.pack("<QQ", *entry) for entry in relative + named)

    dynamic_at = rodata_at + len(image.rodata) + -len(image.rodata) % 8
    dynsym_at = dynamic_at + 11 * 16
    dynstr_at = dynsym_at + len(dynsym)
    rel_at = dynstr_at + len(dynstr) + -len(dynstr) % 8
    dynamic = b"".join(
        struct.pack("<QQ", tag, value)
        for tag, value in (
            (30, 4),  # DT_FLAGS: DF_TEXTREL, the loader writes into the code
            (17, rel_at),  # DT_REL
            (18, len(rel_dyn)),  # DT_RELSZ
            (19, 16),  # DT_RELENT
            (0x6FFFFFFA, len(relative)),  # DT_RELCOUNT: the relative ones come first
            (6, dynsym_at),  # DT_SYMTAB
            (11, 24),  # DT_SYMENT
            (5, dynstr_at),  # DT_STRTAB
            (10, len(dynstr)),  # DT_STRSZ
            (22, 0),  # DT_TEXTREL
            (0, 0),  # DT_NULL
        )
    )
    sections = [
        _Section(".text", _SHT_PROGBITS, SHF_ALLOC | _SHF_EXECINSTR, bytes(image.text)),
        _Section(".rodata", _SHT_PROGBITS, SHF_ALLOC, bytes(image.rodata)),
        _Section(".dynamic", _SHT_DYNAMIC, SHF_ALLOC, dynamic, link=_DYNSTR, entry_size=16),
        _Section(".dynsym", _SHT_DYNSYM, SHF_ALLOC, dynsym, link=_DYNSTR, info=1, entry_size=24),
        _Section(".dynstr", _SHT_STRTAB, SHF_ALLOC, dynstr, alignment=1),
        _Section(".rel.dyn", _SHT_REL, SHF_ALLOC, rel_dyn, link=_DYNSYM, entry_size=16),
    ]
    segments = [
        (_PT_LOAD, _PF_R | _PF_X, text_at, len(image.text)),
        (_PT_LOAD, _PF_R, rodata_at, len(image.rodata)),
        (_PT_LOAD, _PF_R, dynamic_at, rel_at + len(rel_dyn) - dynamic_at),
        (_PT_DYNAMIC, _PF_R, dynamic_at, len(dynamic)),
    ]
    return _assemble(sections, segments, text_at, text_at + entry)


def _assemble(
    sections: Sequence[_Section], segments: Sequence[tuple[int, int, int, int]], text_at: int, entry: int
) -> bytes:
    shstrtab, name_offsets = _string_table([*(s.name for s in sections), ".shstrtab"])
    body, headers = bytearray(text_at), [bytes(_SHDR_SIZE)]
    for section in (*sections, _Section(".shstrtab", _SHT_STRTAB, 0, shstrtab, alignment=1)):
        at = append(body, section.content, section.alignment)
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ",
                name_offsets[section.name],
                section.type,
                section.flags,
                at if section.flags & SHF_ALLOC else 0,
                at,
                len(section.content),
                section.link,
                section.info,
                section.alignment,
                section.entry_size,
            )
        )
    headers_at = append(body, b"".join(headers), 8)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian, version 1
    struct.pack_into(
        "<16sHHIQQQIHHHHHH",
        body,
        0,
        ident,
        3,  # ET_DYN
        EM_BPF,
        1,
        entry,
        _EHDR_SIZE,
        headers_at,
        0,
        _EHDR_SIZE,
        _PHDR_SIZE,
        len(segments),
        _SHDR_SIZE,
        len(headers),
        len(headers) - 1,
    )
    for index, (kind, flags, at, size) in enumerate(segments):
        struct.pack_into("<IIQQQQQQ", body, _EHDR_SIZE + index * _PHDR_SIZE, kind, flags, at, at, at, size, size, 8)
    return bytes(body)


def _string_table(names: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    """Return the table, and where each name begins in it."""
    table, offsets = bytearray(1), {}
    for name in names:
        offsets[name] = len(table)
        table += name.encode() + b"\0"
    return bytes(table), offsets
