"""The journal room: one SQLite file that is the one source of truth about what was attempted.

`Journal.open` gives the journal; `ops` are what can be written, `records` what is read, `queries` what can be asked.
"""

from __future__ import annotations

from keeper.journal.journal import Journal
from keeper.journal.ops import (
    AddAttempt,
    AddPrepared,
    AddSpend,
    JournalConflict,
    MoveAttempt,
    MovePrepared,
    Note,
    NoteOrder,
    NoteState,
    Op,
    ResetBudget,
    SetMeta,
    UseBudget,
)
from keeper.journal.records import (
    ChangePage,
    ChangeRow,
    FailureRow,
    OrderRow,
    Page,
    PreparedKind,
    PreparedRow,
    PreparedStatus,
    Source,
)
from keeper.journal.retention import Pruned, Retention
from keeper.journal.sqlite.inspection import Inspection, inspect
from keeper.journal.sqlite.maintenance import Finding, backup, export, vacuum, verify
from keeper.journal.sqlite.queries import Queries
from keeper.journal.writer import GroupDone

__all__ = [
    "AddAttempt",
    "AddPrepared",
    "AddSpend",
    "ChangePage",
    "ChangeRow",
    "FailureRow",
    "Finding",
    "GroupDone",
    "Inspection",
    "Journal",
    "JournalConflict",
    "MoveAttempt",
    "MovePrepared",
    "Note",
    "NoteOrder",
    "NoteState",
    "Op",
    "OrderRow",
    "Page",
    "PreparedKind",
    "PreparedRow",
    "PreparedStatus",
    "Pruned",
    "Queries",
    "ResetBudget",
    "Retention",
    "SetMeta",
    "Source",
    "UseBudget",
    "backup",
    "export",
    "inspect",
    "vacuum",
    "verify",
]
