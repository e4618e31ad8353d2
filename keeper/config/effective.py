"""The settings in force, each with where it comes from, and no secrets: what `keeper check --show` prints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from keeper.config.loading import read_toml
from keeper.config.settings import Settings, setting_names
from keeper.domain.secrets import host_only


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting. `origin` is flag, env, file or default; `value` is fit for a screen: no credential is in it."""

    name: str
    value: Any
    origin: str


def effective(settings: Settings, file: Path | None, flags: Mapping[str, Mapping[str, Any]]) -> list[Effective]:
    """Every setting, in the model's order. `file` and `flags` are what the settings were loaded from."""
    in_file = {} if file is None else read_toml(file)
    environment = {name.upper() for name in os.environ}
    found = []
    for name in setting_names():
        section, _, field = name.partition(".")
        if field in flags.get(section, {}):
            origin = "flag"
        elif environment & {f"KEEPER_{section}".upper(), f"KEEPER_{section}__{field}".upper()}:
            origin = "env"
        elif field in in_file.get(section, {}):
            origin = "file"
        else:
            origin = "default"
        found.append(Effective(name, _shown(attrgetter(name)(settings)), origin))
    return found


def _shown(value: Any) -> Any:
    match value:
        case SecretStr():
            text = value.get_secret_value()
            return host_only(text) if "://" in text else "(set)"
        case BaseModel():
            return {name: _shown(getattr(value, name)) for name in type(value).model_fields}
        case tuple():
            return [_shown(item) for item in value]
        case Path():
            return str(value)
    return value
