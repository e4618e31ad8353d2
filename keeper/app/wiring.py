"""The keeper: a life that knows the chain, and in it the work of it, or the wait for that. No policy is here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from keeper.app.life import living
from keeper.app.standby import stand_by_and_work
from keeper.app.work import Ready as Ready
from keeper.app.work import work
from keeper.config.settings import Settings
from keeper.domain.errors import Misconfigured, first_of
from keeper.runtime.outside import REAL_WORLD, Outside

_SWITCH_INTERVAL_S: Final = 0.000_5


async def run(
    settings: Settings,
    *,
    on_ready: Callable[[Ready], None],
    on_stand_by: Callable[[str], None] | None = None,
    outside: Outside = REAL_WORLD,
) -> None:
    """Run the keeper until cancelled. Misconfigured, before anything is sent, when it can't work.

    Of several keepers on one database one works. `on_stand_by` is told whose lease another waits for; once it has
    handed the service over, or has found that another took over, and when the database goes away while it begins to
    work, it stands by, and is ready again when it takes over.
    """
    # The journal's thread needs the interpreter's lock a dozen times a commit, and would wait 5 ms for it each time.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    alone = on_stand_by is None or settings.journal.url is None
    try:
        async with living(settings, outside, alone=alone) as life:
            if on_stand_by is None or alone:
                await work(life, on_ready)
            else:
                await stand_by_and_work(life, on_ready, on_stand_by, work)
    except BaseExceptionGroup as group:
        if isinstance(error := first_of(group), Misconfigured):
            raise error from None  # whoever started it is told in one line
        raise
