"""The committed program is what its source builds, wherever the source lies."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from keeper.localnet import program
from keeper.localnet.program import PROGRAM_SO
from keeper.localnet.program import build as build_module
from keeper.localnet.program.build import SOURCE_DIR, build, main


@pytest.mark.long
def test_check_agrees_with_the_committed_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert "is what its source builds" in capsys.readouterr().out


@pytest.mark.long
def test_check_tells_a_program_that_was_not_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / PROGRAM_SO.name
    stale.write_bytes(PROGRAM_SO.read_bytes() + b"\0")
    monkeypatch.setattr(build_module, "PROGRAM_SO", stale)
    assert main(["--check"]) == 1
    assert "Run `make program`" in capsys.readouterr().err
    assert main([]) == 0
    assert stale.read_bytes() == PROGRAM_SO.read_bytes()


@pytest.mark.long
def test_the_bytes_do_not_depend_on_where_the_source_lies(tmp_path: Path) -> None:
    elsewhere = tmp_path / "another place"
    shutil.copytree(SOURCE_DIR, elsewhere)
    assert build(elsewhere) == PROGRAM_SO.read_bytes()
    assert str(Path.home()).encode() not in PROGRAM_SO.read_bytes()


def test_running_the_program_needs_no_compiler() -> None:
    """What a user imports to find the program pulls in neither ziglang nor pyelftools."""
    tree = ast.parse(Path(program.__file__).read_text())
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported == {"pathlib", "typing"}
