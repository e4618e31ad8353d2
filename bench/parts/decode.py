"""Order accounts decoded, against anchorpy's coder, on the same bytes, one after the other in one process.

Two figures, because the keeper decodes in two ways: to an account's fields, which is all that a snapshot's million
accounts need (`decode_ratio`), and on to an `Order`, with its three addresses as objects, for a single piece of news
(`decode_order_ratio`). anchorpy gives an object, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from anchorpy.coder.accounts import AccountsCoder
from anchorpy_core.idl import Idl as AnchorIdl

from bench.figures import across
from bench.resting import order_accounts
from bench.stage import PRICE_1E6, STOP_1E6, chain
from keeper.venue.venue import decode_order, order_fields
from tests.support.world import PROGRAM


async def measure(quick: bool) -> dict[str, Any]:
    """The ratios, and the time that each takes."""
    async with chain() as world:
        market = world.market(price_1e6=PRICE_1E6)
        account = world.bank.account(world.place(world.trader(), market, stop_price_1e6=STOP_1E6))
        assert account is not None
        accounts = list(order_accounts(bytes(account.data), [market], 2_000))
    coder = AccountsCoder(AnchorIdl.from_json(PROGRAM.idl.legacy))
    slow = [data for _, data in accounts[:300]]

    def fields() -> None:
        for address, data in accounts:
            order_fields(address, data)

    def orders() -> None:
        for address, data in accounts:
            decode_order(address, data, 1)

    def theirs() -> None:
        for data in slow:
            coder.decode(data)

    runs = 2 if quick else 5
    # In turns, so that a busy moment of the machine is everybody's.
    rounds = [
        (_us_each(fields, len(accounts)), _us_each(orders, len(accounts)), _us_each(theirs, len(slow)))
        for _ in range(runs)
    ]
    fields_us, order_us, anchorpy_us = zip(*rounds, strict=True)
    return {
        "decode_ratio": across([slow / fast for fast, _, slow in rounds])["median"],
        "decode_order_ratio": across([slow / fast for _, fast, slow in rounds])["median"],
        "decode_fields_us": across(fields_us, 3),
        "decode_order_us": across(order_us, 3),
        "decode_anchorpy_us": across(anchorpy_us),
    }


def _us_each(work: Callable[[], None], count: int) -> float:
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began) / count
