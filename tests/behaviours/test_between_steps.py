"""Between the decision and the send: an operator pauses there, or the journal does not take it. Nothing leaves."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptState, Fate
from keeper.domain.orders import OrderState
from keeper.execution.orders import RESTS
from keeper.journal.machine import Machine
from keeper.runtime.outside import Outside
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_orders import relay_cancel
from tests.chaos.proxy import Fault, Kind
from tests.support import BOUND_S, until

pytestmark = pytest.mark.anyio

TOKEN: Final = "the-operators-token"
ADMIN: Final = {"admin_token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}


async def operator(stand: Stand, path: str) -> None:
    """The operator's hand on the brakes."""
    assert stand.ready is not None
    async with httpx.AsyncClient(base_url=stand.ready.http_url) as http:
        answer = await http.post(f"/v1/admin/{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        answer.raise_for_status()


async def failed_once(stand: Stand, market: Pubkey, order: Pubkey) -> None:
    """The price had moved back when its first attempt landed: the next one is rehearsed before it is signed away."""
    stand.bank.hold_transactions()
    stand.world.set_price(market, 94 * USDC)
    await until(lambda: stand.attempt_state(order) is AttemptState.SENT)
    stand.world.set_price(market, 96 * USDC)
    stand.bank.release_transactions()
    await until(lambda: stand.attempts(order)[0].fate is Fate.PRICE_MOVED_BACK)


def rehearsals(stand: Stand) -> int:
    return sum("simulateTransaction" in methods for methods in stand.calls)


async def test_a_pause_between_the_decision_and_the_signature_holds_the_attempt_back(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, http=ADMIN) as stand, stand.keeper():
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        await stand.known(order)
        await failed_once(stand, market, order)
        stand.scripts[0].break_request(Fault(Kind.REPLY_DELAYED, 1.0), method="simulateTransaction")
        asked, sends = rehearsals(stand), len(stand.sends)
        stand.world.set_price(market, 94 * USDC)
        await until(lambda: rehearsals(stand) > asked)
        await operator(stand, "pause")
        row = await stand.reach(order, OrderState.TRIGGERED)
        assert "paused by an operator" in row.reason
        await stays(lambda: len(stand.sends) == sends, stand)
        assert len(stand.attempts(order)) == 1, "nothing is journaled that is not sent"
        await operator(stand, "resume")
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 2


@pytest.mark.file_journal
@pytest.mark.parametrize("retry", [False, True], ids=["first", "retry"])
@pytest.mark.parametrize("what", ["one row", "the disk"])
async def test_1_what_the_journal_does_not_take_is_not_sent_and_is_tried_again(
    tmp_path: Path, what: str, retry: bool
) -> None:
    """A commit that fails, for one row's sake or for the disk's: no bytes leave, and no order of the batch is lost."""
    async with Stand.open(tmp_path, execution={"attempts_per_hour": 3}) as stand, stand.keeper():
        market = stand.world.market()
        orders = [stand.order(stand.world.trader(), market) for _ in range(5)]
        await stand.known(*orders)
        if retry:
            await failed_once(stand, market, orders[0])
            await until(lambda: all(not attempt.state.live for order in orders for attempt in stand.attempts(order)))
        made = {order: len(stand.attempts(order)) for order in orders}
        sends = len(stand.sends)
        with contextlib.closing(sqlite3.connect(stand.config.journal, isolation_level=None)) as other:
            if what == "one row":
                other.execute(
                    "CREATE TRIGGER refuse BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'not now'); END"
                )
            else:
                other.execute("BEGIN IMMEDIATE")
            stand.world.set_price(market, 94 * USDC)
            await told(stand, what)
            await stays(lambda: len(stand.sends) == sends, stand)
            assert {order: len(stand.attempts(order)) for order in orders} == made
            other.execute("DROP TRIGGER refuse" if what == "one row" else "ROLLBACK")
        # Each attempt that was not made was given back: the ceiling of three an hour is not reached by them.
        await until(lambda: all(stand.state(order) is OrderState.FILLED for order in orders))
        assert {order: len(stand.attempts(order)) for order in orders} == {order: n + 1 for order, n in made.items()}


async def told(stand: Stand, what: str) -> None:
    """Wait until the keeper has met the failure: the disk's shows in health, one row's in what waits to be signed."""
    if what == "the disk":
        await stand.told("journal", lambda sentence: bool(sentence))
        return
    with anyio.fail_after(BOUND_S):
        while "keeper_jobs_queued 5.0" not in (await stand.get("/metrics")).text:  # noqa: ASYNC110 - over HTTP
            await anyio.sleep(0.05)


# -- a decision that waits for the journal


async def met(stand: Stand, market: Pubkey, price_1e6: int) -> None:
    """Set the price, and wait until the keeper decides by it."""
    stand.world.set_price(market, price_1e6)
    with anyio.fail_after(BOUND_S):
        while price_1e6 != await known_price(stand, market):  # noqa: ASYNC110 - over HTTP
            await anyio.sleep(0.01)


async def known_price(stand: Stand, market: Pubkey) -> int:
    (shown,) = [one for one in (await stand.get("/v1/markets")).json()["markets"] if one["address"] == str(market)]
    return round(float(shown["price"]) * USDC)


def unhindered_s() -> float:
    """A clock of this thread: it leaves out what the thread had to wait for a processor, where the kernel tells."""
    told = Path("/proc/thread-self/schedstat")
    waited_ns = int(told.read_text().split()[1]) if told.exists() else 0
    return time.monotonic() - waited_ns / 1e9


@pytest.mark.file_journal
@pytest.mark.parametrize("until_it_fails", [True, False], ids=["until the journal fails", "for a second and a half"])
async def test_a_decision_that_waited_for_the_journal_is_decided_again(tmp_path: Path, until_it_fails: bool) -> None:
    """A shell holds the journal's file while a price meets an order, and has moved back before the shell lets go."""
    async with Stand.open(tmp_path) as stand, stand.keeper():
        market = stand.world.market()
        first, order = (stand.order(stand.world.trader(), market, stop) for stop in (99, 95))
        await stand.known(first, order)
        stand.world.set_price(market, 98 * USDC)  # commits on the loop's own thread, from here on
        await until(lambda: stand.attempt_state(first) is AttemptState.FINALIZED)
        longest_s = 0.0

        async def measure() -> None:
            nonlocal longest_s
            while True:
                began_s = unhindered_s()
                await anyio.sleep(0.01)
                longest_s = max(longest_s, unhindered_s() - began_s)

        async with anyio.create_task_group() as tg:
            with contextlib.closing(sqlite3.connect(stand.config.journal, isolation_level=None)) as shell:
                shell.execute("BEGIN IMMEDIATE")
                held_at_s = time.monotonic()
                tg.start_soon(measure)
                await met(stand, market, 94 * USDC)
                if until_it_fails:
                    await told(stand, "the disk")
                await met(stand, market, 100 * USDC)
                await until(lambda: time.monotonic() - held_at_s > 1.5)
                shell.execute("ROLLBACK")
            await stand.told("journal", lambda sentence: not sentence)
            tg.cancel_scope.cancel()
        await stand.reason(order, RESTS)
        await stays(lambda: not stand.attempts(order), stand)
        assert longest_s < 2.5, "the event loop waited for the shell"
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FILLED)
        assert len(stand.attempts(order)) == 1


# -- a disk that says that it failed, and did not


class Doubtful(sqlite3.Connection):
    """SQLite as it is; but while it lies, a COMMIT with an attempt in it is made and said to have failed."""

    lies = False
    attempts = 0

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *args)
        Doubtful.attempts += "INTO attempts" in sql
        if sql == "COMMIT" and Doubtful.lies and Doubtful.attempts:
            Doubtful.lies = False
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
            raise error
        return cursor

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        Doubtful.attempts += "INTO attempts" in sql
        return super().executemany(sql, *args)


@pytest.mark.file_journal
@pytest.mark.parametrize("whose", ["the keeper's", "a user's"])
async def test_what_the_journal_holds_though_its_disk_said_no_is_followed(tmp_path: Path, whose: str) -> None:
    """Nobody sent it, and while it is open its order has no other. A restart would take it up; so does the keeper."""
    doubtful = Outside(machine=Machine(connect=partial(sqlite3.connect, factory=Doubtful)))
    async with Stand.open(tmp_path) as stand, stand.keeper(outside=doubtful):
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        await stand.known(order)
        Doubtful.attempts, Doubtful.lies = 0, True
        with stand.held():  # or its blockhash would be too old by then: 150 blocks take a second and a half here
            if whose == "the keeper's":
                stand.world.set_price(market, 94 * USDC)
            else:
                await relay_cancel(stand, trader, order, 503)
            await until(lambda: stand.sent(order))
        await stand.reach(order, OrderState.FILLED if whose == "the keeper's" else OrderState.CANCELLED)
        assert not Doubtful.lies
        assert len(stand.attempts(order)) == 1
