"""What is looked at now and then, beside the loops that do the work."""

from __future__ import annotations

from functools import partial
from typing import Final

from anyio.abc import TaskGroup

from keeper.execution.assembly import Execution
from keeper.execution.balance import RecentFees
from keeper.execution.deployment import Deployment
from keeper.journal import Journal
from keeper.runtime.market_names import MarketNames
from keeper.runtime.schedule import Schedule
from keeper.solana.client import ChainClient

_BALANCE_EVERY_S: Final = 10.0
_LOST_EVERY_S: Final = 1.0
_FEES_EVERY_S: Final = 10.0
_PROGRAM_EVERY_S: Final = 5.0
_NAMES_EVERY_S: Final = 10.0


def look_after(
    schedule: Schedule,
    tasks: TaskGroup,
    client: ChainClient,
    journal: Journal,
    execution: Execution,
    deployment: Deployment,
) -> None:
    """Have each of them looked at, from now on until `tasks` are cancelled."""
    markets = execution.lookout.markets
    schedule.every(_BALANCE_EVERY_S, execution.balance.look, "balance", tasks)
    tasks.start_soon(execution.arming.run, name="arming")
    schedule.every(_LOST_EVERY_S, execution.recovery.look, "lost", tasks)
    schedule.every(journal.retention.prune_every_s, journal.prune, "retention", tasks)
    schedule.every(_FEES_EVERY_S, RecentFees(client, lambda: markets, execution.fees).look, "fees", tasks)
    schedule.every(_PROGRAM_EVERY_S, partial(deployment.look, execution.gate), "program", tasks)
    schedule.every(_NAMES_EVERY_S, MarketNames(journal, markets).look, "market-names", tasks)
