"""What would happen if the keeper executed an order now: the order, its market, the condition, and the program's word.

Nothing is signed and nothing is sent: the node runs the transaction without its signature.
"""

from __future__ import annotations

from dataclasses import dataclass

from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind
from keeper.domain.errors import KeeperError
from keeper.domain.orders import Market, Order
from keeper.solana.client import PROCESSED, ChainClient
from keeper.triggers.conditions import is_met, trigger_of
from keeper.venue.layouts import decode_market, decode_order
from keeper.venue.program import Program
from keeper.venue.rehearsal import rehearse
from keeper.venue.venue import Venue


@dataclass(frozen=True, slots=True)
class Outcome:
    """`verdict` is a sentence. `met` is None for an order type that the revision does not execute. `error` is the
    program's name for it, None when the execution would succeed. `units` are compute units.
    """

    order: Order
    market: Market
    price_age_s: int
    met: bool | None
    verdict: str
    error: str | None
    units: int
    logs: tuple[str, ...]

    @property
    def would_execute(self) -> bool:
        """Whether an execution would succeed now."""
        return self.error is None


async def simulate(client: ChainClient, program: Program, keeper: Pubkey, address: Pubkey) -> Outcome:
    """Read the order and its market, and run its execution. KeeperError when there is no such order."""
    slot, (account,) = await client.accounts([address], commitment=PROCESSED)
    if account is None or account.owner != program.id:
        what = "no account" if account is None else "no account of this program"
        raise KeeperError(
            f"There is {what} at {address}: the order was closed, or the address or the cluster is wrong."
        )
    order = decode_order(address, account.data, slot)
    slot, (market_account,) = await client.accounts([order.market], commitment=PROCESSED)
    if market_account is None:
        raise KeeperError(f"The order's market {order.market} does not exist.")
    market = decode_market(order.market, market_account.data, slot)
    _, chain_time_s = await client.chain_time()

    found = await rehearse(client, Venue(program, keeper), AttemptKind.EXECUTE, order)

    trigger = trigger_of(order, program.executable)
    met = None if trigger is None else is_met(order, market.last_oracle_price_1e6, program.executable)
    error, verdict = None, "It would be executed."
    failure = found.failure
    if failure is not None:
        error = failure.name
        verdict = f"It would fail with {failure.name}" + (f": {failure.detail}" if failure.detail else ".")
    elif order.expires_at and order.expires_at <= chain_time_s:
        verdict = "The program would mark it expired: it is past its expiry."
    return Outcome(
        order=order,
        market=market,
        price_age_s=chain_time_s - market.last_oracle_update_s,
        met=met,
        verdict=verdict,
        error=error,
        units=found.units,
        logs=found.logs,
    )
