"""A reply with a long list of accounts, read piece by piece: never held whole, in text or as objects.

getProgramAccounts answers a program of a million orders with about 450 MB of JSON. Here it is cut between two
accounts wherever a piece of it has arrived, and what is whole is decoded at once, base64 and all, by msgspec: about
2 us an account. It relies on two things: in the text of an account, whose strings are base58 and base64, `},{` does
not occur; and the context comes before the list, as in every node that is known. A reply that is laid out otherwise
(an error, or a node that comes after these words) is held whole and decoded at its end.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from keeper.domain.errors import MalformedReply

_LIST: Final = re.compile(rb'"value"\s*:\s*\[')
_HEAD_BYTES: Final = 4_096
"""The list begins within so many bytes, or it is none of the replies that this is for."""


class RawAccount(msgspec.Struct, gc=False):
    """An account as the RPC shows it. `data` is its bytes and the encoding's name, which is checked."""

    data: tuple[bytes, str]
    owner: str
    lamports: int
    executable: bool = False


class KeyedAccount(msgspec.Struct, gc=False):
    """An account and its address in base58."""

    pubkey: str
    account: RawAccount


class _Context(msgspec.Struct):
    slot: int


class _Result(msgspec.Struct):
    context: _Context
    value: list[KeyedAccount]


class _Reply(msgspec.Struct):
    result: _Result
    id: int | None = None


class _EndResult(msgspec.Struct):
    value: list[KeyedAccount]


class _End(msgspec.Struct):
    result: _EndResult
    id: int | None = None


NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a body raises, whatever a node may have sent: deep brackets are a RecursionError."""

_accounts: Final = msgspec.json.Decoder(list[KeyedAccount])
_reply: Final = msgspec.json.Decoder(_Reply)
_end: Final = msgspec.json.Decoder(_End)


class AccountSplitter:
    """Fed with the body's pieces, it gives accounts. `slot` is the context's, known before the first of them.

    `request_id` is what the reply's id must be.
    """

    def __init__(self, request_id: int) -> None:
        self.slot = 0
        self._request_id = request_id
        self._id_seen: int | None = None
        self._buffer = b""
        self._in_list = False
        self._whole = False

    def feed(self, piece: bytes) -> list[KeyedAccount]:
        """The accounts that are complete with this piece. MalformedReply when they can't be read."""
        self._buffer += piece
        if self._whole or not (self._in_list or self._begin()):
            return []
        cut = self._buffer.rfind(b"},{")
        if cut < 0:
            return []
        text, self._buffer = self._buffer[: cut + 1], self._buffer[cut + 2 :]
        return self._decode(b"[%b]" % text)

    def close(self) -> tuple[Any, list[KeyedAccount]]:
        """The body has ended: (None, the last accounts), or the whole document when it is another kind of reply.

        MalformedReply when it is cut short, or answers another request.
        """
        if not self._in_list:
            try:
                document = msgspec.json.decode(self._buffer)
                if not isinstance(document, dict) or "error" in document:
                    return document, []
                reply = _reply.decode(self._buffer)
            except NOT_JSON as e:
                raise MalformedReply(f"a list of accounts does not decode: {e}") from None
            self.slot = reply.result.context.slot
            self._check_id(reply.id)
            return None, _base64_only(reply.result.value)
        try:
            end = _end.decode(b'{"result":{"value":[%b' % self._buffer)
        except NOT_JSON as e:
            raise MalformedReply(f"the end of a list of accounts does not decode: {e}") from None
        self._check_id(self._id_seen if end.id is None else end.id)
        return None, _base64_only(end.result.value)

    def _begin(self) -> bool:
        found = _LIST.search(self._buffer)
        if found is None:
            self._whole = len(self._buffer) > _HEAD_BYTES
            return False
        try:
            head = _reply.decode(self._buffer[: found.end()] + b"]}}")
        except NOT_JSON:
            self._whole = True
            return False
        self.slot = head.result.context.slot
        self._id_seen = head.id
        self._buffer = self._buffer[found.end() :]
        self._in_list = True
        return True

    def _decode(self, text: bytes) -> list[KeyedAccount]:
        try:
            return _base64_only(_accounts.decode(text))
        except NOT_JSON as e:
            raise MalformedReply(f"a list of accounts does not decode: {e}") from None

    def _check_id(self, found: int | None) -> None:
        if found != self._request_id:
            raise MalformedReply("the reply is to another request")


def _base64_only(accounts: list[KeyedAccount]) -> list[KeyedAccount]:
    if accounts and any(keyed.account.data[1] != "base64" for keyed in accounts):
        raise MalformedReply("an account came in another encoding than base64")
    return accounts
