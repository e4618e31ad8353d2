"""docs/scale.md's way from nothing to three keepers and a killed one, and its drill, typed as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.demo.test_first_order import ROOT, a_clone, typed
from tests.support import BOUND_S
from tests.support.postgres import missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

DOCUMENT = (ROOT / "docs" / "scale.md").read_text()
HEADING, DRILL = "Three keepers, and one is killed", "A drill"
# A network of its own, in which nobody is root: PostgreSQL would not start.
ALONE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
ALONE += ['ip link set lo up && exec unshare --user --map-user=65534 --map-group=65534 "$@"', "sh"]
SCRIPT = """
trap 'kill -TERM 0' EXIT
wait_for() { for _ in $(seq 600); do if sh -c "$1" > /dev/null 2>&1; then return; fi; sleep 0.1; done; exit 9; }
(%(chain)s) > chain.log 2>&1 &
(%(database)s) > database.log 2>&1 &
wait_for 'grep "keeper faucet KEYFILE" chain.log'
wait_for 'grep postgresql:// database.log'
%(keepers)s
%(orders)s
echo "-- the drill --"
%(drill)s
"""


@pytest.mark.long
def test_the_documents_three_keepers_outlive_a_kill_and_the_drill(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], check=False).returncode:
        pytest.skip("needs a network of its own (unshare, ip)")
    a_clone(tmp_path)
    first, database, keepers, orders = blocks(HEADING)
    _, chain = first.strip().splitlines()
    script = SCRIPT % {
        "chain": chain,
        "database": database.strip(),
        "keepers": keepers,
        "orders": orders,
        "drill": "\n".join(blocks(DRILL)),
    }
    said = typed(script, tmp_path, ALONE, within_s=5 * BOUND_S)
    logs = "".join(log.read_text()[-2_000:] for log in tmp_path.glob("*.log"))
    said, _, drill = said.partition("-- the drill --")
    assert len(re.findall(r"^filled +Filled by this keeper, with its position\.$", said, re.M)) == 2, said + logs
    assert len(re.findall(r" execute .* executed ", said)) == 2, said
    assert re.search(r"^(two|three) took over from (two|three) after \d+\.\d\d s \(term 3\)", drill, re.M), drill + logs
    assert re.search(r"^(not ready|stands by)$", drill, re.M), drill + logs
    assert len(re.findall(r"^filled +Filled by this keeper, with its position\.$", drill, re.M)) == 1, drill + logs


def blocks(heading: str) -> list[str]:
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", DOCUMENT, re.M | re.S)
    assert section is not None
    return re.findall(r"```sh\n(.*?)```", section[1], re.S)
