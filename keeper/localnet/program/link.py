"""Links BPF objects into a program: puts their sections together and resolves what they refer to.

No stock linker makes what a Solana VM loads. What the VM cannot hold or would misunderstand is a `LinkError`
here, never a file that fails there.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from keeper.localnet.program.shared_object import (
    EM_BPF,
    INSTRUCTION_SIZE,
    R_BPF_64_32,
    SHF_ALLOC,
    Image,
    Place,
    append,
    set_immediate,
    write,
)

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

_SHF_WRITE: Final = 0x1
_R_BPF_64_64: Final = 1
_LDDW, _CALL, _CALL_REGISTER = 0x18, 0x85, 0x8D
_ALU32, _JMP32 = 0x04, 0x06  # instruction classes, the opcode's low three bits
_BYTE_SWAPS: Final = frozenset({0xD4, 0xDC})  # of class ALU32 by encoding only


class LinkError(Exception):
    """The objects cannot become a program; the message says which and why."""


@dataclass(frozen=True, slots=True)
class _Object:
    """One input, and where its sections went in the output, by section index."""

    name: str
    elf: Any
    bases: Mapping[int, Place]


def link(objects: Mapping[str, bytes]) -> bytes:
    """Return the program made of the objects, given by the names that errors call them.

    The same objects in the same order give the same bytes. Raises LinkError.
    """
    image = Image()
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
    return write(image, entry.offset)


def _load(image: Image, name: str, content: bytes) -> _Object:
    """Append the object's code and read-only data to the image."""
    try:
        elf = ELFFile(BytesIO(content))
    except ELFError as error:
        raise LinkError(f"{name}: not an ELF object: {error}") from error
    if elf.elfclass != 64 or not elf.little_endian or elf.header["e_machine"] not in ("EM_BPF", EM_BPF):
        raise LinkError(f"{name}: not a little-endian 64-bit BPF object")
    bases: dict[int, Place] = {}
    for index, section in enumerate(elf.iter_sections()):
        flags, size = section["sh_flags"], section["sh_size"]
        # .eh_frame is for unwinding, which the VM never does.
        if not flags & SHF_ALLOC or not size or section.name == ".eh_frame":
            continue
        if flags & _SHF_WRITE:
            raise LinkError(f"{name}: writable data in {section.name} ({size} bytes); a program has none")
        if section.name == ".text" or section.name.startswith(".text."):
            bases[index] = Place("text", append(image.text, section.data(), INSTRUCTION_SIZE))
        elif section.name == ".rodata" or section.name.startswith(".rodata."):
            bases[index] = Place("rodata", append(image.rodata, section.data(), section["sh_addralign"]))
        else:
            raise LinkError(f"{name}: section {section.name} has no place in a program")
    return _Object(name, elf, bases)


def _define_globals(image: Image, item: _Object) -> None:
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


def _relocate(image: Image, item: _Object, section: Any, base: Place) -> None:
    symbols = item.elf.get_section(section["sh_link"])
    for relocation in section.iter_relocations():
        at = base.offset + relocation["r_offset"]
        symbol = symbols.get_symbol(relocation["r_info_sym"])
        target = _resolve(image, item, symbol)
        kind, opcode = relocation["r_info_type"], image.text[at]
        if kind == _R_BPF_64_64 and opcode == _LDDW:
            if target is None:
                raise LinkError(f"{item.name}: {symbol.name} is used as data and defined nowhere")
            low, high = _immediate(image.text, at), _immediate(image.text, at + INSTRUCTION_SIZE)
            addend = high << 32 | low & 0xFFFFFFFF
            image.addresses.append((at, Place(target.segment, target.offset + addend)))
        elif kind == R_BPF_64_32 and opcode == _CALL:
            _relocate_call(image, item, at, symbol, target)
        else:
            raise LinkError(
                f"{item.name}: relocation of type {kind} at {section.name}+{relocation['r_offset']:#x}"
                f" (opcode {opcode:#x}, symbol {symbol.name!r}) is not one that a program can have"
            )


def _resolve(image: Image, item: _Object, symbol: Any) -> Place | None:
    if symbol["st_shndx"] == "SHN_UNDEF":
        return image.globals.get(symbol.name)
    return _defined_at(item, symbol)


def _relocate_call(image: Image, item: _Object, at: int, symbol: Any, target: Place | None) -> None:
    if target is None:
        if symbol.name not in SYSCALLS:
            raise LinkError(f"{item.name}: {symbol.name} is called, defined nowhere, and no syscall")
        set_immediate(image.text, at, -1)
        image.syscalls.append((at, symbol.name))
        return
    if target.segment != "text":
        raise LinkError(f"{item.name}: {symbol.name} is called and is not a function")
    # Against a section's symbol the immediate holds the function's distance from it, less one.
    addend = _immediate(image.text, at) + 1 if symbol["st_info"]["type"] == "STT_SECTION" else 0
    distance = (target.offset - at) // INSTRUCTION_SIZE - 1 + addend
    set_immediate(image.text, at, distance)


def _check_instructions(image: Image) -> None:
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
        at += 2 * INSTRUCTION_SIZE if opcode == _LDDW else INSTRUCTION_SIZE


def _immediate(text: bytearray, at: int) -> int:
    return int(struct.unpack_from("<i", text, at + 4)[0])
