"""Orders, attempts and prepared transactions for the journal's tests, and a child process to kill."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import OnchainStatus, Order, OrderType, Side
from keeper.journal import PreparedKind, PreparedRow
from tests.support import BOUND_S

U64_MAX = 2**64 - 1
MARKET = Pubkey(b"m" * 32)
_serial = itertools.count(1)


def key() -> Pubkey:
    """An address of its own."""
    return Pubkey(next(_serial).to_bytes(32, "big"))


def make_order(**changes: object) -> Order:
    order = Order(
        address=key(),
        user=key(),
        market=MARKET,
        order_type=OrderType.STOP_LOSS,
        side=Side.LONG,
        size_1e6=1_000_000,
        price_1e6=0,
        stop_price_1e6=95_500_000,
        trailing_distance_ppm=0,
        leverage=5,
        status=OnchainStatus.PENDING,
        created_at=1_700_000_000,
        expires_at=0,
        filled_size_1e6=0,
        order_id=7,
        slot=100,
    )
    return order._replace(**changes)  # type: ignore[arg-type]


def make_attempt(order: Pubkey, **changes: object) -> Attempt:
    attempt = Attempt(
        signature=Signature(next(_serial).to_bytes(64, "big")),
        kind=AttemptKind.EXECUTE,
        order=order,
        wire=b"\x01signed bytes\x00\xff",
        blockhash="4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM",
        last_valid_block_height=1_000,
        state=AttemptState.SIGNED,
        number=1,
        signed_at=1_700_000_100.123456,
    )
    return attempt._replace(**changes)  # type: ignore[arg-type]


def make_prepared(prepared_id: str, **changes: object) -> PreparedRow:
    row = PreparedRow(
        id=prepared_id,
        kind=PreparedKind.PLACE,
        order=key(),
        user=key(),
        market=MARKET,
        message=b"\x80message",
        blockhash="4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM",
        last_valid_block_height=U64_MAX,
        created_at=1_700_000_000.5,
        arguments={"size": "1.5", "leverage": 5, "order_id": str(U64_MAX)},
    )
    return row._replace(**changes)  # type: ignore[arg-type]


def make_cancel(prepared_id: str, *orders: Pubkey) -> PreparedRow:
    """What cancels these orders."""
    return make_prepared(prepared_id, kind=PreparedKind.CANCEL, order=orders[0], cancels=orders)


CHILD_PRELUDE = """
import os, resource, sys
import anyio
from keeper.domain.errors import JournalBusy, JournalError
from keeper.journal import *
from keeper.domain.attempts import *
from keeper.domain.orders import *
sys.path.insert(0, sys.argv[2])
from tests.journal.journal_making import *
path = sys.argv[1]
def say(word):
    print(word, flush=True)
"""


def child(body: str, path: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A real process that runs `async def main()` made of `body`; it talks by lines on stdout."""
    code = f"{CHILD_PRELUDE}\nasync def main():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nanyio.run(main)\n"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parents[2])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def line(process: subprocess.Popen[str]) -> str:
    """The child's next line; empty when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def reap(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=BOUND_S)
