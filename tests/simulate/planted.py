"""The faults that the simulation is tried on: each breaks one promise of the keeper in a line or two.

`make simulate-faults` plants them one after the other and plays until something is found; one that is not found is a
hole in the simulation.
"""

from __future__ import annotations

from typing import Final

from tests.simulate.planted_several import OF_SEVERAL
from tests.simulate.planting import Fault

FAULTS: Final = (
    # -- durable first
    Fault(
        "commit-returns-early",
        "keeper.journal.journal",
        "                await self.writer.submit(ops)\n\n    async def write",
        "                self.writer.submit(ops)\n\n    async def write",
        "nothing is sent before it is durable: `commit` does not wait for the writer",
    ),
    Fault(
        "no-fsync",
        "keeper.journal.sqlite.store",
        "return self._applied(callers) if durable else",
        "return self._applied(callers) if False else",
        "a commit is durable: SQLite is never asked to sync",
    ),
    Fault(
        "no-fsync-inline",
        "keeper.journal.writer",
        "self._store.apply(asked, durable=durable, waits=not inline)",
        "self._store.apply(asked, durable=durable and not inline)",
        "a lone commit on the loop is durable: it is not synced",
    ),
    Fault(
        "sends-what-was-not-taken",
        "keeper.execution.executor",
        "        except JournalError:\n            self._undo(drafts)\n            raise\n        else:\n",
        "        except JournalError:\n            return self._flown(drafts)\n        else:\n",
        "nothing is sent that the journal did not take",
    ),
    # -- armed
    Fault(
        "two-armed-at-once",
        "keeper.execution.arming",
        "            ops += [Disarm(signature) for signature in old.signatures]\n",
        "",
        "an order has one live attempt, armed or not: the old one stays when it is armed again",
        also=(  # the journal refuses it twice: by its own rule, and by an index
            (
                "keeper.journal.applying",
                "            if live is not None:\n                raise DuplicateAttempt(",
                "            if False:\n                raise DuplicateAttempt(",
            ),
            ("keeper.journal.sqlite.schema", "CREATE UNIQUE INDEX one_live_attempt", "CREATE INDEX one_live_attempt"),
        ),
    ),
    Fault(
        "sent-after-disarm",
        "keeper.execution.arming",
        "                self._armory.remove(change.address, armed)\n",
        "                armed.withdrawn = False\n",
        "what was disarmed is not sent any more",
    ),
    Fault(
        "crashed-armed-forgotten",
        "keeper.execution.recovery",
        "committed=True, flight=flight)",
        "committed=True)",
        "after a crash what was armed may have been sent: no other signature until it can land no more",
    ),
    Fault(
        "armed-past-its-height",
        "keeper.execution.armory",
        "            and (fresh or lives)\n",
        "",
        "an armed attempt is not sent once its blockhash is known to be dead",
    ),
    Fault(
        "armed-for-another-reading",
        "keeper.execution.armory",
        "return self.order is not None and self.order[:-1] == order[:-1]",
        "return self.order is not None",
        "an armed attempt is not sent for an order that has changed",
    ),
    # -- one live attempt
    Fault(
        "expiry-by-a-timer",
        "keeper.execution.lander",
        "return self._final_height > flight.attempt.last_valid_block_height + 1",
        "return time.monotonic() > flight.born_at_s + 6.0",
        "a signature is dead by the chain's height, never by a timer",
    ),
    Fault(
        "expiry-one-block-early",
        "keeper.execution.lander",
        "return self._final_height > flight.attempt.last_valid_block_height + 1",
        "return self._final_height >= flight.attempt.last_valid_block_height",
        "a transaction can land one block after its last valid height",
    ),
    Fault(
        "expiry-at-confirmed",
        "keeper.execution.lander",
        "height, slot = await self._client.block_height_and_slot()",
        'height, slot = await self._client.block_height_and_slot("confirmed")',
        "only the finalized height says that a signature is dead",
    ),
    Fault(
        "no-look-with-history",
        "keeper.execution.lander",
        "search_history=True)",
        "search_history=False)",
        "the last look-up before an expiry searches the history",
    ),
    Fault(
        "believes-a-node-behind",
        "keeper.execution.lander",
        "        if slot < final_slot:\n            return ops",
        "        if False:\n            return ops",
        "a node that is behind proves nothing by not knowing a signature",
    ),
    Fault(
        "confirmed-is-final",
        "keeper.solana.consensus",
        'return word == "finalized" or',
        'return word in ("confirmed", "finalized") or',
        "only what is finalized closes an entry",
    ),
    Fault(
        "never-sent-again",
        "keeper.execution.lander",
        "if f.attempt.state.in_flight and f.next_send_s <= now]",
        "if f.attempt.state.in_flight and f.next_send_s <= now < 0]",
        "what got lost is sent again",
    ),
    Fault(
        "recovery-finds-nothing",
        "keeper.execution.recovery",
        "attempts = await self._journal.open_attempts(markets=self._share)\n        rows =",
        "attempts = (await self._journal.open_attempts(markets=self._share))[:0]\n        rows =",
        "a start resolves the open attempts of the journal",
    ),
    Fault(
        "recovery-arms-what-failed",
        "keeper.execution.recovery",
        "                if row.state is OrderState.FAILED:\n",
        "                if False:\n",
        "what failed for good waits for an operator, also after a restart",
    ),
    Fault(
        "recovery-forgets-cancels",
        "keeper.execution.recovery",
        "if flight.cancels and not flight.read_back:",
        "if False:",
        "no execution is signed while a cancel may still land, also after a restart",
    ),
    Fault(
        "reconcile-dropped",
        "keeper.execution.recovery",
        "for address in missing:",
        "for address in missing[:0]:",
        "an order that ended while the keeper was down gets its named state",
    ),
    # -- fates
    Fault(
        "gives-up-on-transient",
        "keeper.execution.fates",
        "Fate.TRANSIENT: Policy(Next.BACK_OFF, costs_budget=True)",
        "Fate.TRANSIENT: Policy(Next.OPERATOR, costs_budget=True)",
        "a transient error is no reason to give an order up",
    ),
    Fault(
        "price-moved-back-stops",
        "keeper.execution.fates",
        "Fate.PRICE_MOVED_BACK: Policy(Next.NEXT_PRICE, costs_budget=False)",
        "Fate.PRICE_MOVED_BACK: Policy(Next.STOP, costs_budget=False)",
        "an order whose price moved back rests again",
    ),
    Fault(
        "same-price-again",
        "keeper.execution.orders",
        "while heap and heap[0][0] < slot and lifted != limit:",
        "while heap and heap[0][0] <= slot - 1_000_000 and lifted != limit:",
        "what waits for a later price is tried at that price",
    ),
    Fault(
        "account-wait-sleeps",
        "keeper.execution.account_wait",
        "if data != known.before:",
        "if False:",
        "an order that could not be paid for is tried again when it can",
    ),
    # -- the order's record
    Fault(
        "cancel-does-not-suspend",
        "keeper.execution.relay",
        "        self._orders.cancel_relayed(prepared.cancels, signature)\n        try:",
        "        pass\n        try:",
        "while a user's cancel is in the air nothing is signed against it",
    ),
    Fault(
        "cancel-suspends-for-ever",
        "keeper.execution.router",
        "                self.orders.cancel_over(flight.cancels, signature)\n",
        "                pass\n",
        "a cancel that came to nothing lets the order rest again",
    ),
    Fault(
        "attempt-never-over",
        "keeper.execution.router",
        "            self.orders.attempt_over(address, signature)\n",
        "            pass\n",
        "an order is free again after its attempt",
    ),
    Fault(
        "pause-never-over",
        "keeper.execution.orders",
        "while self._pauses and self._pauses[0][0] <= now_s:",
        "while self._pauses and self._pauses[0][0] <= now_s - 1e6:",
        "a pause ends",
    ),
    Fault(
        "freed-not-looked-at",
        "keeper.execution.orders",
        "        if known:\n            self.freed[address] = None\n            self.wake.set()",
        "        if known:\n            pass",
        "an order that is free again meets the present price",
    ),
    # -- prices and triggers
    Fault(
        "not-at-equality-below",
        "keeper.triggers.watchlist",
        "        falling, rising = self._triggers[market]\n        return falling.from_top(price_1e6, limit)",
        "        falling, rising = self._triggers[market]\n        return falling.from_top(price_1e6 + 1, limit)",
        "an order is met at its very trigger",
    ),
    Fault(
        "old-prices-decide",
        "keeper.triggers.prices",
        "chain_time_s - price.updated_at_s <= max_age_s else None",
        "chain_time_s - price.updated_at_s <= 10 * max_age_s else None",
        "a price that is too old decides nothing",
    ),
    Fault(
        "judges-by-the-wall-clock",
        "keeper.triggers.prices",
        "return wall_s if now_s is None else now_s",
        "return wall_s",
        "freshness is judged by the chain's clock, not by this machine's",
    ),
    Fault(
        "expires-by-the-wall-clock",
        "keeper.solana.clock",
        "self._intake.on_event(ChainTime(newest.slot, newest.unix_time_s))",
        "self._intake.on_event(ChainTime(newest.slot, int(time.time())))",
        "an order expires by the chain's clock, not by this machine's",
    ),
    Fault(
        "expiry-not-recorded",
        "keeper.triggers.decision",
        "return [RecordExpired(order) for order in self.book.expired(",
        "return [RecordExpired(order) for order in self.book.expired(-1e9 + ",
        "an order that is past its expiry gets its named state",
    ),
    # -- the watch
    Fault(
        "gone-not-told",
        "keeper.solana.watch",
        "                if address not in unread:\n",
        "                if False:\n",
        "a list finds what is gone",
    ),
    Fault(
        "ended-not-read",
        "keeper.execution.endings",
        "                self._journal.post(_end(address, order, slot, odd.get(address)))\n",
        "                pass\n",
        "an order that ended without the keeper gets its named state",
    ),
    Fault(
        "one-null-is-believed",
        "keeper.solana.gone",
        "missing = [i for i, account in enumerate(found) if account is None]",
        "missing = list[int]()",
        "no node is believed alone that an account is not there",
    ),
    Fault(
        "another-cluster-is-trusted",
        "keeper.solana.pool",
        "health.wrong_genesis = genesis != self._genesis",
        "health.wrong_genesis = False",
        "an endpoint on another cluster is asked for nothing",
    ),
    # -- money, positions, operators
    Fault(
        "budget-off-by-one",
        "keeper.execution.consequences",
        "record.tries.left(orders.limits) <= 1 and",
        "record.tries.left(orders.limits) <= 0 and",
        "an order costs no more than its retry budget",
    ),
    Fault(
        "position-not-checked",
        "keeper.execution.settlement",
        "elif attempt.position is not None and read.has_position(attempt.position, order):",
        "elif attempt.position is not None:",
        "a fill without its position is an alarm, not a success",
    ),
    Fault(
        "cap-ignored",
        "keeper.execution.purse",
        "self._spent + all_of_it > limits.daily_cap_lamports",
        "self._spent + all_of_it > 1_000 * limits.daily_cap_lamports",
        "no more leaves the key in a day than the cap says",
    ),
    Fault(
        "tip-not-as-noted",
        "keeper.execution.drafting",
        "budget, blockhash, crank, tip)",
        "budget, blockhash, crank, tip and type(tip)(tip.account, tip.lamports + 1))",
        "what an attempt pays a sender is what the journal has of it",
    ),
    Fault(
        "pause-does-not-stop",
        "keeper.execution.gate",
        "        self.is_open = False\n",
        "        self.is_open = True\n",
        "an operator's pause stops signing",
    ),
    Fault(
        "one-key-two-orders",
        "keeper.http.orders.preparing",
        "            if row is None:\n                try:\n",
        "            if True:\n                try:\n",
        "one idempotency key gives one order",
        also=(  # the journal refuses the second one twice: by its own rule, and by an index
            ("keeper.journal.applying", "            if taken is not None:\n", "            if False:\n"),
            (
                "keeper.journal.sqlite.schema",
                "CREATE UNIQUE INDEX one_prepared_per_key",
                "CREATE INDEX one_prepared_per_key",
            ),
        ),
    ),
    Fault(
        "generation-ignored",
        "keeper.execution.orders",
        "        elif record.order.identity != order.identity:\n",
        "        elif False:\n",
        "an order made again at an address begins anew",
    ),
    Fault(
        "relay-not-followed",
        "keeper.execution.relay",
        "        self._lander.track(flight)\n",
        "        flight.next_send_s = flight.next_poll_s = float('inf')\n",
        "a user's transaction is landed, sent again when it is lost, and its end is told",
    ),
    *OF_SEVERAL,
)
BY_NAME: Final = {fault.name: fault for fault in FAULTS}
