"""The notify protocol of systemd (sd_notify): lines of text in datagrams to the socket that NOTIFY_SOCKET names.

Without that variable every call does nothing, so the keeper runs the same under any supervisor or none.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from keeper.domain.errors import Misconfigured


class Notifier:
    """Tells the supervisor. No call waits or fails: a supervisor that is gone is no reason to stop working."""

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        if address is not None:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)
        self.watchdog_s = watchdog_s
        """Within how many seconds a ping is expected; None when nobody expects any."""

    def __repr__(self) -> str:
        return f"Notifier({self._address}, watchdog_s={self.watchdog_s})"

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take the supervisor's variables out of the environment: they are meant for this process alone."""
        address = environment.pop("NOTIFY_SOCKET", None)
        usec, pid = environment.pop("WATCHDOG_USEC", None), environment.pop("WATCHDOG_PID", None)
        if not address:
            return cls()
        if not address.startswith(("/", "@")):
            raise Misconfigured(
                f"NOTIFY_SOCKET is {address!r}: only paths and abstract sockets (@name) are known.",
                remedy="Unset it, or run the keeper under a supervisor that speaks sd_notify.",
            )
        mine = pid is None or pid == str(os.getpid())
        watchdog_s = int(usec) / 1e6 if usec is not None and usec.isdigit() and int(usec) and mine else None
        return cls(address, watchdog_s)

    def ready(self, status: str) -> None:
        """Started, or done with reloading."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Settings are being read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The keeper is ending."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def ping(self) -> None:
        """The work goes on; nothing for a supervisor that expects no pings."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def stuck(self, status: str) -> None:
        """The work does not go on; the supervisor need not wait for a ping that will not come."""
        trigger = "" if self.watchdog_s is None else "WATCHDOG=trigger\n"
        self._send(f"{trigger}STATUS={status}")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None or self._address is None:
            return
        # A leading @ stands for the zero byte of Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._socket.sendto(message.encode(), address)
        except OSError:
            return
