"""API tokens. The keeper knows only their SHA-256; a bearer of one is recognised in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

_SCHEME: Final = "bearer "
_LONGEST: Final = 512


class Tokens:
    """Who may call, by the hash of their token: 64 hexadecimal digits in lower case, and a name for each."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = {digest.encode(): name for digest, name in (names or {}).items()}

    def __repr__(self) -> str:
        return f"Tokens({sorted(set(self._names.values()))})"

    def __bool__(self) -> bool:
        return bool(self._names)

    def name_of(self, authorization: str | None) -> str | None:
        """The name behind an Authorization header; None when it holds no token that is known."""
        if authorization is None or not authorization.lower().startswith(_SCHEME) or len(authorization) > _LONGEST:
            return None
        digest = hashlib.sha256(authorization[len(_SCHEME) :].strip().encode()).hexdigest().encode()
        found = None
        # Every hash is compared, so that the time says nothing about which one it was.
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found
