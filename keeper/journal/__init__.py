"""The journal room: the one source of truth about what was attempted.

`Journal.open` gives the journal; `ops` are what can be written, `records` what is read, `queries` what can be asked.
"""

from __future__ import annotations

from keeper.journal.genesis import GENESIS as GENESIS
from keeper.journal.genesis import PROGRAM as PROGRAM
from keeper.journal.genesis import refuse_anothers as refuse_anothers
from keeper.journal.homes import copy_to_postgres as copy_to_postgres
from keeper.journal.homes import home_of as home_of
from keeper.journal.journal import Followed as Followed
from keeper.journal.journal import Journal as Journal
from keeper.journal.journal import Observed as Observed
from keeper.journal.journal import Reader as Reader
from keeper.journal.looking import Holder as Holder
from keeper.journal.looking import Inspection as Inspection
from keeper.journal.looking import keeper_names as keeper_names
from keeper.journal.looking import market_lease as market_lease
from keeper.journal.looking import shares as shares
from keeper.journal.looking import unheld as unheld
from keeper.journal.looking import url_of as url_of
from keeper.journal.looking import workers as workers
from keeper.journal.looking import working_lease as working_lease
from keeper.journal.ops import AddAttempt as AddAttempt
from keeper.journal.ops import AddPrepared as AddPrepared
from keeper.journal.ops import AddSpend as AddSpend
from keeper.journal.ops import CountOfDay as CountOfDay
from keeper.journal.ops import DropPrepared as DropPrepared
from keeper.journal.ops import JournalConflict as JournalConflict
from keeper.journal.ops import LimitReached as LimitReached
from keeper.journal.ops import MoveAttempt as MoveAttempt
from keeper.journal.ops import MovePrepared as MovePrepared
from keeper.journal.ops import NoteOrder as NoteOrder
from keeper.journal.ops import NoteState as NoteState
from keeper.journal.ops import Op as Op
from keeper.journal.ops import ResetBudget as ResetBudget
from keeper.journal.ops import SetMeta as SetMeta
from keeper.journal.ops import UseBudget as UseBudget
from keeper.journal.queries import MARKET_NAME as MARKET_NAME
from keeper.journal.queries import Queries as Queries
from keeper.journal.records import FailureRow as FailureRow
from keeper.journal.records import OrderRow as OrderRow
from keeper.journal.records import PreparedKind as PreparedKind
from keeper.journal.records import PreparedRow as PreparedRow
from keeper.journal.records import PreparedStatus as PreparedStatus
from keeper.journal.records import Source as Source
from keeper.journal.retention import Pruned as Pruned
from keeper.journal.retention import Retention as Retention
from keeper.journal.store import Home as Home
