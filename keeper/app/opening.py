"""The journal of these settings: where it lives, and how it is opened."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final

from keeper.config.settings import Settings
from keeper.domain.urls import in_url
from keeper.journal import Home, Journal, Retention, home_of
from keeper.runtime.outside import Outside
from keeper.telemetry.reporting import Telemetry

_EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - nothing listens here


def name_of(settings: Settings) -> str:
    """This keeper's among several."""
    return settings.cluster.name or socket.gethostname()


def home_for(
    settings: Settings,
    outside: Outside,
    *,
    port: int = 0,
    fit: Callable[[], bool] = lambda: True,
    markets: Callable[[], Iterable[str]] = tuple,
) -> Home:
    """Where it lives, for the keeper of these settings. `port` is its API's, `fit` says whether it can work, and
    `markets` which there are.
    """
    c, host = settings.cluster, settings.http.host
    # At every address of this machine: the others know it by its name.
    reached_at = socket.gethostname() if host in _EVERY_ADDRESS else in_url(host)
    return home_of(
        settings.journal.place,
        outside.machine,
        keeper=name_of(settings),
        lease_s=c.lease_s,
        api_url=c.url or f"http://{reached_at}:{port}",
        fit=fit,
        markets=markets if c.share_markets else None,
    )


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
