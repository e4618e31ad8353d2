"""`keeper status`, `pause`, `resume`, `drain` and `failures retry`: what an operator asks of a running keeper."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from keeper.commands import EXIT_FAILED, options
from keeper.commands.remote import call, health_of, operators_token, url_of
from keeper.config import TOKEN_VARIABLE
from keeper.domain.errors import KeeperError

_TAKES_OVER_S: Final = 10.0
"""Beyond a lease: another keeper starts in that time, or the one that was drained does."""
_ASK_EVERY_S: Final = 0.02

TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"File with the operator's token; else {TOKEN_VARIABLE} in the environment."),
]
_with_address = options.takes_settings("http.host", "http.port")


@_with_address
def status(given: options.Given, as_json: options.AsJson = False) -> None:
    """Show how a running keeper is: ready or not, and each part of it. Exit code 1 when it is not ready."""
    health = health_of(url_of(given.settings().http))
    if as_json:
        print(json.dumps(health))
    else:
        stands_by = health.get("standing_by") is not None
        print("ready" if health["ready"] else "stands by" if stands_by else "not ready")
        for check in health["checks"]:
            print(f"  {'ok  ' if check['ok'] else 'FAIL'}  {check['name']:<10} {check['detail']}".rstrip())
    if not health["ready"]:
        raise typer.Exit(EXIT_FAILED)


@_with_address
def pause(
    given: options.Given,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for whoever finds it paused.")] = "",
    token_file: TokenOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Sign and send nothing new, until `keeper resume`; through restarts too. What was sent is still followed."""
    answer = _ask("pause", given, token_file, {"reason": reason})
    _say(answer, as_json, f"The keeper is {answer['paused']}.")


@_with_address
def resume(given: options.Given, token_file: TokenOption = None, as_json: options.AsJson = False) -> None:
    """End a pause. Orders that the present price meets are executed at once."""
    _say(_ask("resume", given, token_file), as_json, "The keeper goes on.")


@_with_address
def retry(
    given: options.Given,
    order: options.OrderAddress,
    token_file: TokenOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Give a failed order its retry budget back; it rests again, until the price meets its condition."""
    answer = _ask(f"orders/{options.address(order, 'an order')}/retry", given, token_file)
    _say(answer, as_json, f"The order {order} rests again.")


@_with_address
def drain(given: options.Given, token_file: TokenOption = None, as_json: options.AsJson = False) -> None:
    """Hand the service over to another keeper on this journal, and stand by. Exit code 1 when none takes over."""
    before = _ask("drain", given, token_file)
    began_s, who = time.monotonic(), before["holder"]
    url, within_s = url_of(given.settings().http), given.settings().cluster.lease_s + _TAKES_OVER_S
    if before.get("markets"):
        _say_who_took(before, _shared_out(url, who, set(before["markets"]), within_s), began_s, as_json)
        return
    lease = _taken(url, before["term"], within_s)
    took_s = time.monotonic() - began_s
    if lease is None or lease["holder"] == who:
        again = "it works again" if lease else "nobody works yet: look at each keeper's log"
        raise KeeperError(
            f"{who} gave the service back, and none of {', '.join(before['standing_by'])} took over; {again}."
        )
    told = {"from": who, "to": lease["holder"], "term": lease["term"], "seconds": round(took_s, 3)}
    sentence = f"{lease['holder']} took over from {who} after {took_s:.2f} s (term {lease['term']}); {who} stands by."
    _say(told, as_json, sentence)


def _say_who_took(before: dict[str, Any], holders: dict[str, str], began_s: float, as_json: bool) -> None:
    who, took_s, markets = before["holder"], time.monotonic() - began_s, before["markets"]
    left = sum(holders.get(market, who) == who for market in markets)
    if left:
        raise KeeperError(f"{who} gave its markets back, and {left} of {len(markets)} have gone to no other keeper.")
    names = sorted({holders[market] for market in markets})
    told = {"from": who, "to": names, "markets": len(markets), "seconds": round(took_s, 3)}
    count = f"{len(markets)} market" + "s" * (len(markets) != 1)
    _say(told, as_json, f"{', '.join(names)} took over {count} from {who} after {took_s:.2f} s; {who} stands by.")


def _shared_out(url: str, who: str, markets: set[str], within_s: float) -> dict[str, str]:
    """Who has each of the markets: as soon as `who` has none of them and others have all, or after that time."""
    until_s, holders = time.monotonic() + within_s, dict[str, str]()
    while time.monotonic() < until_s:
        with contextlib.suppress(KeeperError):  # between its two lives it does not answer
            leases = call(url, "GET", "/v1/keeper", timeout_s=within_s)["leases"]
            holders = {lease["on"]: lease["holder"] for lease in leases if lease["on"] in markets}
            if holders.keys() == markets and who not in holders.values():
                break
        time.sleep(_ASK_EVERY_S)
    return holders


def _taken(url: str, term: int, within_s: float) -> dict[str, Any] | None:
    """The service's lease, once it is of a later term; None when there is none in time."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        with contextlib.suppress(KeeperError):  # between its two lives it does not answer
            for lease in call(url, "GET", "/v1/keeper", timeout_s=within_s)["leases"]:
                if lease["on"] == "*" and lease["term"] > term:
                    return dict(lease)
        time.sleep(_ASK_EVERY_S)
    return None


def _ask(
    path: str, given: options.Given, token_file: Path | None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    url = url_of(given.settings().http)
    return call(url, "POST", f"/v1/admin/{path}", token=operators_token(token_file), body=body)


def _say(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    print(json.dumps(answer) if as_json else sentence)
