"""The whole error tree, named by what the caller does next.

Foreign errors (sockets, JSON-RPC, SQLite, the program's own) are translated into these once, at the edge of
the room that meets them. A message says what is wrong and what to do, and never holds a credential: an
endpoint is named by its label, not by its URL.
"""

from __future__ import annotations


class KeeperError(Exception):
    """The root: every error that the keeper raises on purpose."""


class Misconfigured(KeeperError):
    """Nothing works until an operator changes something. The commands exit with 2.

    `remedy` is the sentence that says what to change.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.remedy = remedy


class DryRun(KeeperError):
    """The keeper runs dry: it sends nothing, so what would have to be sent is not taken."""


class ChainError(KeeperError):
    """Something about the chain or the way to it. Raised only by its subclasses."""


class Transient(ChainError):
    """It may work when asked again: a socket, a timeout, a 5xx, a node that is behind.

    For a send it means that the outcome is UNKNOWN: only the same bytes may be sent again.
    """


class RateLimited(Transient):
    """The endpoint asked for a pause, by HTTP 429 or as a JSON-RPC error.

    `retry_after_s` is what it asked for, in seconds; None when it did not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotServed(Transient):
    """This endpoint does not serve the request: a wrong key or path in its URL, a plan without the method. Another
    endpoint may.
    """


class Rejected(ChainError):
    """The node or the program refused this request; the same request will be refused again.

    `code` is the JSON-RPC error code. `logs` are the simulation's, when the node gave them; `err` is the
    transaction error in the RPC's JSON shape, when there is one.
    """

    def __init__(
        self, message: str, *, code: int | None = None, err: object = None, logs: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.err = err
        self.logs = logs


class BehindNode(Transient):
    """The node has not reached the slot that was asked for (minContextSlot, JSON-RPC -32016)."""


class MalformedAccount(ChainError):
    """An account's bytes do not decode as the type that was asked for. It is logged once and skipped."""


class MalformedReply(Transient):
    """A reply that is not the JSON-RPC answer to the request: HTML, truncated JSON, another id."""


class JournalError(KeeperError):
    """The journal can't be written or read. Sending stops until it can."""


class JournalAway(JournalError):
    """The journal, which this process has worked with, can't be used now: its server does not answer, or its disk is
    full. It may when it is asked again.
    """


class ForeignCursor(JournalError):
    """A page was asked for with a cursor that this journal did not give."""


class JournalBusy(JournalError):
    """Another keeper holds this journal. Two writers would send twice, so the second refuses to start."""


class StandBy(JournalBusy):
    """Another keeper of the same service holds the lease; this one may take over when that ends."""


class LeaseLost(JournalError):
    """Another keeper of the same service has taken over: this process must not go on with what it knows."""


class HandedOver(JournalError):
    """An operator had this keeper give the lease to another: it stands by from now on."""


class ShareMoved(JournalError):
    """The keepers share the markets, and this one is to work on others than it does: it begins anew with those."""


class JournalVersion(JournalError):
    """The journal was written by a newer keeper than this one."""


class DuplicateAttempt(JournalError):
    """The order already has an attempt that could still land, or has ended by what the journal knows: no second."""


def first_of(error: BaseException) -> BaseException:
    """The error itself, out of the groups that task groups have put around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
