"""Place an order through the keeper's API and follow it to its end.

    python examples/place_order.py --api http://127.0.0.1:8080 --key trader.json \\
        --market SOL/USDC --type stop_loss --side long --size 1.5 --trigger 140

The key never leaves this process: the keeper hands out an unsigned transaction, this script looks at it, signs it,
and hands it back. The wallet needs a margin account with collateral, or the fill will be refused.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from solders.keypair import Keypair
from solders.message import to_bytes_versioned
from solders.transaction import VersionedTransaction

ENDED = {"filled", "cancelled", "expired", "failed", "rejected", "dropped"}


def main() -> int:
    """Exit code 0 when the order was filled."""
    options = _options()
    trader = Keypair.from_bytes(bytes(json.loads(options.key.read_text())))
    with httpx.Client(base_url=options.api, timeout=30) as api:
        prepared = _ask(api, "POST", "/v1/orders", _order(options, trader))
        print(f"prepared   {prepared['order']}")
        signed = _sign(prepared["transaction"], trader)
        submitted = _ask(api, "POST", "/v1/orders/execute", {"id": prepared["id"], "signed_transaction": signed})
        print(f"submitted  {submitted['signature']}")
        order = _follow(api, prepared["order"])
    if order["status"] == "filled":
        print(f"position   {order['position']}")
    return 0 if order["status"] == "filled" else 1


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


def _follow(api: httpx.Client, address: str) -> dict[str, Any]:
    shown = ""
    while True:
        order = _ask(api, "GET", f"/v1/orders/{address}")
        line = f"{order['status']:<10} {order['status_reason']}"
        if line != shown:
            print(line, flush=True)
            shown = line
        if order["status"] in ENDED:
            return order
        time.sleep(0.5)


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
    parser.add_argument("--limit", help="limit price: limit")
    parser.add_argument("--trailing", help='trailing distance, "0.05" is 5 %%: trailing_stop')
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
