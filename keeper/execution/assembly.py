"""Execution, put together: each part is made after those that it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from anyio.abc import TaskGroup
from solders.pubkey import Pubkey

from keeper.domain.errors import JournalError
from keeper.domain.reports import Report
from keeper.execution.account_wait import AccountWait
from keeper.execution.arming import Arming
from keeper.execution.armory import Armory
from keeper.execution.balance import BalanceWatch
from keeper.execution.desk import Desk
from keeper.execution.drafting import Drafting, FeePolicy, FeeRules, Tips
from keeper.execution.endings import Endings
from keeper.execution.executor import Executor
from keeper.execution.flights import Flights
from keeper.execution.gate import Gate
from keeper.execution.lander import Lander
from keeper.execution.limits import ExecutionLimits, ExecutorLimits
from keeper.execution.lookout import Lookout
from keeper.execution.operator import Operator
from keeper.execution.orders import Orders
from keeper.execution.purse import Purse, PurseLimits
from keeper.execution.recovery import Recovery
from keeper.execution.relay import RelayDesk
from keeper.execution.retries import Retries
from keeper.execution.router import Router
from keeper.execution.settlement import Settlement
from keeper.execution.strangers import StrangersFills
from keeper.execution.ways import Ways
from keeper.journal import Journal, workers
from keeper.solana.client import ChainClient
from keeper.solana.senders import Sender
from keeper.solana.transactions import Blockhashes, Signer
from keeper.venue.venue import Venue


class Execution:
    """The parts that others meet, by their names."""

    def __init__(
        self,
        *,
        client: ChainClient,
        venue: Venue,
        signer: Signer,
        authority: Signer | None,
        blockhashes: Blockhashes,
        journal: Journal,
        lookout: Lookout,
        limits: ExecutionLimits,
        rent_lamports: int,
        spent: tuple[str, int],
        report: Callable[[Report], None],
        senders: Sequence[Sender] = (),
        share: frozenset[Pubkey] | None = None,
    ) -> None:
        """`share`: the markets that this keeper works on, for as long as this lasts; None for all."""
        self._journal = journal
        self._report = report
        self.share = share
        self.dry_run = dry_run = limits.dry_run
        self.gate = gate = Gate(report)
        self.flights = flights = Flights()
        self.lookout = lookout
        self.decision = decision = lookout.decision
        self.orders = orders = Orders(decision.book, limits.retries)
        self.fees = fees = FeePolicy(limits.fees)
        self.purse = purse = Purse(signer.address, limits.purse, rent_lamports=rent_lamports, spent=spent)
        self.ways = ways = Ways(senders, journal, report) if senders else None
        self.lander = lander = Lander(client, journal, flights, limits.landing, report, ways=ways, dry_run=dry_run)
        executor_limits = ExecutorLimits(limits.max_in_flight)
        tipped = [sender.tip_accounts for sender in senders if sender.tip_accounts]
        tips = Tips(tipped, fees) if tipped else None
        keeps_s = executor_limits.keeps_s
        drafting = Drafting(venue, signer, authority, fees, tips=tips, keeps_s=keeps_s, dry_run=dry_run)
        retries = Retries(client, venue, journal, orders, fees, tips, report, rent_lamports=rent_lamports)
        self.armory = armory = Armory(
            drafting=drafting,
            fees=fees,
            retries=retries,
            blockhashes=blockhashes,
            journal=journal,
            lander=lander,
            flights=flights,
            orders=orders,
            purse=purse,
            gate=gate,
            report=report,
            limits=executor_limits,
            arming=limits.arming,
        )
        self.executor = executor = Executor(
            drafting=drafting,
            armory=armory,
            retries=retries,
            blockhashes=blockhashes,
            journal=journal,
            lander=lander,
            flights=flights,
            orders=orders,
            purse=purse,
            gate=gate,
            report=report,
            limits=executor_limits,
            dry_run=dry_run,
        )
        self.arming = Arming(
            armory=armory,
            decision=decision,
            drafting=drafting,
            fees=fees,
            blockhashes=blockhashes,
            journal=journal,
            orders=orders,
            gate=gate,
            busy=lambda: executor.has_work,
            report=report,
            limits=limits.arming,
            off=dry_run or not venue.arms,
            share=share,
        )
        bare = limits.accept_fills_without_position
        self.router = router = Router(
            lookout=lookout,
            orders=orders,
            journal=journal,
            flights=flights,
            gate=gate,
            purse=purse,
            executor=executor,
            lander=lander,
            settlement=Settlement(client, venue, orders, purse, report, accept_fills_without_position=bare),
            endings=Endings(client, venue, journal, orders, StrangersFills(client, venue, decision, report)),
            accounts=AccountWait(client, venue, orders, every_s=limits.account_every_s),
            armory=armory,
            report=report,
            share=share,
        )
        self.desk = Desk(lookout, orders, share)
        self.operator = Operator(journal, gate, router, report, share)
        self.recovery = Recovery(
            journal, lander, flights, armory, router, orders, purse, venue, report, dry_run=dry_run, share=share
        )
        self.balance = BalanceWatch(client, signer.address, gate, purse)

    async def close(self) -> None:
        """Leave nothing behind: no armed attempt that the next one to work had to look up, and no order that the book
        does not watch.
        """
        try:
            await self.arming.close()
        finally:
            self.orders.let_go()

    def relay(self, tasks: TaskGroup) -> RelayDesk:
        """Who takes users' own transactions in; their first sends run in `tasks`."""
        return RelayDesk(self._journal, self.lander, self.orders, tasks, self._report, dry_run=self.dry_run)

    @property
    def busy(self) -> bool:
        """Whether there are orders to sign, or a commit that a send waits for."""
        return self.executor.has_work or self._journal.waiting_callers > 0

    async def hear_of_others(self) -> None:
        """Where other keepers work on the same journal: what they spent of the day's cap, and whether an operator told
        one of them to pause or to go on.
        """
        with contextlib.suppress(JournalError):  # health tells of it
            day = self.purse.day
            self.purse.keepers = max(1, len(workers(self._journal.leases)))
            self.purse.learn_spent(day, await self._journal.spent(day))
            await self.operator.load()

    def reload(self, fees: FeeRules, purse: PurseLimits) -> None:
        """What the next attempt may cost. Attempts that are under way keep what they were signed with."""
        self.fees.rules, self.purse.limits = fees, purse
