"""What the source tells of the embedded chain's service: accounts by owner and one by one, and what it told before."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from keeper.domain.errors import Transient
from keeper.localnet.geyser import Geyser
from keeper.solana.geyser import OVERLAP_SLOTS, GeyserSource
from keeper.solana.sockets import Notification
from keeper.solana.sources import Owned, Single, Stream
from keeper.yellowstone import grpc
from tests.support import World
from tests.yellowstone.test_servers import scripted, slot_told, telling

pytestmark = pytest.mark.anyio

OWNER = Pubkey.new_unique()
ORDERS = Owned("order", OWNER, b"ORDER")
MARKETS = Owned("market", OWNER, b"MARKT", repeats=True)


def account(data: bytes, lamports: int = 5) -> Account:
    return Account(lamports, data, OWNER)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World.open(slot_ms=0, confirmed_slots=2, finalized_slots=6, geyser_port=0) as world:
        world.bank.advance()
        yield world


@pytest.fixture
def source(world: World) -> GeyserSource:
    return GeyserSource("stream-1", (world.net.geyser_url or "").removeprefix("http://"), tls=False, token=None)


def geyser(world: World) -> Geyser:
    assert world.net.geyser is not None
    return world.net.geyser


async def begin(world: World) -> None:
    """A block, once the service has the subscription: its end is the first news."""
    taken = geyser(world).subscribed
    while geyser(world).subscribed == taken:  # noqa: ASYNC110 - the service counts, and tells nobody
        await anyio.sleep(0.005)
    world.bank.advance()


async def news_of(stream: Stream, count: int) -> list[Notification]:
    """So much news of accounts."""
    found: list[Notification] = []
    async with aclosing(stream.notifications()) as told:
        async for news in told:
            found += [news] if news.account is not None else []
            if len(found) == count:
                break
    return found


async def test_accounts_by_owner_and_prefix(world: World, source: GeyserSource) -> None:
    order, market, other = Pubkey.new_unique(), Pubkey.new_unique(), Pubkey.new_unique()
    async with anyio.create_task_group() as tg:
        tg.start_soon(begin, world)
        async with source.open([MARKETS, ORDERS], 5) as stream:
            slot = world.bank.chain.tip.slot
            world.bank.set_account(other, account(b"OTHER..."))
            world.bank.set_account(other, Account(5, b"ORDER...", Pubkey.new_unique()))
            for _ in range(3):  # what a node says again in a slot is left out, of markets
                world.bank.set_account(market, account(b"MARKT..1"))
            world.bank.set_account(market, account(b"MARKT..2"))
            world.bank.set_account(order, account(b"ORDER..1"))
            told = await news_of(stream, 3)
    assert [(n.tag, n.slot, n.account and n.account.address, n.account and n.account.data) for n in told] == [
        ("market", slot, market, b"MARKT..1"),
        ("market", slot, market, b"MARKT..2"),
        ("order", slot, order, b"ORDER..1"),
    ]
    assert [n.account and (n.account.owner, n.account.lamports) for n in told] == [(OWNER, 5)] * 3


async def test_single_accounts_and_that_one_is_closed(world: World, source: GeyserSource) -> None:
    feeds = [Pubkey.new_unique(), Pubkey.new_unique()]
    async with anyio.create_task_group() as tg:
        tg.start_soon(begin, world)
        async with source.open([Single(feed) for feed in feeds], 5) as stream:
            world.bank.set_account(Pubkey.new_unique(), account(b"?"))
            world.bank.set_account(feeds[1], account(b"1"))
            world.bank.set_account(feeds[1], None)
            told = await news_of(stream, 2)
    assert [(n.tag, n.account and n.account.lamports) for n in told] == [(str(feeds[1]), 5), (str(feeds[1]), 0)]


async def test_a_gap_is_told_in_whole_slots_up_to_where_the_stream_is(world: World, source: GeyserSource) -> None:
    bank, order = world.bank, Pubkey.new_unique()
    for number in range(2 * OVERLAP_SLOTS):
        bank.set_account(order, account(b"ORDER" + bytes([number])))
        bank.set_account(order, account(b"ORDER" + bytes([number, 1])))
        bank.advance()
    since = bank.chain.tip.slot - 5
    async with anyio.create_task_group() as tg:
        tg.start_soon(begin, world)
        async with source.open([ORDERS], 5) as stream:
            until = stream.first_slot + OVERLAP_SLOTS
            bank.set_account(order, account(b"ORDERlast"))
            for _ in range(OVERLAP_SLOTS + 4):
                bank.advance()
            told = [news async for news in source.replay([ORDERS], since, 5)]
    accounts = [n.account.data for n in told if n.account is not None]
    assert accounts[0] == b"ORDER" + bytes([since - OVERLAP_SLOTS - 1, 1]), "the last state of the first slot"
    assert accounts[-1] == b"ORDERlast"
    slots = [n.slot for n in told if n.account is None]
    assert slots == list(range(since - OVERLAP_SLOTS, until + 1))


async def test_a_server_that_ignores_the_slot_has_not_told_the_gap(world: World) -> None:
    async with scripted(telling(lambda: [slot_told(200)], world.bank)) as target:
        source = GeyserSource("stream-1", target, tls=False, token=None)
        with pytest.raises(Transient, match="it tells again from slot 200 on, not from 100"):
            [news async for news in source.replay([ORDERS], 100, 5)]


LOOK = """
import sys
import anyio
from keeper.domain.errors import ChainError
from keeper.solana.geyser import GeyserSource

async def look():
    try:
        async with GeyserSource("stream-1", sys.argv[1], tls=True, token=None).open((), 5) as stream:
            print("slot", stream.first_slot)
    except ChainError as error:
        print(error)

anyio.run(look)
"""


async def test_tls_is_spoken_and_the_certificate_is_checked(tmp_path: Path) -> None:
    """With an authority of the operator's own and without, each in a process of its own: gRPC reads that once."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate with")
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(pem)]
    await anyio.run_process(make)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), pem.read_bytes())])
    said: dict[bool, str] = {}
    async with World.open(slot_ms=0) as world, scripted(telling(lambda: [slot_told(7)], world.bank), credentials) as at:
        command = [sys.executable, "-c", LOOK, f"localhost:{at.rpartition(':')[2]}"]

        async def look(known: bool) -> None:
            roots = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(pem)} if known else {}
            done = await anyio.run_process(command, env={**os.environ, **roots})
            said[known] = done.stdout.decode().strip()

        async with anyio.create_task_group() as tg:
            tg.start_soon(look, True)
            tg.start_soon(look, False)
    assert said[True] == "slot 7"
    assert said[False] == "stream-1: the server can't be reached, or has ended the stream (UNAVAILABLE)"
