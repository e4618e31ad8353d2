"""What a request costs beyond being one: a row in the journal, a call of the chain's node."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from keeper.http.edge.answering import client, part
from keeper.http.edge.clients import Rates
from keeper.http.edge.elsewhere import CHARGED
from keeper.solana.allowance import ASKING

WRITE: Final = 50
"""So many requests one counts as that writes to the journal: executions write there, too."""


def charge(request: Request, requests: int) -> str:
    """Let the client pay for so many requests instead of one, now or before its next ones; the client. What another
    keeper forwarded was paid for there.

    From now on this request asks the chain in its client's name (`keeper.solana.allowance`).
    """
    who = client(request)
    if not request.scope["state"][CHARGED]:
        part(request, Rates).charge(who, requests - 1)
    ASKING.set(who)
    return who
