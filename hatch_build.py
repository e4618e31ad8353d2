"""What the build adds to the package: the commit that it is built from, for `keeper --version`.

From git, in a clone; from the environment (QUANTDESK_COMMIT), where the sources come without their history, as in the
image; and from an sdist, which has the file already. Nothing is written when none of them knows.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILE = "keeper/commit.txt"


class CommitHook(BuildHookInterface):  # type: ignore[misc]
    """Puts `keeper/commit.txt` into wheels and sdists. An editable install asks git each time instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the file beside the build, and have it included."""
        commit = os.environ.get("QUANTDESK_COMMIT") or _described(self.root)
        if version == "editable" or not commit or Path(self.root, FILE).exists():
            return
        written = Path(self.directory, "commit.txt")
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(commit + "\n")
        build_data["force_include"][str(written)] = FILE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The file is in the artifact now."""
        Path(self.directory, "commit.txt").unlink(missing_ok=True)


def _described(root: str) -> str:
    if not Path(root, ".git").exists():
        return ""
    command = ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
