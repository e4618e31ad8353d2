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
    """In `module`, `old` (which is there once) becomes `new`. `promise` is what that breaks, in words. `also` are the
    changes elsewhere, (module, old, new), without which another wall would still stand.
    """

    name: str
    module: str
    old: str
    new: str
    promise: str
    also: tuple[tuple[str, str, str], ...] = ()
    keepers: int = 1
    """How many keepers the simulation is to have that looks for it."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Those that it changes."""
        return (self.module, *(module for module, _, _ in self.also))

    def changed(self, module: str) -> str:
        """The module's text with the fault in it. ValueError when the keeper no longer has the place."""
        text = path_of(module).read_text()
        for where, old, new in ((self.module, self.old, self.new), *self.also):
            if where != module:
                continue
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {module} has {old!r} {text.count(old)} times, not once")
            text = text.replace(old, new)
        return text


def path_of(module: str) -> Path:
    """The module's file."""
    return _ROOT / (module.replace(".", "/") + ".py")


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fault: Fault, module: str) -> None:
        super().__init__(module, str(path_of(module)))
        self._fault = fault

    def get_code(self, fullname: str) -> Any:
        return compile(self._fault.changed(fullname), str(path_of(fullname)), "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._fault.modules:
            return None
        loader = _Loader(self._fault, fullname)
        return importlib.util.spec_from_file_location(fullname, path_of(fullname), loader=loader)


def plant(fault: Fault) -> None:
    """From now on its modules are imported with the fault. Call it before the keeper is imported."""
    for module in fault.modules:
        assert module not in sys.modules, f"{module} is imported already"
    sys.meta_path.insert(0, _Finder(fault))
