"""What a request costs beyond being one: a row in the journal, a call of the chain's node."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from keeper.http.edge.answering import part
from keeper.http.edge.clients import Rates, client_of
from keeper.http.ports import ApiPorts
from keeper.solana.allowance import ASKING

WRITE: Final = 50
"""So many requests one counts as that writes to the journal: executions write there, too."""


def charge(request: Request, requests: int) -> str:
    """Let the client pay for so many requests instead of one, now or before its next ones; the client.

    From now on this request asks the chain in its client's name (`keeper.solana.allowance`).
    """
    address = "" if request.client is None else request.client.host
    client = client_of(address, part(request, ApiPorts).tokens.name_of(request.headers.get("authorization")))
    part(request, Rates).charge(client, requests - 1)
    ASKING.set(client)
    return client
