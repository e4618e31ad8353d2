"""The keeper as a service: signals in, word to the supervisor out.

SIGTERM and SIGINT end it, and what is under way is written down first. SIGHUP reads the settings again
(`keeper.config.reloading`). The supervisor hears when it is ready, how it is, and, if it asked for pings, gets them as
long as every loop that does the work goes round (`keeper.runtime.watchdog`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final

import anyio
import structlog

from keeper import app
from keeper.config.reloading import changes
from keeper.config.settings import Settings
from keeper.errors import Misconfigured
from keeper.runtime.notify import Notifier
from keeper.telemetry.logs import set_level

_STATUS_EVERY_S: Final = 5.0
_log: Any = structlog.get_logger("keeper.service")


async def serve(settings: Settings, load: Callable[[], Settings], on_ready: Callable[[app.Ready], None]) -> None:
    """Run the keeper until a signal ends it. `load` reads the settings again, as they were read at the start."""
    service = _Service(settings, load, Notifier.from_environment())
    service.notifier.status("starting: looking up what was open")
    async with anyio.create_task_group() as tg:
        # The handlers come first: an early SIGHUP would otherwise end the process.
        await tg.start(service.listen, tg.cancel_scope)

        def ready(keeper: app.Ready) -> None:
            service.keeper = keeper
            service.notifier.ready(service.tell())
            tg.start_soon(service.tell_status, name="status")
            if service.notifier.watchdog_s is not None:
                tg.start_soon(service.feed_watchdog, service.notifier.watchdog_s, name="watchdog-pings")
            on_ready(keeper)

        try:
            await app.run(settings, on_ready=ready)
        finally:
            service.notifier.close()


class _Service:
    def __init__(self, settings: Settings, load: Callable[[], Settings], notifier: Notifier) -> None:
        self.notifier = notifier
        self.keeper: app.Ready | None = None
        self._settings = settings
        self._load = load
        self._told = ""  # the summary that the supervisor has

    async def listen(self, scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Act on signals until one of them ends it all."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self.reload()
                    continue
                self.notifier.stopping("stopping: writing down what is under way")
                _log.info("keeper.stopping", signal=signal.Signals(number).name)
                scope.cancel()
                return

    def reload(self) -> None:
        """Read the settings again and take up what can be taken up; wrong ones change nothing."""
        if self.keeper is None:
            _log.warning(
                "settings.not_reloaded", detail="the keeper is still starting; send SIGHUP again when it is ready"
            )
            return
        self.notifier.reloading()
        try:
            found = changes(self._settings, self._load())
        except Misconfigured as e:
            _log.error("settings.not_reloaded", detail=str(e))
            self.notifier.ready(f"{self.tell()}; the changed settings are wrong, the old ones are in force")
            return
        self._settings = found.settings
        set_level(found.settings.log.level)
        self.keeper.reload(found.settings)
        _log.info("settings.reloaded", taken=found.taken)
        if found.need_restart:
            _log.warning("settings.need_restart", names=found.need_restart)
        self.notifier.ready(self.tell())

    def summary(self) -> str:
        """How it is, on one line."""
        assert self.keeper is not None
        return self.keeper.summary()

    def tell(self) -> str:
        """The summary, which the caller tells the supervisor."""
        self._told = self.summary()
        return self._told

    async def tell_status(self) -> None:
        """Tell how it is, when that is not what the supervisor has."""
        while True:
            await anyio.sleep(_STATUS_EVERY_S)
            if self.summary() != self._told:
                self.notifier.status(self.tell())

    async def feed_watchdog(self, within_s: float) -> None:
        """Ping while no loop is stuck. A stuck event loop does not even come here, which says the same."""
        assert self.keeper is not None
        told = False
        while True:
            stalled = self.keeper.stalled()
            if not stalled:
                self.notifier.ping()
                told = False
            elif not told:
                self.notifier.stuck(f"stuck: {', '.join(stalled)}")
                told = True
            await anyio.sleep(min(within_s / 3, 5.0))
