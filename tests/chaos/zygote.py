"""A process that has read the keeper's libraries, and forks keepers from itself.

Reading them costs about two seconds of CPU, a life of the keeper in a campaign lasts about one. A forked keeper
is a process of its own that runs `keeper run` from its first line; only the imports are already done.

With a word it forks keepers that have the fault of that name (`tests.chaos.planted`).

One JSON object a line on standard input starts a keeper: `arguments`, `crash_at`, `log`, and `cold` for one that
begins as `python -m keeper` does, with nothing imported. Lines on standard output
are its pid, what the keeper itself prints when it is ready, and the ends of keepers, with exit codes as in
`subprocess` (negative: the signal). At the end of the input all keepers are killed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys

# Everything but keeper.execution and the wiring: the points where a kill is wanted are read when they are imported.
_LIBRARIES = (
    "keeper.cli",
    "keeper.config.loading",
    "keeper.telemetry",
    "keeper.solana.watch",
    "keeper.venue.program",
    "keeper.http.api",
    "keeper.http.edge.server",
    "keeper.journal",
    "keeper.runtime.schedule",
    "keeper.triggers.decision",
)


def _say(**line: object) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


def _become_keeper(request: dict[str, str | bool | list[str] | None]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(log, 2)
    os.dup2(nothing, 0)
    for name in [n for n in os.environ if n.startswith(("KEEPER_", "QUANTDESK_"))]:
        del os.environ[name]
    if request["crash_at"]:
        os.environ["QUANTDESK_CRASH_AT"] = str(request["crash_at"])
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    if request["cold"]:
        os.execv(sys.executable, [sys.executable, "-m", "keeper", *arguments])  # never returns
    sys.argv = ["keeper", *arguments]
    from keeper.cli import main

    main()


def _reap(children: set[int]) -> None:
    for pid in list(children):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            children.discard(pid)
            _say(ended=pid, code=os.waitstatus_to_exitcode(status))


def serve() -> None:
    """Fork keepers until the input ends."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    _say(warm=os.getpid())
    waiting = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(children)
        if 0 not in ready:
            continue
        received = os.read(0, 65_536)
        if not received:
            break
        waiting += received
        while b"\n" in waiting:
            line, _, waiting = waiting.partition(b"\n")
            pid = os.fork()
            if pid == 0:
                os.close(woken)
                os.close(wake)
                _become_keeper(json.loads(line))
                return
            children.add(pid)
            _say(started=pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1:]:
        from tests.chaos.planted import plant_by_name

        plant_by_name(sys.argv[1])
    serve()
