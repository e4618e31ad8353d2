"""A journal belongs to one chain, and to one program there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keeper.domain.errors import Misconfigured

GENESIS: Final = "genesis_hash"
"""Where the journal remembers which chain it belongs to."""
PROGRAM: Final = "program"
"""The same of the program's address."""


def refuse_anothers(journal: str, known: Mapping[str, str | None], genesis: str | None, program: str | None) -> None:
    """Misconfigured when this journal knows a chain or a program, and it is another one. None: which is not known."""
    for key, what, found in ((GENESIS, "chain (genesis", genesis), (PROGRAM, "program (address", program)):
        if found is not None and known.get(key) not in (None, found):
            raise Misconfigured(
                f"The journal {journal} belongs to another {what} {known[key]}, this one is {found}).",
                remedy="Give each program on each chain a journal of its own: set journal.path, or journal.url.",
            )
