"""`python -m tests.install.release` (make release): check, build and tag what is committed; push nothing."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CHECKS: Final = (("make", "lint"), ("make", "program-check"), ("make", "test"), ("make", "test-long"))


class Refused(Exception):
    """There can be no release; the message says why, and what to do."""


def main() -> int:
    """Exit codes: 0 built and tagged, 1 refused or failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.install.release", description=__doc__)
    parser.add_argument("--unchecked", action="store_true", help="only build, without the checks and without a tag")
    given = parser.parse_args()
    try:
        made = release(ROOT, checks=None if given.unchecked else CHECKS)
    except Refused as e:
        print(f"No release: {e}", file=sys.stderr)
        return 1
    print("\n".join(made))
    return 0


def release(root: Path, *, checks: Sequence[Sequence[str]] | None) -> list[str]:
    """Make the release of the version in pyproject.toml; lines that say what was made. Refused when it can't be.

    `checks` are commands that have to succeed; None builds without them, and tags nothing.
    """
    version, commit, notes = prepared(root)
    for check in checks or ():
        if subprocess.run(check, cwd=root, check=False).returncode:
            raise Refused(f"{' '.join(check)} failed.")
    if _git(root, "status", "--porcelain"):
        raise Refused("the checks have changed files; commit what they wrote, or mend them.")
    wheel, sdist = built(root, version, commit)
    lines = [f"Built {wheel} and {sdist} from {commit}."]
    if checks is not None:
        _git(root, "tag", "--annotate", f"v{version}", "--message", f"Version {version}\n\n{notes}")
        lines.append(f"Tagged v{version}, in this clone alone; git push origin v{version} tells the others.")
    return lines


def prepared(root: Path) -> tuple[str, str, str]:
    """The version, the commit, and what the changelog says of the version. Refused when they are not in order."""
    if _git(root, "status", "--porcelain"):
        raise Refused("the tree has changes; commit or remove them, so that the tag is what was built.")
    version = _found(r'^version = "([^"]+)"$', root / "pyproject.toml")
    if _found(r'^__version__ = "([^"]+)"$', root / "keeper" / "__init__.py") != version:
        raise Refused(f"pyproject.toml says {version} and keeper/__init__.py another version; make them one.")
    if _git(root, "tag", "--list", f"v{version}"):
        raise Refused(f"there is a tag v{version}; raise the version in pyproject.toml and keeper/__init__.py.")
    changelog = (root / "CHANGELOG.md").read_text()
    section = re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if section is None or not section[1].strip():
        raise Refused(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD'; name what is unreleased so.")
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if unreleased is not None and unreleased[1].strip():
        raise Refused(
            f"CHANGELOG.md has entries under [Unreleased]; put them below '## [{version}]', or raise the version."
        )
    return version, _git(root, "describe", "--always", "--abbrev=12", "--exclude=*"), section[1].strip()


def built(root: Path, version: str, commit: str) -> tuple[str, str]:
    """A wheel and an sdist in dist/. Refused when the wheel's keeper does not say what it is, or the sdist lacks it."""
    stamp = _git(root, "log", "-1", "--format=%ct")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", "dist"],
        cwd=root,
        env={**os.environ, "SOURCE_DATE_EPOCH": stamp},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(f"the build failed:\n{done.stdout}{done.stderr}")
    wheel, sdist = f"dist/quantdesk_keeper-{version}-py3-none-any.whl", f"dist/quantdesk_keeper-{version}.tar.gz"
    said = subprocess.run(
        [sys.executable, "-m", "keeper", "--version"],
        cwd=root / "dist",
        env={**os.environ, "PYTHONPATH": str(root / wheel)},  # a wheel can be imported as it is
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if said != f"keeper {version} ({commit})":
        raise Refused(f"the wheel's keeper calls itself {said!r}, and not version {version} of {commit}.")
    with tarfile.open(root / sdist) as archive:
        if f"quantdesk_keeper-{version}/keeper/commit.txt" not in archive.getnames():
            raise Refused(f"{sdist} does not say which commit it is of.")
    return wheel, sdist


def _found(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text(), re.M)
    if match is None:
        raise Refused(f"{file} names no version.")
    return match[1]


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
