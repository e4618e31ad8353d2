"""`keeper config`: a settings file to begin with."""

from __future__ import annotations

from importlib.resources import files


def config() -> None:
    """Print every setting with its default, its unit and what it is: a settings file to begin with."""
    print(files("keeper.config").joinpath("keeper.toml").read_text(), end="")
