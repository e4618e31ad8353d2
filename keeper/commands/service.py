"""The keeper as a service: signals in, word to the supervisor out.

SIGTERM and SIGINT end it, and what is under way is written down first. SIGHUP reads the settings again
(`keeper.config.reloading`). The supervisor hears when it is ready and how it is. If it asked for pings, it gets them as
long as every loop that does the work goes round (`keeper.runtime.watchdog`).
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio
import structlog

from keeper.app import wiring
from keeper.app.endpoints import endpoints_of
from keeper.commands import EXIT_FAILED
from keeper.commands.notify import Notifier
from keeper.config.reloading import changes
from keeper.config.settings import Settings
from keeper.domain.errors import Misconfigured
from keeper.telemetry.logs import set_level

_AT_LEAST_EVERY_S: Final = 5.0
_log: Any = structlog.get_logger("keeper.service")


async def serve(settings: Settings, load: Callable[[], Settings], on_ready: Callable[[wiring.Ready], None]) -> None:
    """Run the keeper until a signal ends it. `load` reads the settings again, as they were read at the start."""
    notifier = Notifier.from_environment()
    notifier.status("starting: looking up what was open")
    service = _Service(notifier, settings, load)
    async with anyio.create_task_group() as tg:
        # The handlers come first: an early SIGHUP would otherwise end the process.
        await tg.start(service.listen, tg.cancel_scope)

        def ready(keeper: wiring.Ready) -> None:
            service.keeper = keeper
            service.standing_by = False
            for endpoint in endpoints_of(settings.rpc):
                # Only the log tells where it is: health and metrics are everybody's.
                _log.info("rpc.endpoint", endpoint=endpoint.label, host=endpoint.host)
            service.tell_ready()
            service.go_on()
            tg.start_soon(service.attend, keeper, name="supervisor")
            on_ready(keeper)

        def standing_by(why: str) -> None:
            if not service.standing_by:
                service.standing_by, service.keeper = True, None
                faulthandler.cancel_dump_traceback_later()
                tg.start_soon(service.stand_by, name="standing-by")
            service.told = f"standing by: {why}"
            notifier.ready(service.told)
            _log.info("keeper.standing_by", detail=why)

        try:
            await wiring.run(settings, on_ready=ready, on_stand_by=standing_by)
        finally:
            faulthandler.cancel_dump_traceback_later()
            notifier.close()


@dataclass(slots=True, repr=False)
class _Service:
    """`keeper` is None until it is ready, and while it stands by; `told` is the summary that the supervisor has."""

    notifier: Notifier
    settings: Settings
    load: Callable[[], Settings]
    keeper: wiring.Ready | None = None
    standing_by: bool = False
    told: str = ""

    async def listen(self, scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Act on signals until one of them ends the keeper, by cancelling `scope`."""
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
            detail = "the keeper is still starting; send SIGHUP again when it is ready"
            _log.warning("settings.not_reloaded", detail=detail)
            return
        self.notifier.reloading()
        try:
            found = changes(self.settings, self.load())
        except Misconfigured as e:
            _log.error("settings.not_reloaded", detail=str(e))
            self.tell_ready("; the changed settings are wrong, the old ones are in force")
            return
        self.settings = found.settings
        set_level(found.settings.log.level)
        self.keeper.reload(found.settings)
        _log.info("settings.reloaded", taken=found.taken)
        if found.need_restart:
            _log.warning("settings.need_restart", names=found.need_restart)
        self.tell_ready()

    def tell_ready(self, more: str = "") -> None:
        """Tell the supervisor that the start, or a reload, is over, and how the keeper is."""
        assert self.keeper is not None
        self.told = self.keeper.summary()
        self.notifier.ready(self.told + more)

    def go_on(self) -> None:
        """With `exit_when_stuck`, the process ends unless this is called again in time. A thread of the interpreter's
        own sees to that, which needs no event loop, and shows where each thread stood.
        """
        if self.settings.health.exit_when_stuck:
            faulthandler.dump_traceback_later(self.settings.health.stalled_after_s, exit=True)

    async def stand_by(self) -> None:
        """Ping the supervisor until there is work to attend to."""
        while self.standing_by:
            self.notifier.ping()
            await anyio.sleep(min(_AT_LEAST_EVERY_S, (self.notifier.watchdog_s or math.inf) / 3))

    async def attend(self, keeper: wiring.Ready) -> None:
        """Tell the supervisor how the keeper is, whenever it knows something else, and ping it while no loop is stuck.
        A stuck event loop does not even come here, which says the same.
        """
        told_stuck = False
        within_s = min(self.notifier.watchdog_s or math.inf, self.settings.health.stalled_after_s)
        while self.keeper is keeper:
            summary = keeper.summary()
            if summary != self.told:
                self.told = summary
                self.notifier.status(summary)
            stalled = keeper.stalled()
            if not stalled:
                self.notifier.ping()
                self.go_on()
            elif not told_stuck:
                self.notifier.stuck(f"stuck: {', '.join(stalled)}")
                if self.settings.health.exit_when_stuck:
                    _log.error("keeper.stuck", loops=stalled)
                    # What is open is in the journal; a stuck loop would not end by being cancelled.
                    os._exit(EXIT_FAILED)
            told_stuck = bool(stalled)
            await anyio.sleep(min(_AT_LEAST_EVERY_S, within_s / 3))
