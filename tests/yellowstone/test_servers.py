"""A server that refuses, lies or speaks something else is named, and nothing of it is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from keeper.localnet import Bank
from keeper.yellowstone import geyser_pb2 as pb
from keeper.yellowstone import grpc
from tests.support import PROGRAM, World, until
from tests.yellowstone.listening import Listening, listening

pytestmark = pytest.mark.anyio

SECRET = "5ecret-t0ken"


@asynccontextmanager
async def scripted(methods: dict[str, Any], tls: Any = None) -> AsyncIterator[str]:
    """A gRPC server with these methods of the service, over TLS with these credentials; its host and port."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("geyser.Geyser", methods),))
    any_port = "127.0.0.1:0"
    port = server.add_insecure_port(any_port) if tls is None else server.add_secure_port(any_port, tls)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


def telling(messages: Callable[[], Sequence[bytes]], bank: Bank) -> dict[str, Any]:
    """Methods that tell these messages, and know the chain."""

    async def subscribe(requests: Any, context: Any) -> None:
        async for _ in requests:
            for message in messages():
                await context.write(message)

    async def blockhash(request: Any, context: Any) -> bytes:
        block = bank.chain.root
        return bytes(pb.GetLatestBlockhashResponse(slot=block.slot, blockhash=str(block.blockhash)).SerializeToString())

    return {
        "Subscribe": grpc.stream_stream_rpc_method_handler(subscribe),
        "GetLatestBlockhash": grpc.unary_unary_rpc_method_handler(blockhash),
    }


def slot_told(slot: int) -> bytes:
    return bytes(pb.SubscribeUpdate(filters=["slot"], slot=pb.SubscribeUpdateSlot(slot=slot)).SerializeToString())


def account_told(address: bytes, slot: int, data: bytes = b"") -> bytes:
    info = pb.SubscribeUpdateAccountInfo(pubkey=address, owner=bytes(PROGRAM.id), lamports=1, data=data)
    update = pb.SubscribeUpdateAccount(slot=slot, account=info)
    return bytes(pb.SubscribeUpdate(filters=["order"], account=update).SerializeToString())


async def trouble(here: Listening, said: str) -> None:
    await until(lambda: any(said in one for one in here.troubles))
    assert here.lists == 0, "nothing is read on the word of such a server"
    assert SECRET not in "".join(here.troubles)
    assert SECRET not in repr(here.watch)


async def test_a_token_that_is_refused() -> None:
    async with listening(token=SECRET, sent_token=SECRET + "x") as here:
        await trouble(here, "stream-1: the server refuses the token (UNAUTHENTICATED)")


async def test_a_token_that_is_taken() -> None:
    async with listening(token=SECRET, sent_token=SECRET) as here:
        await here.well()
        assert SECRET not in repr(here.watch)


async def test_a_server_of_another_service() -> None:
    async with scripted({}) as target, listening(target=target) as here:
        await trouble(here, "the server does not speak Yellowstone gRPC (UNIMPLEMENTED)")


async def test_a_server_that_does_not_speak_grpc() -> None:
    async with World.open(slot_ms=0) as other, listening(target=other.net.rpc_url.removeprefix("http://")) as here:
        await trouble(here, "stream-1: the server can't be reached, or has ended the stream (UNAVAILABLE)")


async def test_another_chain() -> None:
    async with World.open(slot_ms=20, geyser_port=0) as other:
        target = (other.net.geyser_url or "").removeprefix("http://")
        async with listening(target=target) as here:
            await trouble(here, "is it on another chain?")


async def test_a_slot_that_is_far_from_the_chain() -> None:
    async with listening() as here:
        await here.well()
        trader, market = here.world.trader(), here.world.market()
        order = here.world.place(trader, market, stop_price_1e6=1)
        await here.well()
        account = here.world.bank.account(order)
        assert account is not None
        slot, far = here.world.bank.chain.tip.slot, 2**63
        lies = [slot_told(slot), account_told(bytes(order), far, bytes(account.data))]
        async with scripted(telling(lambda: lies, here.world.bank)) as target:
            here.watch.source.target = target  # type: ignore[attr-defined]
            here.geyser.disconnect()
            await until(lambda: any(f"its stream is at slot {far}" in one for one in here.troubles))
        assert (here.reader.book.slot(order) or 0) < far


async def test_messages_that_are_none() -> None:
    async with listening() as here:
        await here.well()
        bank = here.world.bank
        bad = [b"\xff\xff", b"", account_told(b"short", 9), slot_told(bank.chain.tip.slot)]
        async with scripted(telling(lambda: bad, bank)) as target:
            here.watch.source.target = target  # type: ignore[attr-defined]
            here.geyser.disconnect()
            await until(lambda: here.watch.health.malformed >= 3)
            assert here.watch.health.connected
        await until(lambda: not here.watch.health.connected)


async def test_a_server_that_sends_nothing_but_nonsense_is_left() -> None:
    async with listening() as here:
        bank = here.world.bank
        async with scripted(telling(lambda: [b"\xff\xff"] * 200, bank)) as target:
            here.watch.source.target = target  # type: ignore[attr-defined]
            await here.well()
            here.geyser.disconnect()
            await until(lambda: any("is not Yellowstone gRPC" in one for one in here.troubles))


async def test_a_ping_is_answered() -> None:
    async with listening() as here:
        await here.well()
        here.geyser.ping()
        await until(lambda: here.geyser.answers == 1)
        assert here.watch.health.reconnects == 0


async def test_a_stream_of_pings_alone_is_silent() -> None:
    async with listening(silence_s=0.2) as here:
        await here.well()
        with here.held():

            def said() -> bool:
                here.geyser.ping()
                return any("stream was silent for 0.2 s" in one for one in here.troubles)

            await until(said)
