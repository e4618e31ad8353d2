"""Reference text that is written from the code, so that it can't drift from it.

`python -m tests.support.reference` (make docs) writes config/keeper.toml, and the parts of README.md between two marks
such as `<!-- settings -->` and `<!-- /settings -->`. A test fails when they are not as they would be written now.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from keeper.config.settings import Settings

_WIDTH: Final = 110
_SAMPLE_HEAD: Final = """\
# Every setting of `keeper run`, with its default and its unit. Written by `make docs`.
#
# A line that begins with a # and a name shows the default: take the # away to change it. Settings can also come from
# the environment (KEEPER_RPC__URL is rpc.url), which beats this file, and from flags, which beat both.
"""


def sample_settings() -> str:
    """config/keeper.toml: every section, and every setting as a comment with its default."""
    parts = [_SAMPLE_HEAD]
    for section, fields in _sections():
        lines = [f"# {_sentence(Settings.model_fields[section].annotation.__doc__ or '')}", f"[{section}]"]
        for name, field in fields.items():
            about = textwrap.wrap(_sentence(field.description or ""), _WIDTH)
            default = _toml(field)
            lines += ["", *(f"# {line}" for line in about)]
            lines.append(f"#{name} =    # unset" if default is None else f"#{name} = {default}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def settings_table() -> str:
    """The README's table of settings."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for section, fields in _sections():
        for name, field in fields.items():
            default = _toml(field)
            shown = "" if default is None else f"`{default}`"
            about = (field.description or "").replace("|", "\\|")
            rows.append(f"| `{section}.{name}` | {shown} | {about} |")
    return "\n".join(rows)


def routes_table() -> str:
    """The README's table of HTTP routes."""
    from keeper.http.routes import openapi_document

    rows = ["| route | what it does |", "|---|---|"]
    for path, operations in openapi_document()["paths"].items():
        for method, operation in operations.items():
            rows.append(f"| `{method.upper()} {path}` | {operation['summary']} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """The README's table of metrics."""
    from keeper.http.edge.middleware import Instruments
    from keeper.telemetry.metrics import Metrics

    registry = Metrics("0").registry
    Instruments(registry)
    families = sorted(registry.collect(), key=lambda family: family.name)
    rows = ["| metric | type | what it says |", "|---|---|---|"]
    for family in families:
        # The exposition adds _total to a counter and _info to an info.
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        rows.append(f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |")
    return "\n".join(rows)


def commands_table() -> str:
    """The README's table of commands."""
    from typer.main import get_command

    from keeper.cli import cli

    rows = ["| command | what it does |", "|---|---|"]
    commands: Mapping[str, Any] = getattr(get_command(cli), "commands", {})
    for name, command in commands.items():
        rows.append(f"| `keeper {name}` | {command.get_short_help_str(200)} |")
    return "\n".join(rows)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings_table,
    "routes": routes_table,
    "metrics": metrics_table,
    "commands": commands_table,
}


def readme_with_parts(readme: str) -> str:
    """The README with each part written anew. ValueError names a part whose marks are missing."""
    for name, write in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if pattern.search(readme) is None:
            raise ValueError(f"README.md lacks the marks <!-- {name} --> and <!-- /{name} -->")
        text = write() + "\n"
        readme = pattern.sub(lambda match, text=text: match[1] + text + match[2], readme)  # type: ignore[misc]
    return readme


def write(root: Path) -> None:
    """Write the files under the project's root."""
    (root / "config" / "keeper.toml").write_text(sample_settings())
    readme = root / "README.md"
    readme.write_text(readme_with_parts(readme.read_text()))


def _sections() -> Iterator[tuple[str, Mapping[str, FieldInfo]]]:
    for name, field in Settings.model_fields.items():
        yield name, field.annotation.model_fields  # type: ignore[union-attr]


def _toml(field: FieldInfo) -> str | None:
    """The default as a TOML value; None when there is none."""
    value = field.default
    if value is None:
        return None
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    elif isinstance(value, Path):
        value = str(value)
    # JSON's strings, numbers, booleans and lists are TOML's.
    return json.dumps(value)


def _sentence(text: str) -> str:
    """The first paragraph as a sentence."""
    line = " ".join(text.strip().split("\n\n")[0].split())
    line = line[:1].upper() + line[1:]
    return line if line.endswith(".") else line + "."


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
