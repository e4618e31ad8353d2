"""Place an order through the keeper's API and watch it over the stream to its end, or cancel it after a while.

    python examples/place_order.py --api http://127.0.0.1:8080 --key trader.json \\
        --market SOL/USDC --type stop_loss --side long --size 1.5 --trigger 140 --cancel-after 60

The key never leaves this process: the keeper hands out an unsigned transaction, this script looks at it, signs it,
and hands it back. The wallet needs a margin account with collateral, or the fill will be refused.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from solders.keypair import Keypair
from solders.message import to_bytes_versioned
from solders.transaction import VersionedTransaction

ENDED = {"filled", "cancelled", "expired", "failed", "rejected", "dropped"}


def main() -> int:
    """Exit code 0 when the order was filled, or cancelled as asked for."""
    options = _options()
    trader = Keypair.from_bytes(bytes(json.loads(options.key.read_text())))
    with httpx.Client(base_url=options.api, timeout=30) as api:
        prepared = _ask(api, "POST", "/v1/orders", _order(options, trader))
        print(f"prepared   {prepared['order']}")
        signed = _sign(prepared["transaction"], trader)
        submitted = _ask(api, "POST", "/v1/orders/execute", {"id": prepared["id"], "signed_transaction": signed})
        print(f"submitted  {submitted['signature']}")
        order = _watch(api, prepared["order"], str(trader.pubkey()), options.cancel_after)
        if order is None:
            cancel = _ask(api, "POST", f"/v1/orders/{prepared['order']}/cancel")
            signed = _sign(cancel["transaction"], trader)
            _ask(api, "POST", "/v1/orders/execute", {"id": cancel["id"], "signed_transaction": signed})
            order = _watch(api, prepared["order"], str(trader.pubkey()), None)
    assert order is not None
    if order["status"] == "filled":
        print(f"position   {order['position']}")
    wanted = {"filled"} if options.cancel_after is None else {"filled", "cancelled"}
    return 0 if order["status"] in wanted else 1


def _order(options: argparse.Namespace, trader: Keypair) -> dict[str, Any]:
    order = {
        "user": str(trader.pubkey()),
        "market": options.market,
        "order_type": options.type,
        "side": options.side,
        # Decimals travel as strings: a float could not hold them exactly.
        "size": options.size,
        "leverage": options.leverage,
        "trigger_price": options.trigger,
        "limit_price": options.limit,
        "trailing_distance": options.trailing,
    }
    return {name: value for name, value in order.items() if value is not None}


def _sign(transaction: str, trader: Keypair) -> str:
    """Sign the message as it is. A wallet would show it to its user first."""
    message = VersionedTransaction.from_bytes(base64.b64decode(transaction)).message
    assert message.account_keys[0] == trader.pubkey(), "the transaction's payer is somebody else"
    signed = VersionedTransaction.populate(message, [trader.sign_message(to_bytes_versioned(message))])
    return base64.b64encode(bytes(signed)).decode()


def _watch(api: httpx.Client, address: str, user: str, for_s: float | None) -> dict[str, Any] | None:
    """The order at its end, or None when it has none after `for_s` seconds. A broken stream is resumed."""
    until = float("inf") if for_s is None else time.monotonic() + for_s
    last_id: dict[str, str] = {}
    shown = ""
    while time.monotonic() < until:
        try:
            for order in _orders(api, user, last_id, min(30.0, until - time.monotonic())):
                line = f"{order['status']:<10} {order['status_reason']}"
                if order["order"] == address and line != shown:
                    print(line, flush=True)
                    shown = line
                if time.monotonic() > until:
                    return None
                if order["order"] == address and order["status"] in ENDED:
                    return _ask(api, "GET", f"/v1/orders/{address}")
        except httpx.TransportError:
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))
    return None


def _orders(api: httpx.Client, user: str, last_id: dict[str, str], quiet_s: float) -> Iterator[dict[str, Any]]:
    """The wallet's orders as they change. httpx.ReadTimeout after `quiet_s` seconds without a word."""
    with api.stream(
        "GET", "/v1/orders/stream", params={"user": user}, headers=last_id, timeout=httpx.Timeout(30, read=quiet_s)
    ) as events:
        for line in events.iter_lines():
            field, _, value = line.partition(": ")
            if field == "id":
                # What an EventSource in a browser does by itself: go on from here when the stream breaks.
                last_id["Last-Event-ID"] = value
            elif field == "data":
                data = json.loads(value)
                # A snapshot has many orders, a change is one, and the rest is none.
                yield from data.get("orders", [data] if "order" in data else [])


def _ask(api: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    response = api.request(method, path, json=body)
    answer: dict[str, Any] = response.json()
    if response.is_error:
        # RFC 9457 problem details: `code` is stable, `detail` is for people.
        sys.exit(f"{answer['code']}: {answer['detail']}")
    return answer


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Place an order through the keeper and follow it.")
    parser.add_argument("--api", default="http://127.0.0.1:8080", help="where the keeper's API is")
    parser.add_argument("--key", type=Path, required=True, help="keypair file of the trader")
    parser.add_argument("--market", default="SOL/USDC")
    kinds = ["stop_loss", "take_profit", "stop_limit", "limit", "trailing_stop"]
    parser.add_argument("--type", choices=kinds, default="stop_loss")
    parser.add_argument("--side", choices=["long", "short"], default="long")
    parser.add_argument("--size", default="1", help="base units")
    parser.add_argument("--leverage", type=int, default=5)
    parser.add_argument("--trigger", help="trigger price: stop_loss, take_profit, stop_limit")
    parser.add_argument("--limit", help="limit price: limit, stop_limit")
    parser.add_argument("--trailing", help='trailing distance, "0.05" is 5 %%: trailing_stop')
    parser.add_argument("--cancel-after", type=float, help="cancel the order if it is not over after so many seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
