"""A process that has read the keeper's libraries, and forks keepers from itself.

Reading them costs about a second of CPU, and a life of the keeper in a test or a campaign often lasts no longer. A
forked keeper is a process of its own that runs `keeper` from its first line; only the imports are already done.

It serves the socket whose descriptor is its argument. A message is a request, one JSON object: `arguments` and
`environment` of the keeper, and `executed`, which is null, or the arguments of a Python that begins in its place with
nothing imported. Three descriptors come with it: the keeper's standard output, its standard error, and where the
zygote writes two lines, the keeper's process id and in the end its exit code as in `subprocess` (negative: the
signal). When the socket is closed the zygote kills its keepers and ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

# Everything but keeper.execution and the wiring: the points where a kill is wanted are read when they are imported.
LIBRARIES: Final = (
    "keeper.cli",
    "keeper.commands.notify",
    "keeper.config.loading",
    "keeper.config.reloading",
    "keeper.http.api",
    "keeper.http.edge.server",
    "keeper.journal",
    "keeper.recording",
    "keeper.runtime.schedule",
    "keeper.solana.clock",
    "keeper.solana.history",
    "keeper.solana.watch",
    "keeper.telemetry",
    "keeper.telemetry.logs",
    "keeper.triggers.decision",
    "keeper.venue.deployment",
    "keeper.venue.prices",
    "keeper.venue.program",
    "keeper.venue.rehearsal",
)
REQUEST_BYTES: Final = 1 << 18


def _become_keeper(request: Mapping[str, Any], stdout: int, stderr: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    arguments, environment = request["arguments"], request["environment"]
    if request["executed"] is not None:
        os.execve(sys.executable, [sys.executable, *request["executed"], *arguments], environment)  # never returns
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = ["keeper", *arguments]
    from keeper.__main__ import main

    main()


def _reap(children: dict[int, int]) -> None:
    for pid, told in list(children.items()):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            del children[pid]
            _tell(told, os.waitstatus_to_exitcode(status))
            os.close(told)


def _tell(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever started this keeper does not listen any more
        os.write(pipe, b"%d\n" % number)


def serve(requests: socket.socket) -> None:
    """Fork keepers until the socket is closed."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert "keeper.execution.points" not in sys.modules, "a keeper's environment says where it dies"
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal ends who holds the socket
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(children)
        if requests.fileno() not in ready:
            continue
        message, (*descriptors,), _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not message:
            break
        stdout, stderr, told = descriptors
        pid = os.fork()
        if pid == 0:
            _become_keeper(json.loads(message), stdout, stderr)
            return
        os.close(stdout)
        os.close(stderr)
        children[pid] = told
        _tell(told, pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
