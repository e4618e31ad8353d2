"""The commands of a document: its indented blocks, and what a reader puts in their blanks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "install.md"
SERVICE = "A service under systemd"


def blocks(document: Path, heading: str) -> list[str]:
    """The indented blocks below `## heading`, in order, as they stand there. LookupError when there are none."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", document.read_text(), re.M | re.S)
    found = re.findall(r"(?:^    .*\n)+", section[1], re.M) if section else []
    if not found:
        raise LookupError(f"{document} has no commands below {heading!r}")
    return ["".join(line[4:] for line in block.splitlines(keepends=True)) for block in found]


def filled(commands: list[str], blanks: Mapping[str, str]) -> list[str]:
    """The same with every blank filled in. LookupError for a blank that is in none of them: it has changed."""
    for blank in blanks:
        if not any(blank in block for block in commands):
            raise LookupError(f"nothing in the document says {blank!r}")
    for blank, value in blanks.items():
        commands = [block.replace(blank, value) for block in commands]
    return commands


def with_setting(toml: str, name: str, value: str) -> str:
    """A settings file as `make docs` writes it, with `section.key` set. LookupError when it has no such line."""
    section, _, key = name.partition(".")
    before, heading, after = toml.partition(f"[{section}]\n")
    changed, count = re.subn(rf"(?m)^#{key} = [^\n]*$", f'{key} = "{value}"', after, count=1)
    if not heading or not count:
        raise LookupError(f"the settings file has no line for {name}")
    return before + heading + changed
