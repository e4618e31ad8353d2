"""`keeper --version`: the version and the commit that it was built from."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path

from keeper import __version__


def version_line() -> str:
    """For example `keeper 0.1.0 (0123456789ab)`; ending in `-dirty` where the clone has changes, and without a commit
    where none is known.
    """
    found = _commit()
    return f"keeper {__version__}" + (f" ({found})" if found else "")


def _commit() -> str:
    package = files("keeper")
    built = package / "commit.txt"  # hatch_build.py puts it into what it builds
    if built.is_file():
        return built.read_text().strip()
    root = Path(str(package)).parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
