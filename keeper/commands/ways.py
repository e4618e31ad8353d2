"""By which ways an attempt was sent, and what each said of it: for people and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from solders.signature import Signature

    from keeper.domain.ways import WayRow

WAY_COLUMNS: Final = [
    "signed_at", "order", "market", "number", "state", "slot", "fee_lamports", "tip_lamports", "way", "sends", "answer",
    "after_s", "detail", "signature",
]  # fmt: skip


def way_lines(rows: Iterable[WayRow]) -> list[dict[str, Any]]:
    """Each way of one attempt. `after_s` is from its first send to its last answer, in seconds."""
    from keeper.commands.listing import utc

    return [
        {
            "way": row.way,
            "sends": row.sends,
            "sent_at": utc(row.sent_at),
            "answer": None if row.answer is None else row.answer.value,
            "detail": row.detail,
            "after_s": None if row.answered_at is None else round(row.answered_at - row.sent_at, 3),
        }
        for row in rows
    ]


def with_ways(
    lines: Sequence[dict[str, Any]], known: Mapping[Signature, Sequence[WayRow]], *, apart: bool
) -> list[dict[str, Any]]:
    """The attempts' lines with their ways: in a list, or `apart`, in a line for each."""
    ways = {str(signature): way_lines(rows) for signature, rows in known.items()}
    if not apart:
        return [{**line, "ways": ways.get(line["signature"], [])} for line in lines]
    return [row for line in lines for row in _apart(line, ways.get(line["signature"], []))]


def way_sentence(ways: Sequence[Mapping[str, Any]]) -> str:
    """All ways of one attempt in one sentence."""
    return ", ".join(
        f"{way['way']} {way['answer'] or 'said nothing'}"
        + (f" ({way['detail']})" if way["detail"] else "")
        + (f", sent {way['sends']} times" if way["sends"] > 1 else "")
        for way in ways
    )


def _apart(line: dict[str, Any], ways: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    unknown = {"way": None, "sends": None, "answer": None, "after_s": None}
    for way in ways or [unknown]:
        yield {**line, "detail": None, **way}
