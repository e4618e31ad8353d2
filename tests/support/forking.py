"""Keepers that are forked from a process which has read their libraries (`tests.support.zygote`)."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import anyio


class ForkedProcess:
    """One `keeper ARGUMENTS`, a process of its own. Made by `start`; its pipes are closed when its end is known."""

    def __init__(self, output: int, told: int) -> None:
        self._output = output
        self._told = told
        self._lines = b""
        self._code: int | None = None
        self.pid = 0

    def __repr__(self) -> str:
        return f"<ForkedProcess {self.pid} {'running' if self._code is None else self._code}>"

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stderr: Path,
        executed: Sequence[str] | None = None,
    ) -> Self:
        """Start one that appends to the file `stderr`. With `executed` a Python with these arguments, and then the
        keeper's, begins in its place, and imports everything itself.
        """
        output, its_output = os.pipe()
        told, its_told = os.pipe()
        its_stderr = os.open(stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        request = {"arguments": list(arguments), "environment": dict(environment), "executed": executed}
        try:
            socket.send_fds(_zygote(), [json.dumps(request).encode()], [its_output, its_stderr, its_told])
        finally:
            for descriptor in (its_output, its_stderr, its_told):
                os.close(descriptor)
        os.set_blocking(told, False)
        process = cls(output, told)
        while (pid := process._number()) is None:
            await anyio.wait_readable(told)
        process.pid = pid
        return process

    @property
    def returncode(self) -> int | None:
        """Its exit code once it has ended, negative for a signal."""
        if self._code is None and (code := self._number()) is not None:
            self._code = code
            os.close(self._output)
            os.close(self._told)
        return self._code

    async def receive(self) -> bytes:
        """What it has printed since the last time; waits for it. Empty when it ends instead."""
        if self._code is not None:
            return b""
        await anyio.wait_readable(self._output)
        return os.read(self._output, 65_536)

    async def wait(self) -> int:
        """Wait for its end; its exit code."""
        while (code := self.returncode) is None:
            await anyio.wait_readable(self._told)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None:
            # It may have ended a moment ago, which is about to be told.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _number(self) -> int | None:
        """The next line of the zygote's, when it is there."""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._told, 64)
            if not said and b"\n" not in self._lines:
                raise RuntimeError("the process that keepers are forked from has ended")
            self._lines += said
        line, newline, rest = self._lines.partition(b"\n")
        if not newline:
            return None
        self._lines = rest
        return int(line)


@functools.cache
def _zygote() -> socket.socket:
    """Where this process's zygote takes its requests. It ends with the process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", "tests.support.zygote", str(its.fileno())]
        zygote = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[its.fileno()])

    def end() -> None:
        ours.close()
        zygote.wait()

    atexit.register(end)
    return ours
