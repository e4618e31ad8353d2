"""Cross-origin requests, on the Actions' paths only: wallets and blinks call those from pages of other hosts."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET,POST,PUT,OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, Content-Encoding, Accept-Encoding, "
    "X-Accept-Action-Version, X-Accept-Blockchain-Ids",
    "Access-Control-Expose-Headers": "X-Action-Version, X-Blockchain-Ids",
    "Access-Control-Max-Age": "86400",
}
_ACTION_VERSION: Final = "2.4"
_CHAIN_ID_CHARACTERS: Final = 32
"""CAIP-2 names a Solana cluster by the first characters of its genesis hash."""


class ActionsCors:
    """Adds the headers that the Actions specification asks for, to errors as well, and answers preflights."""

    def __init__(self, app: ASGIApp, genesis: str | None) -> None:
        self._app = app
        self._headers = {**_HEADERS, "X-Action-Version": _ACTION_VERSION}
        if genesis is not None:
            self._headers["X-Blockchain-Ids"] = f"solana:{genesis[:_CHAIN_ID_CHARACTERS]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is not the Actions'."""
        if scope["type"] != "http" or not is_actions(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        answer = Response(status_code=204) if scope["method"] == "OPTIONS" else self._app
        await answer(scope, receive, sending)


def is_actions(path: str) -> bool:
    """Whether the path is one of the Actions'."""
    return path == "/actions.json" or path.startswith("/actions/")
