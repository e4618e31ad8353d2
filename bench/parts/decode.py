"""Order accounts decoded a second: fixed offsets against anchorpy's coder, on the same bytes, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from anchorpy.coder.accounts import AccountsCoder
from anchorpy_core.idl import Idl as AnchorIdl

from bench.figures import across
from bench.resting import order_accounts
from bench.stage import PRICE_1E6, STOP_1E6, chain
from keeper.chain.layouts import decode_order
from tests.support.world import PROGRAM


async def measure(quick: bool) -> dict[str, Any]:
    """`decode_ratio`, and both rates."""
    async with chain() as world:
        market = world.market(price_1e6=PRICE_1E6)
        account = world.bank.account(world.place(world.trader(), market, stop_price_1e6=STOP_1E6))
        assert account is not None
        accounts = list(order_accounts(bytes(account.data), [market], 2_000))
    coder = AccountsCoder(AnchorIdl.from_json(PROGRAM.idl.legacy))
    slow = [data for _, data in accounts[:300]]

    def ours() -> None:
        for address, data in accounts:
            decode_order(address, data, 1)

    def theirs() -> None:
        for data in slow:
            coder.decode(data)

    runs = 2 if quick else 5
    fast_us = [_us_each(ours, len(accounts)) for _ in range(runs)]
    slow_us = [_us_each(theirs, len(slow)) for _ in range(runs)]
    ratio = across(slow_us)["median"] / across(fast_us, 3)["median"]
    return {"decode_ratio": round(ratio, 1), "decode_us": across(fast_us, 3), "decode_anchorpy_us": across(slow_us)}


def _us_each(work: Callable[[], None], count: int) -> float:
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began) / count
