"""Arming on paper: the real armory and the real rounds of arming, with a signer, blockhashes and a wire of paper.

Every send is judged where it leaves: it is in the ledger, it is the order's one live attempt, it was built from the
order as that reads now, its blockhash lives, and no cancel of its user's is in the air.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import Order, OrderState
from keeper.execution.arming import Arming
from keeper.execution.armory import Armory, reading_of
from keeper.execution.drafting import Job
from keeper.execution.flights import Flight
from keeper.execution.limits import ArmingLimits, ExecutorLimits
from keeper.execution.orders import Reason
from keeper.journal.ops import Disarm, Launched
from keeper.solana.client import Blockhash

if TYPE_CHECKING:
    from tests.execution.paper_chain import Life

SLOTS_OF_LIFE = 12
"""A blockhash of this chain: renewed after a third of that, and not sent with after two thirds."""
LIMITS = ArmingLimits(2, 1_000.0, renew_blocks_old=4, most_blocks_old=8, dead_blocks_old=SLOTS_OF_LIFE)


class PaperArming:
    """Arms what is near when the test says so, and sends what is armed when a price meets it."""

    def __init__(self, life: Life, gate: Any, purse: Any) -> None:
        self._life = life
        self._tasks: set[asyncio.Future[None]] = set()
        self.left: Callable[[Job, Flight], None] = lambda job, flight: None
        parts: dict[str, Any] = {
            "drafting": cast(Any, self),
            "fees": SimpleNamespace(rules=None),
            "blockhashes": cast(Any, SimpleNamespace(current=self.blockhash)),
            "journal": cast(Any, life.ledger),
            "orders": life.orders,
            "gate": gate,
            "report": lambda report: None,
        }
        self.armory = Armory(
            **parts,
            retries=cast(Any, SimpleNamespace(learn_first=lambda attempts, tasks: None, drains=())),
            lander=cast(Any, life.hands),
            flights=life.flights,
            purse=purse,
            limits=ExecutorLimits(100),
            arming=LIMITS,
        )
        self.arming = Arming(
            **parts,
            armory=self.armory,
            decision=life.decision,
            busy=lambda: False,
            limits=LIMITS,
            off=False,
            share=life.share,
        )

    def blockhash(self) -> Blockhash:
        slot = self._life.chain.slot
        return Blockhash(f"of {slot}", slot + SLOTS_OF_LIFE, slot)

    def arm(self, order: Order, number: int, blockhash: Blockhash) -> Attempt:
        signature, height = self._life.signature(), blockhash.last_valid_block_height
        now_s = self._life.ledger.clock.time()
        return Attempt(
            signature,
            AttemptKind.EXECUTE,
            order.address,
            b"",
            blockhash.value,
            height,
            AttemptState.ARMED,
            number,
            now_s,
        )

    def launched(self, job: Job, attempt: Attempt) -> Launched:
        return Launched(job.order, attempt, "An attempt is on its way.", None, OrderState.EXECUTING)

    def withdrawn(self, job: Job) -> list[Disarm] | None:
        """What the intent of another attempt has to disarm; None when there may be none."""
        before = self.armory.get(job.order.address)
        if before is not None and before.flight is not None and self.launch(job):
            return None
        signatures = self.armory.withdraw(job, None)
        return None if signatures is None else [Disarm(signature) for signature in signatures]

    def launch(self, job: Job) -> bool:
        """Whether what is armed for the job's order left."""
        address, before = job.order.address, self.armory.get(job.order.address)
        if not job.executes or before is None:
            return False
        tasks = SimpleNamespace(start_soon=self._start)
        if self.armory.launch([job], cast(Any, tasks)):
            return False
        flight = self._life.flights.open[before.attempt.signature]
        self._judge(address, before.attempt, job)
        self.left(job, flight)
        return True

    def _judge(self, address: Pubkey, attempt: Attempt, job: Job) -> None:
        life = self._life
        held = life.ledger.rows.added.get(str(attempt.signature))
        assert held is not None, "it was sent, and the journal does not hold it"
        assert held.state is AttemptState.ARMED
        assert life.ledger.rows.live[str(address)] == str(attempt.signature), "another attempt is live"
        assert attempt.built_from == reading_of(job.order), "it was built from another reading"
        assert attempt.last_valid_block_height > life.chain.slot, "its blockhash is dead"
        assert not life.orders.has(address, Reason.CANCEL), "its user's cancel is in the air"
        assert attempt.signature not in life.chain.dead, "it had been given up"

    def _start(self, work: Callable[..., Any], *args: Any) -> None:
        self._tasks.add(asyncio.ensure_future(work(*args)))

    def signatures(self, address: Pubkey) -> Sequence[Signature]:
        """Those that the journal may hold as armed for the order."""
        armed = self.armory.get(address)
        return () if armed is None else armed.signatures
