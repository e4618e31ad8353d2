"""A journal belongs to one chain."""

from __future__ import annotations

from typing import Final

from keeper.domain.errors import Misconfigured

GENESIS: Final = "genesis_hash"
"""Where the journal remembers which chain it belongs to."""


def refuse_another_chain(journal: str, known: str | None, genesis: str | None) -> None:
    """Misconfigured when this journal knows a chain, and it is another one."""
    if known not in (None, genesis):
        raise Misconfigured(
            f"The journal {journal} belongs to another chain (genesis {known}, this one is {genesis}).",
            remedy="Give each chain a journal of its own: set journal.path, or journal.url.",
        )
