"""Reading the parameters of a call; what does not fit is an RpcError in Agave's manner."""

from __future__ import annotations

from typing import Any

from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet.accounts import ENCODINGS, DataSlice
from keeper.localnet.commitment import ALIASES, Commitment
from keeper.localnet.errors import invalid_params


class Params:
    """The positional parameters of one call."""

    __slots__ = ("_values",)

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def value(self, index: int, name: str) -> Any:
        """A parameter that must be there."""
        if index >= len(self._values):
            raise invalid_params(f"`params` should have at least {index + 1} argument(s): {name} is missing")
        return self._values[index]

    def optional(self, index: int) -> Any:
        """A parameter that may be missing or null."""
        return self._values[index] if index < len(self._values) else None

    def text(self, index: int, name: str) -> str:
        """A string."""
        value = self.value(index, name)
        if not isinstance(value, str):
            raise invalid_params(f"Invalid params: {name} must be a string.")
        return value

    def number(self, index: int, name: str) -> int:
        """An unsigned integer."""
        return _unsigned(self.value(index, name), name)

    def pubkey(self, index: int, name: str) -> Pubkey:
        """An address in base58."""
        return parse_pubkey(self.text(index, name))

    def signature(self, index: int, name: str) -> Signature:
        """A signature in base58."""
        return parse_signature(self.text(index, name))

    def hash(self, index: int, name: str) -> Hash:
        """A hash in base58."""
        try:
            return Hash.from_string(self.text(index, name))
        except ParseHashError as exc:
            raise invalid_params(f"Invalid param: {_flaw(exc)}") from None

    def texts(self, index: int, name: str, limit: int) -> list[str]:
        """A list of at most `limit` strings."""
        values = self.value(index, name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise invalid_params(f"Invalid params: {name} must be an array of strings.")
        if len(values) > limit:
            raise invalid_params(f"Too many inputs provided; max {limit}")
        return values

    def config(self, index: int) -> Config:
        """The optional configuration object."""
        value = self.optional(index)
        if value is None:
            return _NO_CONFIG
        if not isinstance(value, dict):
            raise invalid_params("Invalid params: the configuration must be an object.")
        return Config(value)


class Config:
    """The configuration object of one call; absent and null members are the same."""

    __slots__ = ("_members",)

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def get(self, name: str) -> Any:
        """A member of any type, None when absent."""
        return self._members.get(name)

    def flag(self, name: str) -> bool:
        """A boolean, False when absent."""
        value = self._members.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise invalid_params(f"Invalid params: {name} must be a boolean.")
        return value

    def number(self, name: str) -> int | None:
        """An unsigned integer."""
        value = self._members.get(name)
        return None if value is None else _unsigned(value, name)

    def commitment(self, name: str = "commitment", default: Commitment = Commitment.FINALIZED) -> Commitment:
        """A commitment level by its name or one of its older names."""
        value = self._members.get(name)
        if value is None:
            return default
        level = ALIASES.get(value) if isinstance(value, str) else None
        if level is None:
            raise invalid_params(f"Invalid params: unknown variant `{value}` for {name}.")
        return level

    def encoding(self, default: str, allowed: tuple[str, ...] = ENCODINGS) -> str:
        """An encoding by name."""
        value = self._members.get("encoding")
        if value is None:
            return default
        if value not in allowed:
            raise invalid_params(f"unsupported encoding: {value}. Supported encodings: {', '.join(allowed)}")
        return str(value)

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self._members.get(name)
        if value is None:
            return default
        if value not in allowed:
            raise invalid_params(f"Invalid params: unknown variant `{value}`, expected one of {', '.join(allowed)}.")
        return str(value)

    def data_slice(self) -> DataSlice | None:
        """Offset and length of the data wanted."""
        match self._members.get("dataSlice"):
            case None:
                return None
            case {"offset": int(offset), "length": int(length)} if offset >= 0 and length >= 0:
                return offset, length
            case _:
                raise invalid_params("Invalid params: dataSlice needs an offset and a length.")


_NO_CONFIG = Config({})


def parse_pubkey(text: str) -> Pubkey:
    """An address. Raises RpcError with Agave's words."""
    try:
        return Pubkey.from_string(text)
    except ValueError as exc:
        raise invalid_params(f"Invalid param: {_flaw(exc)}") from None


def parse_signature(text: str) -> Signature:
    """A signature. Raises RpcError with Agave's words."""
    try:
        return Signature.from_string(text)
    except ValueError as exc:
        raise invalid_params(f"Invalid param: {_flaw(exc)}") from None


def _flaw(exc: Exception) -> str:
    return "WrongSize" if "wrong size" in str(exc) else "Invalid"


def _unsigned(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise invalid_params(f"Invalid params: {name} must be an unsigned integer.")
    return value
