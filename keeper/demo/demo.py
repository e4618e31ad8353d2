"""The demo from the start of the chain to the last line: what is started in which order, and what is connected."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from rich.console import Console
from solders.keypair import Keypair

from keeper.demo.api import KeeperApi
from keeper.demo.audit import audit
from keeper.demo.board import Board
from keeper.demo.feed import Feed
from keeper.demo.files import write_key
from keeper.demo.keepers import running
from keeper.demo.ledger import read_ledger
from keeper.demo.options import MAX_PRICE_AGE_S, SLOT_MS, DemoOptions
from keeper.demo.plan import ORDERS_PER_USER, plan
from keeper.demo.processes import Child, started
from keeper.demo.screen import Screen, closing
from keeper.demo.sending import Sender, connected
from keeper.demo.story import Story
from keeper.demo.summary import Summary, summarize
from keeper.demo.validator import Validator, started_validator
from keeper.demo.watching import Watcher
from keeper.demo.world import build_world
from keeper.domain.errors import KeeperError
from keeper.venue.program import Program

EXIT_FAILED: Final = 1
_EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "place_order.py"
"""In a checkout; an installed package has none."""
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


def run_demo(options: DemoOptions, program: Program, validator: Validator | None = None) -> int:
    """Play the demo; returns the exit code. What it wrote stays on disk when it failed.

    The chain is the embedded one, or a real `validator`.
    """
    console = Console(stderr=options.as_json)
    directory = Path(tempfile.mkdtemp(prefix="keeper-demo-"))
    demo = _Demo(options, program, validator, directory, console)
    try:
        anyio.run(demo.run)
    except* KeeperError as group:
        console.print(f"The demo stopped: {demo.obituary() or _first(group)}", style="red", highlight=False)
    code = demo.exit_code()
    if code != EXIT_FAILED:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        console.print(f"Logs, settings and journal are in {directory}", highlight=False)
    return code


class _Demo:
    def __init__(
        self, options: DemoOptions, program: Program, validator: Validator | None, directory: Path, console: Console
    ) -> None:
        self._options = options
        self._program = program
        self._validator = validator
        self._directory = directory
        self._console = console
        self._children: list[Child] = []
        self._interrupted = False
        self._summary: Summary | None = None
        self._started = time.monotonic()

    def exit_code(self) -> int:
        if self._summary is not None:
            return 0 if self._summary.ok else EXIT_FAILED
        return EXIT_INTERRUPTED if self._interrupted else EXIT_FAILED

    def obituary(self) -> str | None:
        """Which process ended by itself: then whatever else failed is its consequence."""
        return next((text for child in self._children if (text := child.obituary())), None)

    async def run(self) -> None:
        # Open to the very end: a second signal must not leave the chain and the keeper behind.
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._stop_on_signal, signals, tg.cancel_scope)
                await self._play(tg)
                tg.cancel_scope.cancel()
        if self._interrupted and self._summary is None:
            self._console.print("Interrupted: the keeper and the chain are stopped.", style="yellow")

    async def _stop_on_signal(self, signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
        async for _ in signals:
            self._interrupted = True
            scope.cancel()

    async def _play(self, tg: TaskGroup) -> None:
        options, rng = self._options, random.Random(self._options.seed)  # noqa: S311 - a repeatable walk, no secret
        orders = plan(options.orders, options.poor, rng)
        board = Board(wanted=orders.payable + options.poor)
        screen = Screen(board, self._console)
        tg.start_soon(screen.run)
        async with AsyncExitStack() as stack:
            chain = await stack.enter_async_context(self._chain())
            self._children.append(chain)
            client = await stack.enter_async_context(connected(chain.ready["rpc_url"]))

            board.scene = "Creating markets and funded traders"
            key = Keypair()
            traders = -(-orders.payable // ORDERS_PER_USER)
            sender = Sender(client)
            world = await build_world(self._program, sender, traders, options.poor, key.pubkey())

            board.scene = "Starting the keeper" if options.keepers == 1 else "Starting PostgreSQL and the keepers"
            keepers = await stack.enter_async_context(running(options.keepers, self._directory, key, chain.ready))
            if keepers.working is not None:
                self._children.append(keepers.working)
            takeover = keepers.kill_the_working_one if options.keepers > 1 else None
            api = await stack.enter_async_context(KeeperApi(lambda: keepers.http_url, patient=takeover is not None))

            feed = Feed(self._program, sender, world.oracle, world.markets)
            watcher = Watcher(api, board)
            story = Story(options, orders, world, api, feed, watcher, board, rng, takeover)
            async with anyio.create_task_group() as behind:
                behind.start_soon(feed.heartbeat)
                behind.start_soon(watcher.run)
                await story.play()
                board.scene = "Reading the chain's ledger"
                await watcher.finish()
                ledger = await read_ledger(client, self._program, world.markets.values(), story.placed)
                verdict = audit(
                    ledger,
                    self._program,
                    key.pubkey(),
                    max_price_age_s=MAX_PRICE_AGE_S,
                    slot_s=SLOT_MS / 1_000,
                )
                board.scene, board.progress = "Done", 1.0
                await screen.close()
                summary = summarize(
                    verdict,
                    board.latencies_ms,
                    placed=len(story.placed),
                    poor=story.poor,
                    seconds=time.monotonic() - self._started,
                )
                self._summary = summary
                self._console.print(closing(summary), soft_wrap=not self._console.is_terminal)
                places: dict[str, str] = {}
                if options.hold:
                    trader_key = write_key(self._directory / "trader.json", world.traders[0])
                    places = {
                        "rpc_url": chain.ready["rpc_url"],
                        "http_url": keepers.http_url,
                        "trader_key": str(trader_key),
                    }
                    self._tell_places(places)
                if options.as_json:
                    print(json.dumps(summary.document() | places), flush=True)
                if options.hold:
                    await anyio.sleep_forever()
                behind.cancel_scope.cancel()

    def _chain(self) -> AbstractAsyncContextManager[Child]:
        if self._validator is not None:
            return started_validator(self._validator, self._program.id, self._directory)
        arguments = ["localnet", "--rpc-port", "0", "--slot-ms", str(SLOT_MS), "--json"]
        return started("chain", arguments, self._directory / "chain.log")

    def _tell_places(self, places: dict[str, str]) -> None:
        """Where everything is, for whoever wants to go on from here."""
        api = places["http_url"]
        lines = [f"The chain is at {places['rpc_url']}; the keeper's settings and logs are in {self._directory}."]
        lines += [f"Its page is at {api}/, its API at {api}/docs."]
        if _EXAMPLE.exists():
            order = ["--api", api, "--key", places["trader_key"], "--type", "take_profit", "--trigger", "1"]
            lines += ["Place an order of your own:", f"  {shlex.join([sys.executable, str(_EXAMPLE), *order])}"]
        self._console.print("\n".join([*lines, "Ctrl-C ends both."]), highlight=False, soft_wrap=True)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
