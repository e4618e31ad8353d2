"""Planting a fault: the text of one module of the keeper is changed as it is imported. No file is touched."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Fault:
    """In `module`, `old` (which is there once) becomes `new`. `promise` is what that breaks, in words."""

    name: str
    module: str
    old: str
    new: str
    promise: str

    @property
    def path(self) -> Path:
        """The module's file."""
        return _ROOT / (self.module.replace(".", "/") + ".py")

    def changed(self, text: str) -> str:
        """The module's text with the fault in it. ValueError when the keeper no longer has the place."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.module} has {self.old!r} {text.count(self.old)} times, not once")
        return text.replace(self.old, self.new)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.module, str(fault.path))
        self._fault = fault

    def get_code(self, fullname: str) -> Any:
        text = self._fault.changed(self._fault.path.read_text())
        return compile(text, str(self._fault.path), "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._fault.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._fault.path, loader=_Loader(self._fault))


def plant(fault: Fault) -> None:
    """From now on the module is imported with the fault. Call it before the keeper is imported."""
    assert fault.module not in sys.modules, f"{fault.module} is imported already"
    sys.meta_path.insert(0, _Finder(fault))
