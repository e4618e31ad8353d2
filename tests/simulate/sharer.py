"""One of several keepers: its lives, each a process of its own that can be killed, stopped and cut off.

Its homes, leases and stores are PostgreSQL's, unchanged, at a server of `tests.simulate.database`; its threads, locks
and clocks are simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import anyio
from anyio.abc import TaskStatus

from keeper.app import wiring
from keeper.config.settings import Settings
from keeper.http.ports import ApiPorts
from keeper.journal.postgres import leases
from keeper.runtime.outside import Outside
from tests.simulate.api import Api
from tests.simulate.database import places
from tests.simulate.database.server import Client, Server
from tests.simulate.dice import clock
from tests.simulate.life import Life, Lives
from tests.simulate.loop import VirtualLoop, owner
from tests.simulate.scenario import Several
from tests.simulate.threads import Killed, Threads, TurnCondition, TurnEvent, TurnLock, current

_READS_GIVE_UP_S: Final = 4.0
_IN_THREAD_S: Final = 0.002
_BEGINS: Final = "The orders of the chain are not known yet."


class SimWorld:
    """Virtual time. The event loop's thread waits for nothing: what it asks of a server is answered at once."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._threads = Threads(loop)

    def now(self) -> float:
        """See World."""
        return clock.real()

    def sleep(self, seconds: float) -> None:
        """See World."""
        thread = current()
        if thread is not None:
            thread.threads.sleep(seconds)

    def may_wait(self) -> bool:
        """See World."""
        return current() is not None

    def condition(self) -> TurnCondition:
        """See World."""
        return self._threads.condition()


def take_over() -> None:
    """From now on the leases' thread, its locks and its clocks are simulated, and so is who is at a URL."""
    places.take_over()
    vars(leases)["threading"] = SimpleNamespace(
        Lock=lambda: TurnLock(_here()),
        Event=lambda: TurnEvent(_here()),
        Thread=lambda target, name, daemon: _here().thread(target, name),
    )
    vars(leases)["time"] = SimpleNamespace(
        CLOCK_BOOTTIME=0,
        clock_gettime=lambda which: clock.monotonic(),
        monotonic=clock.monotonic,
        time=clock.time,
        sleep=lambda seconds: _here().sleep(seconds),
    )


def _here() -> Threads:
    thread = current()
    assert thread is not None, "what waits runs in a thread"
    return thread.threads


class _Listener:
    """A socket on which nobody can connect."""

    def __init__(self, port: int) -> None:
        self._port = port

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", self._port)

    def dup(self) -> _Listener:
        return self

    def close(self) -> None:
        pass


class Sharer(Life):
    """One life of one of several keepers. `served` is True when it has stood by, or worked."""

    at_port: ClassVar[dict[int, Sharer]] = {}
    """The present lives, by where their APIs are."""

    def __init__(self, *args: Any, client: Client) -> None:
        super().__init__(*args)
        self.threads.joins_wait = True
        self._context = copy_context()
        self.client = client
        client.gone = self._still_here
        self.joined = False
        """Whether it has worked or stood by for others on this database."""
        self.stopped = False
        self.free_since = 0.0
        """When it was let go on, or was connected again; unix seconds of the simulation."""
        self.ready_at = 0.0
        self.bystander: Api | None = None
        self._scope = anyio.CancelScope()
        self._awaited: dict[Any, None] = {}
        """What threads are to give, and will not when it is dead."""

    @property
    def outside(self) -> Outside:
        port = self._settings.http.port
        base = super().outside
        return Outside(
            transport=base.transport,
            connect=base.connect,
            machine=base.machine,
            schedule=base.schedule,
            lag=base.lag,
            run_api=self._run_api,
            listen=lambda host, wanted: _Listener(port),  # type: ignore[arg-type, return-value]
        )

    @property
    def asked(self) -> Api | None:
        return self.api or self.bystander

    def start(self) -> None:
        self.at_port[self._settings.http.port] = self
        self._context.run(owner.set, self)
        self._context.run(super().start)

    async def _live(self) -> None:
        with self._scope:
            await wiring.run(
                self._settings,
                on_ready=self._became_ready,
                on_stand_by=self._stands_by,
                outside=self.outside,
            )

    async def _in_thread(self, work: Callable[..., Any], *args: Any, limiter: Any = None) -> Any:
        await anyio.sleep(self._dice.random() * _IN_THREAD_S)
        if self.dead:
            await anyio.sleep_forever()
        if limiter is not None:  # it reads
            with anyio.move_on_after(_READS_GIVE_UP_S):
                while self.client.cut:  # noqa: ASYNC110 - in virtual time a look costs nothing
                    await anyio.sleep(0.1)
            return work(*args)
        done = self._loop.create_future()
        thread = self.threads.thread(partial(self._work, done, partial(work, *args)), "worker")
        thread.start()
        self._awaited[done] = None
        try:
            with anyio.CancelScope(shield=True):
                return await done
        finally:
            del self._awaited[done]

    def _work(self, done: Any, work: Callable[[], Any]) -> None:
        try:
            result = work()
        except Killed:
            raise
        except BaseException as error:
            self._loop.call_soon_threadsafe(_settle, done, error, None)
        else:
            self._loop.call_soon_threadsafe(_settle, done, None, result)

    async def _run_api(
        self,
        ports: ApiPorts,
        host: str,
        port: int,
        wallets: Any = (),
        *,
        listener: Any = None,
        task_status: TaskStatus[int],
    ) -> None:
        self.served = True
        api = Api(ports, wallets, copy_context())
        works = ports.standing_by is None
        if works:
            self.api = api
        else:
            self.bystander = api
        try:
            await api.serve(task_status)
        finally:
            if self.api is api:
                self.api, self.ready = None, False
            elif self.bystander is api:
                self.bystander = None

    def _stands_by(self, why: str) -> None:
        self.link.network.trace.note("stands by", f"{self.client.name}: {why}")
        # Before that it has not worked with the database yet: a start that meets none ends.
        self.joined = self.joined or not why.startswith(_BEGINS)

    def _became_ready(self, ready: wiring.Ready) -> None:
        self.joined = True
        self.ready_at = clock.real()
        super()._became_ready(ready)

    def _still_here(self) -> None:
        if self.dead:
            raise Killed

    def die(self, *, power_cut: bool) -> tuple[bytes, bytes]:
        kept = super().die(power_cut=power_cut)
        self._loop.go_on(self)
        return kept

    def _bury(self) -> None:
        super()._bury()
        for done in self._awaited:
            done.cancel()

    def end(self) -> None:
        self.told_to_end = True
        # A step of its own: who is stopped hears of it when it goes on.
        self._loop.call_soon(self._scope.cancel, context=self._context)

    # -- SIGSTOP and SIGCONT

    def stop(self) -> None:
        """It takes no step more."""
        self.stopped = True
        self._loop.stop_steps(self)

    def go_on(self) -> None:
        """It goes on where it was."""
        if self.stopped:
            self.stopped, self.free_since = False, clock.real()
            self._loop.go_on(self)


def _settle(done: Any, error: BaseException | None, result: Any) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


class KeeperLives(Lives):
    """Keeps one of several keepers alive."""

    def __init__(self, name: str, port: int, server: Server, several: Several, world: SimWorld, *args: Any) -> None:
        super().__init__(*args)
        self.name = name
        self._port, self._server, self._several, self._world = port, server, several, world
        self.stops = 0
        """How often it was stopped at a COMMIT."""
        self.stop_at_commit: tuple[int, bool, float] | None = None
        """After so many COMMITs, whether before that one, for how long."""

    @property
    def label(self) -> str:
        return f"{self.name}.{self.number}"

    @property
    def sharer(self) -> Sharer | None:
        """The present life, if it is not over."""
        life = self.life
        return life if isinstance(life, Sharer) and not life.dead else None

    def _next_life(self) -> Life:
        client = Client(self.name)
        url = places.address(self._server, client, self._world, self._dice)
        several = self._several
        folder = self._folder / f"{self.name}-{self.number}"

        def settings(path: Path) -> Settings:
            told = self._settings(path)
            cluster = {"name": self.name, "lease_s": several.lease_s, "share_markets": several.share}
            return told.model_copy(
                update={
                    "journal": type(told.journal)(url=url),
                    "cluster": told.cluster.model_copy(update=cluster),
                    "http": told.http.model_copy(update={"port": self._port}),
                }
            )

        life = Sharer(self._loop, self._network, settings, folder, self._dice, client=client)
        client.on_commit = partial(self._at_commit, life)
        self._trace.note("life", f"{self.label} begins")
        return life

    def _at_commit(self, life: Sharer, before: bool) -> None:
        self._on_commit(life, before)
        if self.stop_at_commit is None or life is not self.life or life.dead:
            return
        left, wants_before, seconds = self.stop_at_commit
        if before != wants_before:
            return
        self.stop_at_commit = None if left <= 1 else (left - 1, wants_before, seconds)
        if left <= 1:
            self._trace.note("life", f"{self.label} is stopped {'before' if before else 'after'} a commit")
            self.stops += 1
            life.stop()
            self._loop.call_at(self._loop.time() + seconds, life.go_on, context=_nobodys_context())

    def kill(self, *, power_cut: bool, why: str) -> None:
        life = self.sharer
        super().kill(power_cut=power_cut, why=why)
        if life is not None and not power_cut:
            self._server.hang_up(life.client)

    def _ended_by_itself(self, life: Life) -> None:
        if isinstance(life, Sharer):
            life.served = life.joined
            self._server.hang_up(life.client)
        super()._ended_by_itself(life)


def _nobodys_context() -> Context:
    """A context that is no keeper's."""
    context = copy_context()
    context.run(owner.set, None)
    return context
