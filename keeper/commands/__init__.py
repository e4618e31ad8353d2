"""The operator's commands, one file a subject. Each adds itself to the command line (`keeper.cli`)."""

from __future__ import annotations

from typing import Final

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
