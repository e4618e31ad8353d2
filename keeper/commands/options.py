"""The options and arguments that several commands take, and how flags become settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keeper.domain.errors import Misconfigured

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from keeper.config.settings import Settings

FLAGS: Final[dict[str, Any]] = {
    "rpc.url": Annotated[str | None, typer.Option("--rpc-url", help="RPC endpoint; the setting rpc.url.")],
    "rpc.ws_url": Annotated[str | None, typer.Option("--ws-url", help="WebSocket endpoint; the setting rpc.ws_url.")],
    "key.file": Annotated[Path | None, typer.Option("--key", help="Keypair file; the setting key.file.")],
    "program.id": Annotated[str | None, typer.Option("--program-id", help="The setting program.id.")],
    "program.idl": Annotated[
        str | None, typer.Option("--idl", help='"0.1", "0.2" or a file; the setting program.idl.')
    ],
    "journal.path": Annotated[Path | None, typer.Option("--journal", help="Journal file; the setting journal.path.")],
    "http.host": Annotated[str | None, typer.Option("--host", help="Where the API listens; the setting http.host.")],
    "http.port": Annotated[int | None, typer.Option("--port", help="Port of the API; the setting http.port.")],
    "execution.dry_run": Annotated[bool | None, typer.Option("--dry-run", help="Do everything but send.")],
    "log.level": Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")],
}
"""The flags that stand for settings: `keeper run` and `keeper check` take them all."""

_Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file (TOML).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MOST_ROWS: Final = 1_000
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST_ROWS, help="How many rows at most.")]
NewFile = Annotated[Path, typer.Argument(help="File to write; it must not exist.")]
OrderAddress = Annotated[str, typer.Argument(help="The order account's address.")]


def address(text: str, what: str) -> Pubkey:
    """An address as it was typed, of `what`. Misconfigured when it is none."""
    from solders.pubkey import Pubkey

    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise Misconfigured(f"{text!r} is no address of {what}.", remedy="Give 32 bytes in base58.") from None


@dataclass(frozen=True, slots=True)
class Given:
    """Where a command's settings come from: the file, and the flags that were given, by section."""

    config: Path | None
    flags: dict[str, dict[str, Any]]

    def settings(self) -> Settings:
        """Settings from the flags, the environment and the file. Misconfigured names what is wrong."""
        from keeper.config.loading import load_settings

        return load_settings(self.config, self.flags)


def takes_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--config` and a flag for each of these settings. It gets them together, as `given`."""
    annotations = {"config": _Config, **{name.replace(".", "_"): FLAGS[name] for name in names}}
    flags = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in annotations.items()]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**values: Any) -> None:
            given = Given(values.pop("config"), {})
            for name in names:
                section, _, field = name.partition(".")
                value = values.pop(name.replace(".", "_"))
                if value is not None:
                    given.flags.setdefault(section, {})[field] = value
            if "path" in given.flags.get("journal", {}):
                given.flags["journal"]["url"] = None  # the file that was asked for, whatever the settings say
            command(given, **values)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        called.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        return called

    return decorate
