"""The cable between a keeper and its database: it can be cut, and mended."""

from __future__ import annotations

import asyncio
from typing import Final, Self

from tests.chaos.both_ways import until_one_ends

_CHUNK: Final = 65_536


class Cable:
    """Listens on a port of this machine while entered, and forwards to a server's socket file.

    `cut` holds everything, as a network does that loses all packets: what was sent arrives late, when it is mended.
    `tear` resets what is connected, and whoever connects.
    """

    def __init__(self, socket_file: str) -> None:
        self._socket_file = socket_file
        self._whole = asyncio.Event()
        self._whole.set()
        self._torn = False
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "it is not entered"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._end_all()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    def cut(self) -> None:
        """Hold everything from now on."""
        self._whole.clear()

    def tear(self) -> None:
        """Reset everything from now on."""
        self._torn = True
        self._end_all()

    def mend(self) -> None:
        """Let through what was held, and whoever connects."""
        self._torn = False
        self._whole.set()

    def _end_all(self) -> None:
        for handler in self._handlers:
            handler.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        server: asyncio.StreamWriter | None = None
        try:
            if self._torn:
                return
            await self._whole.wait()
            answers, server = await asyncio.open_unix_connection(self._socket_file)
            await until_one_ends(self._pass_on(reader, server), self._pass_on(answers, writer))
        except (asyncio.CancelledError, OSError):
            pass  # torn, or there is no server
        finally:
            self._handlers.discard(task)
            writer.transport.abort()
            if server is not None:
                server.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(_CHUNK):
                await self._whole.wait()
                target.write(data)
                await target.drain()
        except OSError:
            return  # either side is gone
