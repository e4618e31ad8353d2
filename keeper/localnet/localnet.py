"""A localnet: a bank, its servers, and the clock that makes its blocks."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus
from solders.pubkey import Pubkey

from keeper.localnet.bank import Bank, BankSettings
from keeper.localnet.config import LocalnetConfig
from keeper.localnet.http_server import RpcApp, serve_http
from keeper.localnet.program import PROGRAM_ID, PROGRAM_SO
from keeper.localnet.rpc import bank_dispatcher
from keeper.localnet.subscriptions import Subscriptions
from keeper.localnet.websocket_server import serve_websocket

if TYPE_CHECKING:
    from keeper.localnet.geyser import Geyser

_PAIR_TRIES = 50


class ProgramError(ValueError):
    """A program to deploy is none that the VM can load; the message names its address and file."""


class Localnet:
    """Serves a chain while it is entered: `async with Localnet(LocalnetConfig(rpc_port=0)) as net`.

    Many can run in one process, each with its own chain and ports. The chain is in memory and is gone at
    the end. `bank` moves and breaks it, from the event loop's thread; nothing here is thread-safe.

    `geyser` is the Yellowstone gRPC service, when the settings ask for it: tests break it.

    `program_id` is the reference program's address, `has_program` whether it is deployed. Entering raises OSError
    when a port is taken and ProgramError when a program cannot be deployed.
    """

    def __init__(self, config: LocalnetConfig | None = None) -> None:
        self.config = config or LocalnetConfig()
        self.bank = _bank(self.config)
        self.program_id = Pubkey.from_string(PROGRAM_ID)
        self.geyser: Geyser | None = None
        self._ports = (0, 0)
        self._geyser_port = 0
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Localnet {self.rpc_url} {self.bank!r}>"

    @property
    def has_program(self) -> bool:
        """Whether a program is at `program_id`."""
        return self.config.reference_program or self.program_id in dict(self.config.programs)

    @property
    def rpc_url(self) -> str:
        """The JSON-RPC endpoint; its port is known once entered."""
        return f"http://{self.config.bind_address}:{self._ports[0]}"

    @property
    def ws_url(self) -> str:
        """The WebSocket endpoint."""
        return f"ws://{self.config.bind_address}:{self._ports[1]}"

    @property
    def geyser_url(self) -> str | None:
        """The Yellowstone gRPC endpoint, when there is one."""
        return f"http://{self.config.bind_address}:{self._geyser_port}" if self.geyser is not None else None

    async def __aenter__(self) -> Self:
        self.bank.chain.alpenglow_from = self.config.alpenglow_from
        for program_id, path in _programs(self.config):
            try:
                self.bank.add_program(program_id, path)
            except (OSError, ValueError) as exc:
                raise ProgramError(f"{program_id}: cannot deploy {path}: {exc}") from exc
        for address, account in self.config.accounts:
            self.bank.set_account(address, account)
        if self.config.first_slot:
            self.bank.advance(skip=self.config.first_slot - 1)
            # Nothing behind it is to be read any more.
            while self.bank.chain.root.slot < self.config.first_slot:
                self.bank.advance()
        http, websocket = listen_pair(self.config.bind_address, self.config.rpc_port)
        self._ports = (http.getsockname()[1], websocket.getsockname()[1])
        async with AsyncExitStack() as stack:
            stack.callback(http.close)
            stack.callback(websocket.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            await self._start(tasks, http, websocket)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            return await self._stack.__aexit__(exc_type, exc, traceback)
        # Hidden from the task group, which would wrap what the caller raised in an exception group.
        await self._stack.__aexit__(None, None, None)
        return None

    async def _start(self, tasks: TaskGroup, http: socket.socket, websocket: socket.socket) -> None:
        config = self.config
        subscriptions = Subscriptions(self.bank)
        app = RpcApp(bank_dispatcher(self.bank), max_body_bytes=config.max_body_bytes)
        await tasks.start(serve_http, app, http, name="localnet-http")

        async def websocket_server(*, task_status: TaskStatus[None]) -> None:
            await serve_websocket(
                subscriptions,
                websocket,
                queue_messages=config.client_queue_messages,
                task_status=task_status,
            )

        await tasks.start(websocket_server, name="localnet-websocket")
        if config.geyser_port is not None:
            # Its libraries are loaded by those who want it.
            from keeper.localnet.geyser import Geyser, serve_geyser

            self.geyser = Geyser(self.bank, token=config.geyser_token, queue_messages=config.client_queue_messages)
            serve = partial(serve_geyser, self.geyser, config.bind_address, config.geyser_port)
            self._geyser_port = await tasks.start(serve, name="localnet-geyser")
        if config.slot_ms:
            tasks.start_soon(make_blocks, self.bank, config.slot_ms, config.pace_change, name="localnet-blocks")


async def make_blocks(bank: Bank, slot_ms: int, change: tuple[int, int] | None = None) -> None:
    """Begin a block every `slot_ms` milliseconds; of `change`, a slot and another number, that many from the slot on.
    After a pause of the process it does not hurry to catch up.
    """
    slot_s = slot_ms / 1_000
    due = anyio.current_time() + slot_s
    while True:
        await anyio.sleep_until(due)
        tip = bank.advance()
        if change is not None and tip.slot >= change[0]:
            slot_s = change[1] / 1_000
        due = max(due, anyio.current_time() - slot_s) + slot_s


def listen_pair(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Listening sockets on `port` and the next one; 0 finds a free pair. Raises OSError naming the port."""
    if port:
        return _listen_both(address, port)
    for _ in range(_PAIR_TRIES):
        with _listen(address, 0) as probe:
            candidate = probe.getsockname()[1]
        try:
            return _listen_both(address, candidate)
        except OSError:
            continue
    raise OSError(f"found no two free ports in a row on {address} in {_PAIR_TRIES} tries")


def _listen_both(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    first = _listen(address, port)
    try:
        return first, _listen(address, port + 1)
    except BaseException:
        first.close()
        raise


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # With the protocol named, asyncio switches Nagle's algorithm off for what is accepted; else it does not.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(1024)
    except OSError as exc:
        listening.close()
        raise OSError(exc.errno, f"cannot listen on {address} port {port}: {exc.strerror}") from exc
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _bank(config: LocalnetConfig) -> Bank:
    return Bank(
        BankSettings(
            confirmed_slots=config.confirmed_slots,
            finalized_slots=config.finalized_slots,
            status_cache_blocks=config.status_cache_blocks,
            history_transactions=config.history_transactions,
            history_slots=config.history_slots,
            seed=config.seed,
        )
    )


def _programs(config: LocalnetConfig) -> list[tuple[Pubkey, Path]]:
    reference = Pubkey.from_string(PROGRAM_ID)
    programs = list(config.programs)
    if config.reference_program and all(program_id != reference for program_id, _ in programs):
        programs.append((reference, PROGRAM_SO))
    return programs
