"""The journal of these settings: where it lives, and how it is opened."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from keeper.config.settings import Settings
from keeper.journal import Home, Journal, Retention, home_of
from keeper.runtime.outside import Outside
from keeper.telemetry.reporting import Telemetry


def home_for(settings: Settings, outside: Outside, **standing_by: Any) -> Home:
    """Where it lives, for the keeper of these settings; `standing_by` are further words of `home_of`."""
    c = settings.cluster
    name = c.name or socket.gethostname()
    return home_of(settings.journal.place, outside.machine, keeper=name, lease_s=c.lease_s, **standing_by)


def open_journal(
    settings: Settings,
    home: Home,
    telemetry: Telemetry,
    outside: Outside,
    on_stand_by: Callable[[str], None] | None = None,
) -> AbstractAsyncContextManager[Journal]:
    """See Journal.open."""
    return Journal.open(
        home,
        retention=Retention(history_days=settings.journal.retention_days),
        on_group=telemetry.journal_group,
        inline_below_s=settings.journal.inline_below_ms / 1e3,
        machine=outside.machine,
        on_stand_by=on_stand_by,
    )
