"""The options that several commands take, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from solders.pubkey import Pubkey

from keeper.config.settings import Settings, load_settings
from keeper.errors import Misconfigured

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings file (TOML).", show_default=False),
]
RpcOption = Annotated[str | None, typer.Option("--rpc-url", help="RPC endpoint; the setting rpc.url.")]
WsOption = Annotated[str | None, typer.Option("--ws-url", help="WebSocket endpoint; the setting rpc.ws_url.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="Keypair file; the setting key.file.")]
ProgramOption = Annotated[str | None, typer.Option("--program-id", help="The setting program.id.")]
IdlOption = Annotated[str | None, typer.Option("--idl", help='"0.1", "0.2" or a file; the setting program.idl.')]
JournalOption = Annotated[Path | None, typer.Option("--journal", help="Journal file; the setting journal.path.")]
HostOption = Annotated[str | None, typer.Option("--host", help="Where the API listens; the setting http.host.")]
PortOption = Annotated[int | None, typer.Option("--port", help="Port of the API; the setting http.port.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many rows at most.")]


def address_of(text: str, what: str) -> Pubkey:
    """An address that was typed. Misconfigured names it when it is none."""
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise Misconfigured(f"{text!r} is no address of an {what}.", remedy="Give 32 bytes in base58.") from None


def given(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags that were given, by section: those left out are None."""
    flags = {name: {k: v for k, v in values.items() if v is not None} for name, values in sections.items()}
    return {name: values for name, values in flags.items() if values}


def settings_from(config: Path | None, **sections: dict[str, Any]) -> Settings:
    """Settings from the file, the environment and these flags."""
    return load_settings(config, given(**sections))
