"""anchorpy, kept behind one door: encodes and decodes instruction arguments from an IDL.

anchorpy 0.21 reads only the legacy IDL format, so it is given our IDL's legacy view. Its coder takes enum
values as instances of classes that it makes at run time; here they are our own IntEnums or plain indices.
That costs half a millisecond a placement, so instructions whose arguments are all integers and plain enums, as those
of the keeper's program are, are packed with `struct`; anchorpy then says what is wrong with arguments that don't fit.
"""

from __future__ import annotations

import enum
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from anchorpy.coder.instruction import InstructionCoder
from anchorpy.program.namespace.types import _build_types
from anchorpy_core.idl import Idl as AnchorIdl
from construct import ConstructError

from keeper.domain.errors import Misconfigured
from keeper.venue.idl import Idl, camel, snake

_CODES: Final = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q"}
"""Borsh integers as `struct` writes them, little-endian."""


@dataclass(frozen=True, slots=True)
class _Packer:
    """An instruction's arguments in order, each with its number of variants when it is an enum."""

    layout: struct.Struct
    fields: tuple[tuple[str, int | None], ...]

    def pack(self, args: Mapping[str, object]) -> bytes | None:
        """Their Borsh bytes; None when something does not fit, without a word why."""
        if len(args) != len(self.fields):
            return None
        values: list[int] = []
        for name, variants in self.fields:
            value = args.get(name)
            if not isinstance(value, int) or (variants is not None and not 0 <= value < variants):
                return None
            values.append(value)
        try:
            return self.layout.pack(*values)
        except struct.error:
            return None


class ArgumentCoder:
    """Arguments of a program's instructions, to bytes and back.

    Arguments are mappings with snake_case names; enums are their index (an IntEnum will do); integers are
    checked against their type's range by the encoder.
    """

    def __init__(self, idl: Idl) -> None:
        try:
            anchor_idl = AnchorIdl.from_json(idl.legacy)
            # sumtypes, which anchorpy builds enums with, warns of its own use of attrs; no caller can act on it.
            with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
                self._coder = InstructionCoder(anchor_idl)
                self._types: Mapping[str, Any] = _build_types(anchor_idl)
        except BaseException as e:  # anchorpy_core panics (a BaseException) on what it does not know
            if isinstance(e, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                raise
            raise Misconfigured(
                f"anchorpy can't use the IDL of {idl.name}: {type(e).__name__}: {e}.",
                remedy="Check program.idl.",
            ) from e
        self._idl = idl
        self._packers = {name: self._packer(name) for name in idl.instructions}

    def encode(self, name: str, args: Mapping[str, object]) -> bytes:
        """Discriminator and Borsh arguments of instruction `name`. ValueError names what does not fit."""
        definition = self._idl.instruction(name)
        packer = self._packers[name]
        packed = None if packer is None else packer.pack(args)
        if packed is not None:
            return definition.discriminator + packed
        unknown = set(args) - {arg for arg, _ in definition.args}
        if unknown:
            raise ValueError(f"{name} takes no argument {', '.join(sorted(unknown))}")
        data = {}
        for arg, idl_type in definition.args:
            if arg not in args:
                raise ValueError(f"{name} needs the argument {arg}")
            data[camel(arg) if arg not in self._field_names(name) else arg] = self._to_anchor(args[arg], idl_type)
        try:
            return definition.discriminator + self._coder.ix_layout[name].build(data)
        except (ConstructError, KeyError, TypeError) as e:
            raise ValueError(f"the arguments of {name} don't fit its types: {_one_line(e)}") from e

    def decode(self, data: bytes) -> tuple[str, dict[str, object]]:
        """The instruction's name and arguments. ValueError when they are not exactly one instruction's."""
        definition = next((ix for ix in self._idl.instructions.values() if data[:8] == ix.discriminator), None)
        if definition is None:
            raise ValueError("no instruction of the program begins with these 8 bytes")
        name = definition.name
        try:
            container = self._coder.ix_layout[name].parse(data[8:])
        except (ConstructError, KeyError, TypeError, IndexError, UnicodeDecodeError) as e:
            raise ValueError(f"the arguments of {name} don't decode: {_one_line(e)}") from e
        args = {arg: _from_anchor(getattr(container, field)) for arg, field in self._pairs(name)}
        # construct ignores trailing bytes; the program might not. Only the canonical encoding passes.
        if self.encode(name, args) != data:
            raise ValueError(f"the arguments of {name} are not in their canonical encoding")
        return name, args

    def _packer(self, name: str) -> _Packer | None:
        codes = "<"
        fields: list[tuple[str, int | None]] = []
        for arg, idl_type in self._idl.instruction(name).args:
            if isinstance(idl_type, str) and idl_type in _CODES:
                codes += _CODES[idl_type]
                fields.append((arg, None))
                continue
            variants = self._plain_variants(idl_type)
            if variants is None:
                return None
            codes += "B"
            fields.append((arg, variants))
        return _Packer(struct.Struct(codes), tuple(fields))

    def _plain_variants(self, idl_type: Any) -> int | None:
        """How many variants an enum has whose variants carry nothing; None for every other type."""
        if not isinstance(idl_type, dict) or "defined" not in idl_type:
            return None
        defined = idl_type["defined"]
        return self._idl.plain_enums.get(defined["name"] if isinstance(defined, dict) else defined)

    def _field_names(self, name: str) -> set[str]:
        layout: Any = self._coder.ix_layout[name]
        return {field.name for field in layout.subcon.subcons}

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        by_snake = {snake(field): field for field in self._field_names(name)}
        return [(arg, by_snake[arg]) for arg, _ in self._idl.instruction(name).args]

    def _to_anchor(self, value: object, idl_type: Any) -> object:
        if isinstance(idl_type, dict) and "defined" in idl_type:
            defined = idl_type["defined"]
            type_name = defined["name"] if isinstance(defined, dict) else defined
            sum_type = self._types[type_name]
            if isinstance(value, int):
                variants = [v for v in vars(sum_type).values() if getattr(v, "index", None) == int(value)]
                if not variants:
                    raise ValueError(f"{type_name} has no variant {int(value)}")
                return variants[0]()
        if isinstance(value, enum.Enum):
            return value.value
        return value


def _from_anchor(value: object) -> object:
    index = getattr(value, "index", None)
    return index if isinstance(index, int) and not isinstance(value, (str, bytes, int)) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
