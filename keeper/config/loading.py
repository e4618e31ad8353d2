"""Settings from everywhere: flags, environment, TOML file, defaults; and one line on what is wrong with them."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from keeper.config import TOKEN_VARIABLE
from keeper.config.settings import Settings, setting_names
from keeper.domain.errors import Misconfigured


def load_settings(file: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings. `flags` are nested mappings by section, already without the ones not given.

    Raises Misconfigured with one line that names the setting, what is wrong, and what would be right.
    """
    values = {} if file is None else read_toml(file)
    _refuse_unknown_environment()

    class FromEverywhere(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, env_settings, InitSettingsSource(settings_cls, values))

    try:
        return FromEverywhere(**(flags or {}))
    except ValidationError as e:
        raise Misconfigured(_one_line(e), remedy="`keeper config` prints every setting, with its unit.") from None


def read_toml(file: Path) -> dict[str, Any]:
    """The settings file as written. Misconfigured, naming the line, when it can't be read."""
    try:
        return tomllib.loads(file.read_text())
    except OSError as e:
        raise Misconfigured(
            f"The settings file {file} can't be read: {e.strerror}.", remedy="Give another with --config."
        ) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Misconfigured(f"The settings file {file} is not TOML: {e}.", remedy="Mend that line.") from e


def _refuse_unknown_environment() -> None:
    """pydantic-settings ignores variables that it does not know; a mistyped one must not be ignored."""
    known = setting_names()
    for variable in os.environ:
        if not variable.startswith("KEEPER_") or variable == TOKEN_VARIABLE:
            continue
        name = variable.removeprefix("KEEPER_").lower().replace("__", ".")
        if name not in known and name.split(".")[0] not in Settings.model_fields:
            near = _nearest(name, known)
            hint = f"Did you mean KEEPER_{near.upper().replace('.', '__')}?" if near else "Unset it."
            raise Misconfigured(f"The environment variable {variable} is no setting of the keeper.", remedy=hint)


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = _nearest(name, [*setting_names(), *Settings.model_fields])
        return f"There is no setting {name}." + (f" Did you mean {near}?" if near else "")
    text = str(first["msg"]).removeprefix("Value error, ")
    if not name:
        return f"The settings don't fit together: {text}."
    return f"The setting {name} is wrong: {text[:1].lower()}{text[1:]}."


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)
