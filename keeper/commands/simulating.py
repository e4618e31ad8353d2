"""What would happen if the keeper executed an order now: the order, its market, the condition, and the program's word.

Nothing is signed and nothing is sent: the node runs the transaction without its signature.
"""

from __future__ import annotations

from typing import Any

from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind
from keeper.domain.decimals import decimal
from keeper.domain.errors import KeeperError
from keeper.domain.orders import NOBODY
from keeper.solana.client import PROCESSED, ChainClient
from keeper.triggers.conditions import is_met, trigger_of
from keeper.triggers.explain import never
from keeper.venue.program import Program
from keeper.venue.rehearsal import rehearse
from keeper.venue.venue import Venue, decode_market, decode_order


async def simulate(client: ChainClient, program: Program, keeper: Pubkey, address: Pubkey) -> dict[str, Any]:
    """Read the order and its market, and run its execution. KeeperError when there is no such order.

    Decimals are strings. `condition_met` is None for an order type that the revision does not execute, `error` is the
    program's name for it, `units` are compute units, `verdict` is a sentence, `logs` are the program's.
    """
    slot, (account,) = await client.accounts([address], commitment=PROCESSED)
    if account is None or account.owner != program.id:
        what = "no account" if account is None else "no account of this program"
        raise KeeperError(
            f"There is {what} at {address}: the order was closed, or the address or the cluster is wrong."
        )
    order = decode_order(address, account.data, slot)
    trigger = trigger_of(order, program.executable)
    nothing = never(order, executes=trigger is not None)
    if order.market == NOBODY:
        raise KeeperError(nothing or "")
    slot, (market_account,) = await client.accounts([order.market], commitment=PROCESSED)
    if market_account is None:
        raise KeeperError(f"The order's market {order.market} does not exist.")
    market = decode_market(order.market, market_account.data, slot)
    _, chain_time_s = await client.chain_time()

    found = await rehearse(client, Venue(program, keeper), AttemptKind.EXECUTE, order)

    met = None if trigger is None else is_met(order, market.last_oracle_price_1e6, program.executable)
    error, verdict = None, "It would be executed."
    failure = found.failure
    if failure is not None:
        error = failure.name
    if nothing is not None:
        verdict = nothing
    elif failure is not None:
        verdict = f"It would fail with {failure.name}" + (f": {failure.detail}" if failure.detail else ".")
    elif order.expires_at and order.expires_at <= chain_time_s:
        verdict = "The program would mark it expired: it is past its expiry."
    return {
        "order": str(order.address),
        "type": order.order_type.word,
        "side": order.side.word,
        "status": order.status.word,
        "size": decimal(order.size_1e6),
        "trigger": decimal(order.stop_price_1e6 or order.price_1e6),
        "market": market.symbol,
        "price": decimal(market.last_oracle_price_1e6),
        "price_age_s": chain_time_s - market.last_oracle_update_s,
        "condition_met": met,
        "would_execute": error is None and nothing is None,
        "error": error,
        "units": found.units,
        "verdict": verdict,
        "logs": found.logs,
    }
