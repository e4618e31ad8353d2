"""What an operator says: settings, where each came from, and keys; read and checked."""

from __future__ import annotations

from typing import Final

TOKEN_VARIABLE: Final = "KEEPER_ADMIN_TOKEN"  # noqa: S105 - a name, no token
"""The operator's token, for the commands that ask a running keeper. No setting: the keeper knows its hash alone."""
