"""Settings of ways to send beside the RPC endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from keeper.config.fields import Address, Section

_SIGNATURE_LAMPORTS: Final = 5_000
_TAKEN: Final = re.compile(r"rpc|(fallback|stream)-\d+")
"""What the keeper calls endpoints and streams by itself."""


class SenderSettings(Section):
    """A way for signed transactions alone. `token` goes with each request as the header `token_header`."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    kind: Literal["rpc", "sender", "jito"]
    url: SecretStr
    token: SecretStr | None = None
    token_header: str = Field("", pattern=r"^[A-Za-z0-9-]{0,64}$")
    tip_accounts: tuple[Address, ...] = Field((), max_length=64)

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if _TAKEN.fullmatch(value):
            raise ValueError(f"{value!r} is what the keeper calls an endpoint of its own: take another name")
        return value

    @field_validator("token")
    @classmethod
    def _of_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        if not (text.isascii() and (text.isprintable() or not text)) or text != text.strip():
            raise ValueError("it is no token: take what your provider wrote")
        return value

    @model_validator(mode="after")
    def _tipped(self) -> Self:
        if self.kind == "rpc" and self.tip_accounts:
            raise ValueError("a sender of kind rpc takes no tip: leave tip_accounts out, or set kind to sender or jito")
        if self.kind != "rpc" and not self.tip_accounts:
            raise ValueError(f"a sender of kind {self.kind} needs tip_accounts: its provider lists them")
        return self

    @property
    def header(self) -> str:
        """The header that the token goes with."""
        return self.token_header or ("x-jito-auth" if self.kind == "jito" else "x-token")


def tip_problem(senders: Sequence[SenderSettings], tip_lamports: int, cap_lamports: int, signatures: int) -> str | None:
    """Why the senders do not go with what a transaction may pay; None when they do."""
    tipped = [sender.name for sender in senders if sender.tip_accounts]
    if tipped and not tip_lamports:
        return f"rpc.senders names {', '.join(tipped)}, which want a tip, and fees.tip_lamports is 0"
    if tip_lamports and not tipped:
        return "fees.tip_lamports is set, and rpc.senders names no sender of kind sender or jito to pay it to"
    if (least := tip_lamports + signatures * _SIGNATURE_LAMPORTS) > cap_lamports:
        return f"fees.cap_lamports ({cap_lamports}) must be at least {least}, for the tip and the signatures"
    return None
