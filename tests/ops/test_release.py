"""`make release`, on a clone of its own: what it refuses, and what it makes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from keeper import __version__
from tests.install.release import Refused, prepared, release

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PASSES, FAILS = (sys.executable, "-c", ""), (sys.executable, "-c", "raise SystemExit(1)")
SECTION = f"# Changelog\n\n## [{__version__}] - 2026-11-27\n\n### Added\n\n- Everything.\n"


def git(clone: Path, *arguments: str) -> str:
    # The user's own signing and hooks are not under test.
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(clone), *settings, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository of one commit with what is built from."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "keeper", clone / "keeper", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "CHANGELOG.md").write_text(SECTION)
    (clone / ".gitignore").write_text("dist/\n__pycache__/\n")
    git(clone, "init", "--quiet")
    commit(clone)
    return clone


def commit(clone: Path) -> None:
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "A step")
    git(clone, "config", "user.name", "A")
    git(clone, "config", "user.email", "a@example.org")
    git(clone, "config", "tag.gpgsign", "false")


def test_a_release_is_built_tagged_and_knows_its_commit(clone: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling: make setup")
    head = git(clone, "rev-parse", "--short=12", "HEAD")
    lines = release(clone, checks=[PASSES])
    assert lines[0] == (
        f"Built dist/quantdesk_keeper-{__version__}-py3-none-any.whl and dist/quantdesk_keeper-{__version__}.tar.gz "
        f"from {head}."
    )
    assert git(clone, "rev-parse", f"v{__version__}^{{commit}}") == git(clone, "rev-parse", "HEAD")
    assert "- Everything." in git(clone, "tag", "--list", "--format=%(contents)", f"v{__version__}")
    assert git(clone, "status", "--porcelain") == ""
    with pytest.raises(Refused, match=f"there is a tag v{__version__}"):
        prepared(clone)


def test_what_is_not_committed_is_not_released(clone: Path) -> None:
    (clone / "keeper" / "new.py").write_text("")
    with pytest.raises(Refused, match="the tree has changes"):
        prepared(clone)


@pytest.mark.parametrize(
    "changelog",
    [
        "# Changelog\n\n## [Unreleased]\n\n- Everything.\n",
        SECTION.replace("2026-11-27", "soon"),
        f"## [{__version__}] - 2026-11-27\n\n## [0.0.1] - 2026-01-01\n\n- Less.\n",
    ],
)
def test_a_version_of_which_the_changelog_says_nothing_is_refused(clone: Path, changelog: str) -> None:
    (clone / "CHANGELOG.md").write_text(changelog)
    commit(clone)
    with pytest.raises(Refused, match=r"CHANGELOG\.md has no section"):
        prepared(clone)


def test_two_versions_are_refused(clone: Path) -> None:
    (clone / "keeper" / "__init__.py").write_text('__version__ = "9.9.9"\n')
    commit(clone)
    with pytest.raises(Refused, match="another version"):
        prepared(clone)


def test_a_check_that_fails_ends_it(clone: Path) -> None:
    with pytest.raises(Refused, match="failed"):
        release(clone, checks=[PASSES, FAILS])
    assert git(clone, "tag", "--list") == ""


def test_what_the_changelog_calls_unreleased_is_not_released(clone: Path) -> None:
    (clone / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n- Something.\n\n{SECTION}")
    commit(clone)
    with pytest.raises(Refused, match=r"has entries under \[Unreleased\]"):
        prepared(clone)


def test_the_changelog_is_by_version_newest_first() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:]]
    assert all(versions), headings
    numbers = [tuple(map(int, match.groups())) for match in versions if match]
    assert numbers == sorted(numbers, reverse=True)
    assert PYPROJECT["project"]["version"] == __version__


def test_version_names_the_commit_of_a_clone() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "keeper", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    if not (ROOT / ".git").exists():
        pytest.skip("these are the sources without their history")
    head = git(ROOT, "rev-parse", "--short=12", "HEAD")
    assert re.fullmatch(rf"keeper {re.escape(__version__)} \({head}(-dirty)?\)", said)


def test_what_pyproject_claims_is_what_was_tried() -> None:
    """docs/install.md names the Pythons on which the suite was run."""
    prefix = "Programming Language :: Python :: "
    claimed = {line.removeprefix(prefix) for line in PYPROJECT["project"]["classifiers"] if line.startswith(prefix)}
    tried = set(re.findall(r"^\| (3\.\d+)\.\d+ \|", (ROOT / "docs" / "install.md").read_text(), re.M))
    assert claimed == tried
