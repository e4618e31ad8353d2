"""Where a credential may hide in a text, and how it is cut out (promise 7)."""

from __future__ import annotations

import re
from typing import Final

_URL: Final = re.compile(r"\b(?P<scheme>https?|wss?|postgres(?:ql)?)://(?P<rest>[^\s'\"<>]+)")


def host_only(text: str) -> str:
    """The text with each URL in it cut down to scheme and host: what follows, or comes before an @, may be a key."""
    return _URL.sub(_cut, text)


def _cut(match: re.Match[str]) -> str:
    authority = re.split(r"[/?#]", match["rest"], maxsplit=1)
    host = authority[0].rpartition("@")[2]
    return f"{match['scheme']}://{host}" + ("/…" if len(authority) > 1 and authority[1] else "")
