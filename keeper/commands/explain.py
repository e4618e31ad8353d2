"""`keeper explain`: what became of one order, and what it waits for."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from keeper.commands import options
from keeper.commands.ways import way_sentence

_FLAGS: Final = ("rpc.url", "program.id", "program.idl", "journal.path", "http.host", "http.port")


@options.takes_settings(*_FLAGS)
def explain(
    given: options.Given,
    order: Annotated[str, typer.Argument(help="The order account's address, or its client order id.")],
    as_json: options.AsJson = False,
) -> None:
    """Tell one order's whole story: the prices that mattered, each attempt, and what it waits for now.

    From the journal, the chain, and the keeper that runs; it says which of them is missing.
    """
    import anyio

    from keeper.commands.explaining import tell

    story = anyio.run(tell, given.settings(), order)
    if as_json:
        print(json.dumps(story))
    else:
        print(*_lines(story), sep="\n")


def _lines(story: Mapping[str, Any]) -> Iterator[str]:
    yield f"Order {story['order']}"
    if "type" in story:
        size = f"{story['size']} {story['market'] or story['market_address']}"
        yield f"  {story['type']} {story['side']} of {size} at a leverage of {story['leverage']}, by {story['user']}"
        until = f"expires {_time(story['expires_at'])}" if story["expires_at"] else "never expires"
        yield f"  {'made ' + _time(story['made_at']) if story['made_at'] else 'not on chain yet'}; {until}"
    if story["client_order_id"]:
        yield f"  its user calls it {story['client_order_id']!r}"
    if story["state"]:
        yield f"  {story['state']}: {story['reason']}"
    yield f"Waits for (says the {story['waits_for_by']})"
    yield f"  {story['waits_for']}"
    yield from _part("Prices", map(_price, _with_side(story)))
    yield from _part("Attempts", (line for attempt in story["attempts"] for line in _attempt(attempt)))
    if story["position"]:
        yield from _part("Position", ["  " + _pairs(story["position"])])
    yield from _part("History", (f"  {_time(e['at'])}  {e['state']:<10}  {e['reason']}" for e in story["history"]))
    yield from _part(
        "Prepared", (f"  {_time(p['at'])}  {p['kind']} transaction: {p['status']}" for p in story["prepared"])
    )
    yield from _part("On chain", map(_step, story["on_chain"]))
    yield from _part("Missing", (f"  {part}: {why}" for part, why in story["missing"].items()))


def _part(title: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    """A part of the story with its title; nothing of one that is empty."""
    for n, line in enumerate(lines):
        if n == 0:
            yield title
        yield line


def _with_side(story: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for price in story["prices"]:
        what = f"{price['what']}: it fires {story['fires']} this" if price["what"] == "trigger" else price["what"]
        yield {**price, "what": what}


def _price(price: Mapping[str, Any]) -> str:
    slot = f" in slot {price['slot']}" if price["slot"] else ""
    at = f", {_time(price['at'])}" if price["at"] else ""
    return f"  {price['price']:>14}  {price['what']}{slot}{at}"


def _attempt(attempt: Mapping[str, Any]) -> Iterator[str]:
    """What it was for and its end; its way, each step with the time since the signature; its cost."""
    end = f"{attempt['state']}" + (f", {attempt['fate']}" if attempt["fate"] else "")
    if attempt["error"]:
        end += f": {attempt['error']}" + (f" ({attempt['detail']})" if attempt["detail"] else "")
    yield f"  {attempt['number']} {attempt['kind']}: {end}"
    signed = attempt["signed_at"]
    landed = f"landed in slot {attempt['slot']}" if attempt["slot"] else ""
    way = [f"signed {_time(signed)}", _after("sent", signed, attempt["sent_at"]), landed]
    way += [_after(what, signed, attempt[f"{what}_at"]) for what in ("confirmed", "finalized")]
    way.append(_after("ended", signed, attempt["ended_at"]) if not attempt["finalized_at"] else "")
    yield "    way: " + ", ".join(filter(None, way))
    if attempt["ways"]:
        yield f"    carried by: {way_sentence(attempt['ways'])}"
    if (posted := attempt["posted"]) is not None:
        published = f", published {_time(posted['published_at'])}" if posted["published_at"] else ""
        yield f"    posted: {posted['price']} of the feed {posted['feed']} in slot {posted['slot']}{published}"
    if attempt["fee_lamports"] is not None:
        landed_well = attempt["state"] in ("confirmed", "finalized")
        tip = f" and a tip of {attempt['tip_lamports']:,}" if attempt["tip_lamports"] and landed_well else ""
        cost = f"{attempt['fee_lamports']:,} lamports{tip}"
    elif attempt["kind"] == "relay":
        cost = "its user's"
    elif attempt["state"] in ("expired", "dry_run"):
        cost = "nothing"
    else:
        cost = "not known yet"
    bid = ""
    if attempt["unit_limit"] is not None:
        price = attempt["unit_price_micro_lamports"]
        bid = f" (asked for {attempt['unit_limit']:,} units at {price:,} micro-lamports)"
    yield f"    cost: {cost}{bid}"
    yield f"    {attempt['signature']}"


def _step(step: Mapping[str, Any]) -> str:
    market = f" through the market {step['other_market']}, which is not its own" if step["other_market"] else ""
    end = f": failed with {step['error']}" if step["error"] else ""
    return f"  slot {step['slot']}  {step['instruction']} by {step['by']}{market}{end}"


def _after(what: str, start: str, at: str | None) -> str:
    if at is None:
        return ""
    passed = datetime.datetime.fromisoformat(at) - datetime.datetime.fromisoformat(start)
    return f"{what} +{passed.total_seconds():.3f} s"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _time(text: str) -> str:
    return text[:23].replace("T", " ")
