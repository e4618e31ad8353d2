"""What is written from the code is as the code would write it now, and the sample settings are settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.table import with_table
from keeper.config.loading import load_settings
from keeper.config.settings import Settings, setting_names
from tests.support.reference import readme_with_parts, sample_settings

ROOT = Path(__file__).parents[1]


def test_the_sample_settings_are_as_the_code_has_them() -> None:
    assert (ROOT / "config" / "keeper.toml").read_text() == sample_settings(), "run `make docs`"


def test_the_readmes_tables_are_as_the_code_has_them() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme == readme_with_parts(readme), "run `make docs`"


def test_the_readmes_figures_are_those_of_the_last_benchmark() -> None:
    readme = (ROOT / "README.md").read_text()
    results = json.loads((ROOT / "bench" / "results.json").read_text())
    assert readme == with_table(readme, results), "run `make bench`"


def test_a_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="settings"):
        readme_with_parts("nothing here")


def test_every_setting_is_in_the_sample_once() -> None:
    section, found = "", []
    for line in sample_settings().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif match := re.match(r"#(\w+) = ", line):
            found.append(f"{section}.{match[1]}")
    assert found == setting_names()


def test_the_sample_with_every_line_in_effect_is_the_defaults(tmp_path: Path) -> None:
    sample = sample_settings()
    in_effect = re.sub(r"^#(\w+ = (?! *# unset))", r"\1", sample, flags=re.MULTILINE)
    for name, text in (("as-it-is", sample), ("in-effect", in_effect)):
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        assert load_settings(file).model_dump() == Settings().model_dump()


def test_every_setting_says_what_it_is() -> None:
    for section in Settings.model_fields.values():
        for name, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description, name
