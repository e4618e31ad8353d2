"""Links BPF objects into the shared object that a Solana VM loads.

No stock linker does, but the format is small: an ELF64 file of type ET_DYN in which every address is a
file offset, with the code, the read-only data, and what the loader needs to relocate both. The loader

- turns a call that `.rel.dyn` names into a syscall, by the symbol's name (R_BPF_64_32);
- moves an address that the code loads to where it maps the file (R_BPF_64_RELATIVE);
- takes any other call as relative to the program counter, in instructions.

Whatever the VM cannot hold or would misunderstand is a `LinkError` here, never a file that fails there.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

ENTRYPOINT: Final = "entrypoint"

SYSCALLS: Final = frozenset(
    {
        "abort",
        "sol_panic_",
        "sol_log_",
        "sol_log_64_",
        "sol_log_pubkey",
        "sol_log_compute_units_",
        "sol_log_data",
        "sol_memcpy_",
        "sol_memmove_",
        "sol_memset_",
        "sol_memcmp_",
        "sol_sha256",
        "sol_keccak256",
        "sol_blake3",
        "sol_secp256k1_recover",
        "sol_create_program_address",
        "sol_try_find_program_address",
        "sol_invoke_signed_c",
        "sol_invoke_signed_rust",
        "sol_set_return_data",
        "sol_get_return_data",
        "sol_get_processed_sibling_instruction",
        "sol_get_stack_height",
        "sol_get_clock_sysvar",
        "sol_get_rent_sysvar",
        "sol_get_epoch_schedule_sysvar",
        "sol_get_last_restart_slot",
        "sol_get_epoch_rewards_sysvar",
        "sol_get_sysvar",
        "sol_remaining_compute_units",
    }
)
"""The undefined symbols that a program may call."""

_EM_BPF: Final = 247
_SHF_WRITE, _SHF_ALLOC = 0x1, 0x2
_R_BPF_64_64, _R_BPF_64_RELATIVE, _R_BPF_64_32 = 1, 8, 10
_INSTRUCTION_SIZE: Final = 8
_LDDW, _CALL, _CALL_REGISTER = 0x18, 0x85, 0x8D
_ALU32, _JMP32 = 0x04, 0x06  # instruction classes, the opcode's low three bits
_BYTE_SWAPS: Final = frozenset({0xD4, 0xDC})  # of class ALU32 by encoding only


class LinkError(Exception):
    """The objects cannot become a program; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the output: an offset into the code or into the read-only data."""

    segment: str
    offset: int


@dataclass(frozen=True, slots=True)
class _Object:
    """One input, and where its sections went in the output, by section index."""

    name: str
    elf: Any
    bases: Mapping[int, Place]


@dataclass(slots=True)
class _Image:
    """The output while it grows."""

    text: bytearray = field(default_factory=bytearray)
    rodata: bytearray = field(default_factory=bytearray)
    globals: dict[str, Place] = field(default_factory=dict)
    addresses: list[tuple[int, Place]] = field(default_factory=list)  # of a 64-bit load, and what it loads
    syscalls: list[tuple[int, str]] = field(default_factory=list)  # of a call, and what it calls


def link(objects: Mapping[str, bytes]) -> bytes:
    """Return the program made of the objects, given by the names that errors call them.

    The same objects in the same order give the same bytes. Raises LinkError.
    """
    image = _Image()
    loaded = [_load(image, name, content) for name, content in objects.items()]
    for item in loaded:
        _define_globals(image, item)
    for item in loaded:
        for section, base in _code_sections(item):
            _relocate(image, item, section, base)
    _check_instructions(image)
    entry = image.globals.get(ENTRYPOINT)
    if entry is None or entry.segment != "text":
        raise LinkError(f"no object defines the function {ENTRYPOINT!r}, where the VM begins")
    return _write(image, entry.offset)


def _load(image: _Image, name: str, content: bytes) -> _Object:
    """Append the object's code and read-only data to the image."""
    try:
        elf = ELFFile(BytesIO(content))
    except ELFError as error:
        raise LinkError(f"{name}: not an ELF object: {error}") from error
    if elf.elfclass != 64 or not elf.little_endian or elf.header["e_machine"] not in ("EM_BPF", _EM_BPF):
        raise LinkError(f"{name}: not a little-endian 64-bit BPF object")
    bases: dict[int, Place] = {}
    for index, section in enumerate(elf.iter_sections()):
        flags, size = section["sh_flags"], section["sh_size"]
        # .eh_frame is for unwinding, which the VM never does.
        if not flags & _SHF_ALLOC or not size or section.name == ".eh_frame":
            continue
        if flags & _SHF_WRITE:
            raise LinkError(f"{name}: writable data in {section.name} ({size} bytes); a program has none")
        if section.name == ".text" or section.name.startswith(".text."):
            bases[index] = Place("text", _append(image.text, section.data(), _INSTRUCTION_SIZE))
        elif section.name == ".rodata" or section.name.startswith(".rodata."):
            bases[index] = Place("rodata", _append(image.rodata, section.data(), section["sh_addralign"]))
        else:
            raise LinkError(f"{name}: section {section.name} has no place in a program")
    return _Object(name, elf, bases)


def _append(segment: bytearray, content: bytes, alignment: int) -> int:
    segment.extend(bytes(-len(segment) % max(alignment, 1)))
    offset = len(segment)
    segment.extend(content)
    return offset


def _define_globals(image: _Image, item: _Object) -> None:
    for symbol in item.elf.get_section_by_name(".symtab").iter_symbols():
        if symbol["st_info"]["bind"] == "STB_LOCAL" or symbol["st_shndx"] == "SHN_UNDEF":
            continue
        if symbol["st_shndx"] == "SHN_COMMON":
            raise LinkError(f"{item.name}: {symbol.name} is writable data; a program has none")
        if symbol.name in image.globals:
            raise LinkError(f"{item.name}: {symbol.name} is defined in another object as well")
        image.globals[symbol.name] = _defined_at(item, symbol)


def _defined_at(item: _Object, symbol: Any) -> Place:
    base = item.bases.get(symbol["st_shndx"])
    if base is None:
        raise LinkError(f"{item.name}: {symbol.name or 'a symbol'} lies in a section that is not linked")
    return Place(base.segment, base.offset + int(symbol["st_value"]))


def _code_sections(item: _Object) -> Iterator[tuple[Any, Place]]:
    """Yield each relocation section with the place of the code that it is about."""
    for section in item.elf.iter_sections():
        if section["sh_type"] not in ("SHT_REL", "SHT_RELA"):
            continue
        base = item.bases.get(section["sh_info"])
        if base is None:
            continue
        if base.segment != "text" or section["sh_type"] == "SHT_RELA":
            raise LinkError(f"{item.name}: {section.name} relocates data; keep pointers out of constants")
        yield section, base


def _relocate(image: _Image, item: _Object, section: Any, base: Place) -> None:
    symbols = item.elf.get_section(section["sh_link"])
    for relocation in section.iter_relocations():
        at = base.offset + relocation["r_offset"]
        symbol = symbols.get_symbol(relocation["r_info_sym"])
        target = _resolve(image, item, symbol)
        kind, opcode = relocation["r_info_type"], image.text[at]
        if kind == _R_BPF_64_64 and opcode == _LDDW:
            if target is None:
                raise LinkError(f"{item.name}: {symbol.name} is used as data and defined nowhere")
            low, high = _immediate(image.text, at), _immediate(image.text, at + _INSTRUCTION_SIZE)
            addend = high << 32 | low & 0xFFFFFFFF
            image.addresses.append((at, Place(target.segment, target.offset + addend)))
        elif kind == _R_BPF_64_32 and opcode == _CALL:
            _relocate_call(image, item, at, symbol, target)
        else:
            raise LinkError(
                f"{item.name}: relocation of type {kind} at {section.name}+{relocation['r_offset']:#x}"
                f" (opcode {opcode:#x}, symbol {symbol.name!r}) is not one that a program can have"
            )


def _resolve(image: _Image, item: _Object, symbol: Any) -> Place | None:
    if symbol["st_shndx"] == "SHN_UNDEF":
        return image.globals.get(symbol.name)
    return _defined_at(item, symbol)


def _relocate_call(image: _Image, item: _Object, at: int, symbol: Any, target: Place | None) -> None:
    if target is None:
        if symbol.name not in SYSCALLS:
            raise LinkError(f"{item.name}: {symbol.name} is called, defined nowhere, and no syscall")
        _set_immediate(image.text, at, -1)
        image.syscalls.append((at, symbol.name))
        return
    if target.segment != "text":
        raise LinkError(f"{item.name}: {symbol.name} is called and is not a function")
    # Against a section's symbol the immediate holds the function's distance from it, less one.
    addend = _immediate(image.text, at) + 1 if symbol["st_info"]["type"] == "STT_SECTION" else 0
    distance = (target.offset - at) // _INSTRUCTION_SIZE - 1 + addend
    _set_immediate(image.text, at, distance)


def _check_instructions(image: _Image) -> None:
    """Refuse what the VM reads otherwise than the compiler means.

    It sign-extends the results of 32-bit arithmetic, and looks for a called register elsewhere.
    """
    at = 0
    while at < len(image.text):
        opcode = image.text[at]
        if opcode & 7 in (_ALU32, _JMP32) and opcode not in _BYTE_SWAPS:
            raise LinkError(f"32-bit instruction {opcode:#x} at .text+{at:#x}; compile for BPF v1 or v2")
        if opcode == _CALL_REGISTER:
            raise LinkError(f"call through a pointer at .text+{at:#x}; call functions by name")
        at += 2 * _INSTRUCTION_SIZE if opcode == _LDDW else _INSTRUCTION_SIZE


def _immediate(text: bytearray, at: int) -> int:
    return int(struct.unpack_from("<i", text, at + 4)[0])


def _set_immediate(text: bytearray, at: int, value: int) -> None:
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


def _write(image: _Image, entry: int) -> bytes:
    """Lay the image out as a file. Every address is a file offset."""
    text_at = _EHDR_SIZE + 4 * _PHDR_SIZE
    rodata_at = text_at + len(image.text) + -len(image.text) % 8
    bases = {"text": text_at, "rodata": rodata_at}
    for at, target in image.addresses:
        _set_immediate(image.text, at, bases[target.segment] + target.offset)
        _set_immediate(image.text, at + _INSTRUCTION_SIZE, 0)

    names = sorted({name for _, name in image.syscalls})
    dynstr, name_offsets = _string_table(names)
    symbol_format = "<IBBHQQ"  # name, info (global, no type), other, section (undefined), value, size
    dynsym = bytes(24) + b"".join(struct.pack(symbol_format, name_offsets[n], 0x10, 0, 0, 0, 0) for n in names)
    relative = [(text_at + at, _R_BPF_64_RELATIVE) for at, _ in sorted(image.addresses, key=lambda a: a[0])]
    named = [(text_at + at, names.index(name) + 1 << 32 | _R_BPF_64_32) for at, name in sorted(image.syscalls)]
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
        _Section(".text", _SHT_PROGBITS, _SHF_ALLOC | _SHF_EXECINSTR, bytes(image.text)),
        _Section(".rodata", _SHT_PROGBITS, _SHF_ALLOC, bytes(image.rodata)),
        _Section(".dynamic", _SHT_DYNAMIC, _SHF_ALLOC, dynamic, link=_DYNSTR, entry_size=16),
        _Section(".dynsym", _SHT_DYNSYM, _SHF_ALLOC, dynsym, link=_DYNSTR, info=1, entry_size=24),
        _Section(".dynstr", _SHT_STRTAB, _SHF_ALLOC, dynstr, alignment=1),
        _Section(".rel.dyn", _SHT_REL, _SHF_ALLOC, rel_dyn, link=_DYNSYM, entry_size=16),
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
        at = _append(body, section.content, section.alignment)
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ",
                name_offsets[section.name],
                section.type,
                section.flags,
                at if section.flags & _SHF_ALLOC else 0,
                at,
                len(section.content),
                section.link,
                section.info,
                section.alignment,
                section.entry_size,
            )
        )
    headers_at = _append(body, b"".join(headers), 8)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian, version 1
    struct.pack_into(
        "<16sHHIQQQIHHHHHH",
        body,
        0,
        ident,
        3,  # ET_DYN
        _EM_BPF,
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
