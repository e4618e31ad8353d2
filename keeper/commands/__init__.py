"""The commands; `keeper.cli` registers them. Each imports what is heavy when it runs, so that `--help` stays quick.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from keeper.domain.errors import KeeperError, Misconfigured

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


@contextmanager
def errors_told() -> Iterator[None]:
    """Around a command: an error is one line on standard error, and its kind decides the exit code."""
    try:
        yield
    except KeeperError as e:
        print(f"keeper: {e}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(e, Misconfigured) else EXIT_FAILED)
