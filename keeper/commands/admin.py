"""`keeper status`, `pause`, `resume` and `failures retry`: what an operator asks of a running keeper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper.commands import EXIT_FAILED, options
from keeper.commands.remote import TOKEN_VARIABLE, call, operators_token, url_from

TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"File with the operator's token; else {TOKEN_VARIABLE} in the environment."),
]


def status(
    config: options.Config = None, host: options.Host = None, port: options.Port = None, as_json: options.AsJson = False
) -> None:
    """Show how a running keeper is: ready or not, and each part of it. Exit code 1 when it is not ready."""
    health = call(url_from(config, host, port), "GET", "/healthz")
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
    config: options.Config = None,
    host: options.Host = None,
    port: options.Port = None,
    token_file: TokenOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Sign and send nothing new, until `keeper resume`; through restarts too. What was sent is still followed."""
    answer = _ask("pause", url_from(config, host, port), token_file, {"reason": reason})
    _say(answer, as_json, f"The keeper is {answer['paused']}.")


def resume(
    config: options.Config = None,
    host: options.Host = None,
    port: options.Port = None,
    token_file: TokenOption = None,
    as_json: options.AsJson = False,
) -> None:
    """End a pause. Orders that the present price meets are executed at once."""
    answer = _ask("resume", url_from(config, host, port), token_file)
    _say(answer, as_json, "The keeper goes on.")


def retry(
    order: options.OrderAddress,
    config: options.Config = None,
    host: options.Host = None,
    port: options.Port = None,
    token_file: TokenOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Give a failed order its retry budget back; it rests again, until the price meets its condition."""
    answer = _ask(f"orders/{options.order_address(order)}/retry", url_from(config, host, port), token_file)
    _say(answer, as_json, f"The order {order} rests again.")


def _ask(path: str, url: str, token_file: Path | None, body: dict[str, Any] | None = None) -> dict[str, Any]:
    return call(url, "POST", f"/v1/admin/{path}", token=operators_token(token_file), body=body)


def _say(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    print(json.dumps(answer) if as_json else sentence)
