"""The units for systemd: what its own tools say of them, and that the template is the unit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from keeper.config.loading import load_settings
from tests.install import several
from tests.install.document import blocks

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = ("keeper.service", "keeper@.service")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_the_exposure_is_at_most_2(unit: str) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(SYSTEMD / unit)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert level is not None, said
    assert float(level[1]) <= 2.0, said


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line(unit: str, tmp_path: Path) -> None:
    """Two lines are newer than Debian 12's systemd, which says so and goes on; /opt/keeper is not installed here."""
    name = unit.replace("@", "@devnet")
    text = (SYSTEMD / unit).read_text().replace("/opt/keeper/bin/keeper", "/bin/true")
    (tmp_path / name).write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False
    ).stderr
    mine = [line for line in said.splitlines() if "keeper" in line]
    assert not [line for line in mine if "RestartSteps" not in line and "RestartMaxDelaySec" not in line], said


def test_the_template_differs_in_names_only() -> None:
    unit, template = ((SYSTEMD / name).read_text() for name in UNITS)
    wanted = _settings(unit.replace("/etc/keeper/key.json", "/etc/keeper/keeper.key.json"))
    # Beside keeper.service's folder and not in it: that one is a link, in which systemd makes no other.
    template = template.replace("keeper-%i", "keeper").replace("keeper %i:", "keeper:")
    assert _settings(template.replace("%i", "keeper")) == wanted


@pytest.mark.parametrize("unit", UNITS)
def test_a_url_in_the_environment_file_goes_before_the_units_path(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://keeper:change-me@db1,db2/keeper"
    for name, value in re.findall(r"^Environment=(KEEPER_\w+)=(.*)$", (SYSTEMD / unit).read_text(), re.M):
        monkeypatch.setenv(name, value)
    assert load_settings(None).journal.place == Path(os.environ["KEEPER_JOURNAL__PATH"])
    monkeypatch.setenv("KEEPER_JOURNAL__URL", url)
    assert load_settings(None).journal.place == url


def test_the_page_makes_the_keepers_that_the_trial_looks_at() -> None:
    """`make install-check` types these commands, before a release only: what has changed is seen at every commit."""
    database, services = (
        "".join(blocks(several.DOCUMENT, heading)) for heading in (several.DATABASE, several.SERVICES)
    )
    assert "CREATE ROLE keeper" in database
    assert "CREATE DATABASE keeper" in database
    assert f"for name in {' '.join(several.NAMES)}; do" in services
    assert set(re.findall(r"(?:--port |HTTP__PORT=)(\d+)", services)) == {str(port) for port in several.NAMES.values()}


def _settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]
