"""The demo's own error."""

from __future__ import annotations

from keeper.domain.errors import KeeperError


class DemoFailed(KeeperError):
    """The demo could not be played to its end; the message says what stood in the way."""
