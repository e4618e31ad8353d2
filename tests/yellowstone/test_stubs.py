"""The committed code of the messages is what their `.proto` builds."""

from __future__ import annotations

from pathlib import Path

from tests.support.stubs import BUILT, ROOT, build


def test_the_committed_code_is_what_the_proto_builds(tmp_path: Path) -> None:
    build(tmp_path)
    for file in BUILT:
        assert (tmp_path / file).read_bytes() == (ROOT / file).read_bytes(), f"{file} is another: make proto"
