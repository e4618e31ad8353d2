"""The console script, and `python -m keeper`. It knows what a signal ends, before anything else is even imported."""

from __future__ import annotations

import signal
import sys

_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> None:
    """Run a command. `keeper run` ends with 0 by SIGTERM or Ctrl-C, whenever they come; another command that Ctrl-C
    interrupts ends with 130.
    """
    if sys.argv[1:2] == ["run"]:
        # Until `keeper.commands.service` listens itself, and has something to write down first.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
    else:
        # Not by KeyboardInterrupt: click would make it "Aborted!" and exit code 1.
        signal.signal(signal.SIGINT, lambda *_: sys.exit(_INTERRUPTED))
    from keeper.cli import main as command

    command()


if __name__ == "__main__":
    main()
