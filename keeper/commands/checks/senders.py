"""What the senders say: each speaks JSON-RPC and takes its token, and the accounts that tips go to are there."""

from __future__ import annotations

from typing import Any, Final

import anyio
import msgspec

from keeper.app.endpoints import senders_of
from keeper.commands.asking import DEADLINE_S
from keeper.commands.checks.lines import Lines
from keeper.config.settings import Settings
from keeper.domain.errors import ChainError
from keeper.solana.account_stream import NOT_JSON
from keeper.solana.client import ChainClient
from keeper.solana.http1 import HttpTransport

_NO_TRANSACTION: Final = msgspec.json.encode(
    {"jsonrpc": "2.0", "id": 1, "method": "sendTransaction", "params": ["", {"encoding": "base64"}]}
)
"""What a sender refuses, if it is one: nothing is sent by it."""
_NOT_SERVED: Final = -32601
_REMEDY: Final = "Check its url, kind and token in rpc.senders. Until then executions go by the other ways."


async def senders(client: ChainClient, settings: Settings, lines: Lines) -> None:
    """Each sender. The keeper runs without them."""
    transports: dict[str, HttpTransport] = {}

    def made(url: str, label: str, **more: Any) -> HttpTransport:
        transports[label] = HttpTransport(url, label, **more)
        return transports[label]

    for sender in lines.try_to("rpc", lambda: senders_of(settings.rpc, made)) or ():
        name = f"sender {sender.name}"
        try:
            with anyio.fail_after(DEADLINE_S):
                status, _, content = await transports[sender.name].post(_NO_TRANSACTION)
        except ChainError as e:
            lines.warn(name, sender.shown(e).removeprefix(f"{sender.name}: "), _REMEDY)
            continue
        except TimeoutError:
            lines.warn(name, f"no answer within {DEADLINE_S:g} s", _REMEDY)
            continue
        finally:
            await sender.aclose()
        if (wrong := _wrong(status, content)) is not None:
            lines.warn(name, wrong, _REMEDY)
        elif missing := await _missing(client, sender.tip_accounts):
            detail = f"no account is there to take a tip: {missing}"
            lines.warn(
                name, detail, "Take tip_accounts from its provider's list: such a tip fails the whole transaction."
            )
        else:
            lines.passed(
                name, "takes transactions" + (", and its tip accounts are there" if sender.tip_accounts else "")
            )


def _wrong(status: int, content: bytes) -> str | None:
    """What is wrong with the answer to what is no transaction; None when it is refused as it should be."""
    if status in (401, 403):
        return f"it refuses the token or the key (HTTP {status})"
    if status == 429:
        return None
    try:
        answer = msgspec.json.decode(content)
    except NOT_JSON:
        answer = None
    if isinstance(answer, dict) and "result" in answer:
        return "it accepts what is no transaction, so its answers say nothing"
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return f"it speaks something else than JSON-RPC (HTTP {status})"
    return "it serves no sendTransaction" if error.get("code") == _NOT_SERVED else None


async def _missing(client: ChainClient, accounts: Any) -> str:
    """Those of the accounts that are not on chain; nothing is said when that can't be read."""
    try:
        _, found = await client.accounts(list(accounts), data_slice=(0, 0))
    except ChainError:
        return ""
    return ", ".join(str(address) for address, account in zip(accounts, found, strict=True) if account is None)
