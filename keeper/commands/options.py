"""The options and arguments that several commands take, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeper.domain.errors import Misconfigured

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from keeper.config.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings file (TOML).", show_default=False),
]
RpcUrl = Annotated[str | None, typer.Option("--rpc-url", help="RPC endpoint; the setting rpc.url.")]
WsUrl = Annotated[str | None, typer.Option("--ws-url", help="WebSocket endpoint; the setting rpc.ws_url.")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="Keypair file; the setting key.file.")]
ProgramId = Annotated[str | None, typer.Option("--program-id", help="The setting program.id.")]
Idl = Annotated[str | None, typer.Option("--idl", help='"0.1", "0.2" or a file; the setting program.idl.')]
JournalFile = Annotated[Path | None, typer.Option("--journal", help="Journal file; the setting journal.path.")]
Host = Annotated[str | None, typer.Option("--host", help="Where the API listens; the setting http.host.")]
Port = Annotated[int | None, typer.Option("--port", help="Port of the API; the setting http.port.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many rows at most.")]
NewFile = Annotated[Path, typer.Argument(help="File to write; it must not exist.")]
OrderAddress = Annotated[str, typer.Argument(help="The order account's address.")]


def order_address(text: str) -> Pubkey:
    """An order's address as it was typed. Misconfigured when it is no address."""
    from solders.pubkey import Pubkey

    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise Misconfigured(f"{text!r} is no address of an order.", remedy="Give 32 bytes in base58.") from None


def given(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags that were given, by section: those left out are None."""
    flags = {name: {k: v for k, v in values.items() if v is not None} for name, values in sections.items()}
    return {name: values for name, values in flags.items() if values}


def settings_from(config: Path | None, **sections: dict[str, Any]) -> Settings:
    """Settings from the file, the environment and these flags."""
    from keeper.config.loading import load_settings

    return load_settings(config, given(**sections))


def journal_path(config: Path | None, journal: Path | None) -> Path:
    """The journal's file: the flag, else the setting."""
    return journal or settings_from(config).journal.path
