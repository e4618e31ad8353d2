"""The linker: what it makes runs, and what it cannot make it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction
from solders.transaction_metadata import TransactionMetadata

from keeper.localnet.program.build import COMPILER_FLAGS, BuildError, build, compile_sources
from keeper.localnet.program.link import LinkError, link

Link = Callable[..., bytes]
Part = TypeVar("Part")
LOG = "unsigned long sol_log_(const char *, unsigned long);"


def _of(kind: type[Part], section: object) -> Part:
    assert isinstance(section, kind)
    return section


@pytest.fixture
def linked(tmp_path: Path) -> Link:
    """Compile each source, `name=text`, and link them in that order."""

    def make(flags: tuple[str, ...] = COMPILER_FLAGS, **sources: str) -> bytes:
        objects = {}
        for name, text in sources.items():
            source, output = tmp_path / f"{name}.c", tmp_path / f"{name}.o"
            source.write_text(text + "\n")
            command = [sys.executable, "-m", "ziglang", "cc", *flags, "-c", str(source), "-o", str(output)]
            subprocess.run(command, check=True, capture_output=True)
            objects[f"{name}.c"] = output.read_bytes()
        return link(objects)

    return make


def run(svm: LiteSVM, program: bytes) -> list[str]:
    address, payer = Pubkey.new_unique(), Keypair()
    svm.add_program(address, program)
    svm.airdrop(payer.pubkey(), 10**9)
    message = Message([Instruction(address, b"", [])], payer.pubkey())
    result = svm.send_transaction(Transaction([payer], message, svm.latest_blockhash()))
    assert isinstance(result, TransactionMetadata), result
    return [line.removeprefix("Program log: ") for line in result.logs() if line.startswith("Program log: ")]


def test_functions_and_constants_are_found_across_objects(svm: LiteSVM, linked: Link) -> None:
    program = linked(
        one=f"""{LOG}
            extern const char words[3][8];
            unsigned long say(unsigned long);
            static __attribute__((noinline)) unsigned long twice(unsigned long n) {{ say(n); return say(n); }}
            unsigned long entrypoint(const void *input);
            unsigned long entrypoint(const void *input) {{
                sol_log_("begin", 5);
                twice(*(const unsigned long *)input + 2);
                return say(1);
            }}""",
        two=f"""{LOG}
            extern const char words[3][8];
            const char words[3][8] = {{"zero", "one", "two"}};
            unsigned long say(unsigned long n);
            unsigned long say(unsigned long n) {{ sol_log_(words[n], 3); return 0; }}""",
    )
    assert run(svm, program) == ["begin", "two", "two", "one"]


def test_every_address_is_a_file_offset(linked: Link) -> None:
    program = linked(
        one=f'{LOG} unsigned long entrypoint(void); unsigned long entrypoint(void) {{ return sol_log_("a", 1); }}'
    )
    elf = ELFFile(BytesIO(program))
    sections = {s.name: s for s in elf.iter_sections()}
    assert list(sections) == ["", ".text", ".rodata", ".dynamic", ".dynsym", ".dynstr", ".rel.dyn", ".shstrtab"]
    assert all(s["sh_addr"] == s["sh_offset"] for s in sections.values() if s["sh_flags"])
    assert (elf.header["e_type"], elf.header["e_machine"]) == ("ET_DYN", "EM_BPF")
    text = sections[".text"]
    assert text["sh_addr"] <= elf.header["e_entry"] < text["sh_addr"] + text["sh_size"]
    assert [r["r_info_type"] for r in _of(RelocationSection, sections[".rel.dyn"]).iter_relocations()] == [8, 10]
    assert [s.name for s in _of(SymbolTableSection, sections[".dynsym"]).iter_symbols()] == ["", "sol_log_"]
    for segment in elf.iter_segments():
        assert segment["p_vaddr"] == segment["p_offset"]
        assert segment["p_offset"] + segment["p_filesz"] <= len(program)


ENTRY = "unsigned long entrypoint(void); unsigned long entrypoint(void)"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"a": "int f(void); int f(void) { return 1; }"}, "no object defines the function 'entrypoint'"),
        ({"a": "extern const int entrypoint; const int entrypoint = 1;"}, "no object defines the function"),
        ({"a": f"int n = 1; {ENTRY} {{ return ++n; }}"}, r"a\.c: writable data in \.data"),
        ({"a": f"static int n; {ENTRY} {{ return ++n; }}"}, r"a\.c: writable data in \.bss"),
        ({"a": f"int f(void); {ENTRY} {{ return f(); }}"}, r"a\.c: f is called, defined nowhere, and no syscall"),
        ({"a": f"extern const int n; {ENTRY} {{ return n; }}"}, r"a\.c: n is used as data and defined nowhere"),
        (
            {"a": f"{ENTRY} {{ return 0; }}", "b": f"{ENTRY} {{ return 1; }}"},
            r"b\.c: entrypoint is defined in another object as well",
        ),
        (
            {"a": f"const char *const p[] = {{\"x\", \"y\"}}; {ENTRY} {{ return *p[*(volatile unsigned long *)8]; }}"},
            r"a\.c: \.rel\.rodata relocates data",
        ),
        (
            {"a": f"extern const int f; {ENTRY} {{ return ((int (*)(void))&f)(); }}",
             "b": "extern const int f; const int f = 1;"},
            r"a\.c: f is called and is not a function",
        ),
        ({"a": f"{ENTRY} {{ return (*(int (*volatile *)(void))8)(); }}"}, r"call through a pointer at \.text\+0x"),
    ],
)  # fmt: skip
def test_what_no_program_can_have(linked: Link, sources: dict[str, str], message: str) -> None:
    with pytest.raises(LinkError, match=message):
        linked(**sources)


def test_what_the_vm_would_misread(linked: Link) -> None:
    flags = tuple(f.replace("-mcpu=v2", "-mcpu=v3") for f in COMPILER_FLAGS)
    text = f"{ENTRY} {{ unsigned n = *(volatile unsigned *)8; return n * 3; }}"
    with pytest.raises(LinkError, match=r"32-bit instruction 0x[0-9a-f]+ at \.text\+0x"):
        linked(flags, a=text)


def test_what_is_no_object(linked: Link) -> None:
    with pytest.raises(LinkError, match="notes: not an ELF object"):
        link({"notes": b"no ELF at all"})
    host = Path(sys.executable).resolve().read_bytes()
    with pytest.raises(LinkError, match="python: not a little-endian 64-bit BPF object"):
        link({"python": host})


def test_an_unknown_relocation_is_named(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text(f'{LOG} {ENTRY} {{ return sol_log_("a", 1); }}\n')
    [(name, content)] = compile_sources(tmp_path, tmp_path).items()
    elf = ELFFile(BytesIO(content))
    offset = _of(RelocationSection, elf.get_section_by_name(".rel.text"))["sh_offset"] + 8
    changed = bytearray(content)
    changed[offset] = 99
    with pytest.raises(LinkError, match=r"a\.c: relocation of type 99 at \.rel\.text\+0x"):
        link({name: bytes(changed)})


def test_a_source_that_does_not_compile_is_a_build_error(tmp_path: Path) -> None:
    (tmp_path / "broken.c").write_text("int f(void) { return x; }\n")
    with pytest.raises(BuildError, match=r"cannot compile broken\.c:\n(.|\n)*undeclared"):
        build(tmp_path)
