"""`keeper status`, `pause`, `resume`, `failures retry`: an operator's hands on a running keeper, through its API."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper.commands import EXIT_FAILED
from keeper.commands.options import ConfigOption, HostOption, JsonOption, PortOption, address_of, settings_from
from keeper.commands.remote import TOKEN_VARIABLE, call, operators_token
from keeper.errors import Misconfigured

TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"File with the operator's token; else {TOKEN_VARIABLE} in the environment."),
]


def add_to(cli: typer.Typer, failures: typer.Typer) -> None:
    """Add the commands; `retry` goes to `failures`."""
    for command in (status, pause, resume):
        cli.command()(command)
    cli.command("admin-token")(admin_token)
    failures.command("retry")(retry)


def status(
    config: ConfigOption = None, host: HostOption = None, port: PortOption = None, as_json: JsonOption = False
) -> None:
    """Show how a running keeper is: ready or not, and each part of it. Exit code 1 when it is not ready."""
    health = call(_url(config, host, port), "GET", "/healthz", None)
    if as_json:
        print(json.dumps(health))
    else:
        print("ready" if health["ready"] else "not ready")
        for check in health["checks"]:
            print(f"  {'ok  ' if check['ok'] else 'FAIL'}  {check['name']:<10} {check['detail']}".rstrip())
    if not health["ready"]:
        raise typer.Exit(EXIT_FAILED)


def pause(
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for whoever finds it paused.")] = "",
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign and send nothing new, until `keeper resume`; through restarts too. What was sent is still followed."""
    answer = call(_url(config, host, port), "POST", "/v1/admin/pause", operators_token(token_file), {"reason": reason})
    _say(answer, as_json, f"The keeper is {answer['paused']}.")


def resume(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a pause. Orders that the present price meets are executed at once."""
    answer = call(_url(config, host, port), "POST", "/v1/admin/resume", operators_token(token_file))
    _say(answer, as_json, "The keeper goes on.")


def retry(
    order: Annotated[str, typer.Argument(help="The order account's address.")],
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a failed order its retry budget back; it rests again, until the price meets its condition."""
    path = f"/v1/admin/orders/{address_of(order, 'order')}/retry"
    answer = call(_url(config, host, port), "POST", path, operators_token(token_file))
    _say(answer, as_json, f"The order {order} rests again.")


def admin_token(file: Annotated[Path, typer.Argument(help="File to write; it must not exist.")]) -> None:
    """Make an operator's token, readable by you alone, and print the setting that lets the keeper know it."""
    token = secrets.token_urlsafe(32)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise Misconfigured(f"The file {file} can't be made: {e.strerror}.", remedy="Give another name.") from e
    with os.fdopen(descriptor, "w") as out:
        out.write(token + "\n")
    print(f"Wrote {file}. The keeper knows it by this setting, under [http]:")
    print(f'admin_token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"')


def _url(config: Path | None, host: str | None, port: int | None) -> str:
    from keeper.commands.checks.running import url_of

    return url_of(settings_from(config, http={"host": host, "port": port}).http)


def _say(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    print(json.dumps(answer) if as_json else sentence)
