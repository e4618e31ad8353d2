"""The commands; `keeper.cli` registers them. Each imports what is heavy when it runs, so that `--help` stays quick."""

from __future__ import annotations

from typing import Final

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
