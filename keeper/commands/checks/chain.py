"""What the chain says: each endpoint, the cluster, the balance, the program's revision, and the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.app.crank import check_authority, crank_rules, load_authority
from keeper.app.endpoints import EndpointUrls, streams_of
from keeper.app.feeds import feeds_of
from keeper.app.program import refuse_fills_without_position
from keeper.commands.asking import DEADLINE_S, client_for
from keeper.commands.checks.lines import Lines
from keeper.config.fields import CLUSTERS
from keeper.config.settings import Settings
from keeper.domain.decimals import decimal
from keeper.domain.errors import ChainError, KeeperError
from keeper.solana.client import PROCESSED, ChainClient
from keeper.solana.sockets import Subscription, subscribed
from keeper.solana.watch import ONE_ENDPOINT_SLOTS
from keeper.venue.deployment import misnamed
from keeper.venue.prices.quote import Now
from keeper.venue.program import Program

_SKEW_WARN_S: Final = 30
_SKEW_FAIL_S: Final = 300  # the age from which the program itself refuses a price


async def endpoints(
    configured: Sequence[EndpointUrls], settings: Settings, lines: Lines
) -> tuple[list[EndpointUrls], str | None]:
    """Ask each for its genesis and its slot; those that can be worked with, and the cluster's genesis hash."""
    answers: dict[EndpointUrls, str | ChainError] = {}

    async def ask(endpoint: EndpointUrls) -> None:
        answers[endpoint] = await _identify(endpoint)

    async with anyio.create_task_group() as tg:
        for endpoint in configured:
            tg.start_soon(ask, endpoint)
    others_work = any(isinstance(answer, str) for answer in answers.values())
    working: list[EndpointUrls] = []
    expected = settings.rpc.genesis
    for endpoint in configured:
        answer = answers[endpoint]
        name = f"rpc {endpoint.host}"
        if isinstance(answer, ChainError):
            say = lines.warn if others_work else lines.fail
            say(name, f"it does not answer: {answer}", "Check its URL, its key, and that the node is up.")
            continue
        expected = expected or answer
        if answer == expected:
            lines.passed(name, f"answers, on {_cluster(answer)}")
            working.append(endpoint)
            continue
        lines.fail(
            name,
            f"it is on another cluster: {_cluster(answer)}, not {_cluster(expected)}",
            "Check the URL; all endpoints have to be of one cluster (rpc.genesis says which).",
        )
    return working, expected


async def sockets(working: Sequence[EndpointUrls], lines: Lines) -> None:
    """Each socket brings a slot, which is about where the RPC beside it is. Without one the keeper hears of nothing."""
    for endpoint in working:
        name = f"socket {endpoint.host}"
        socket = subscribed(
            endpoint.ws_url,
            [Subscription("slot", "slotSubscribe")],
            label=endpoint.label,
            silence_s=DEADLINE_S,
            connect_timeout_s=DEADLINE_S,
        )
        try:
            async with socket as opened, aclosing(opened.notifications()) as news:
                slot = (await anext(news)).slot
            async with client_for([endpoint]) as client:
                apart = abs(slot - await client.slot(PROCESSED))
            if apart > ONE_ENDPOINT_SLOTS:
                detail = f"it is {apart} slots away from the RPC beside it, so they are on different chains"
                lines.fail(name, detail, "Check rpc.ws_url.")
            else:
                lines.passed(name, f"tells of slots ({slot})")
        except ChainError as e:
            remedy = "Check rpc.ws_url; solana-test-validator serves it on the port after the RPC's."
            lines.fail(name, str(e).removeprefix(f"{endpoint.label}: "), remedy)


async def streams(client: ChainClient, settings: Settings, lines: Lines) -> None:
    """Each stream brings a slot of the same chain. The keeper runs without one, by its sockets."""
    for source in lines.try_to("rpc", lambda: streams_of(settings.rpc)) or ():
        try:
            async with source.open((), DEADLINE_S) as stream, aclosing(stream.notifications()) as news:
                slot = (await anext(news)).slot
                await source.identify(client.pool)
            lines.passed(source.label, f"tells of slots ({slot})")
        except ChainError as e:
            remedy = "Check its url and token in rpc.streams; https: is TLS, http: is not."
            lines.warn(source.label, str(e).removeprefix(f"{source.label}: "), remedy)


async def balance(client: ChainClient, keeper: Pubkey, settings: Settings, lines: Lines) -> bool:
    """Enough lamports for fees. Whether the account exists at all, because a node simulates nothing without it."""
    floor = settings.fees.min_balance_lamports
    try:
        lamports = await client.balance(keeper)
    except ChainError as e:
        lines.fail("balance", f"it can't be read: {e}", "Try again; check the endpoints.")
        return False
    said = f"{keeper} has {lamports / 1e9:.6g} SOL"
    if lamports < floor or lamports == 0:
        floor_said = f", below fees.min_balance_lamports ({floor / 1e9:.6g} SOL): nothing would be sent"
        lines.fail("balance", said + floor_said, f"Send SOL to {keeper}.")
    elif lamports < 2 * floor:
        lines.warn("balance", f"{said}, less than twice fees.min_balance_lamports", f"Send SOL to {keeper}.")
    else:
        lines.passed("balance", said)
    return lamports > 0


async def error_names(client: ChainClient, program: Program, payer: Pubkey, lines: Lines) -> None:
    """The IDL's table of errors against what the program says itself; a line only when they differ."""
    with suppress(KeeperError):
        if wrong := await misnamed(client, program, payer):
            lines.warn(
                "errors",
                f"the IDL's table of errors is another build's: {'; '.join(wrong)}",
                "Get the deployed build's IDL. Until then errors are named by the program's own logs, and by this "
                "table only where a node gives none.",
            )


def unchecked(name: str, lines: Lines) -> None:
    """What is told by simulations, which a node makes for nobody who could not pay for the transaction."""
    lines.warn(name, "not checked: a node simulates nothing for a key without SOL", "Send SOL to it, and check again.")


def revision(program: Program, settings: Settings, lines: Lines) -> None:
    """A fill has a position behind it (promise 3), or the operator said that it need not."""
    if program.creates_position:
        lines.passed("revision", "a fill creates its position, in one transaction")
        return
    detail = f"in revision {program.idl.version} a fill creates no position"
    if settings.execution.dry_run:
        lines.warn("revision", f"{detail}; with execution.dry_run nothing is sent", "Deploy the atomic revision.")
    elif settings.program.accept_fills_without_position:
        lines.warn("revision", f"{detail}, and you accepted that", "Be sure that something else opens the positions.")
    else:
        lines.try_to("revision", lambda: refuse_fills_without_position(settings, program))


async def clock(client: ChainClient, lines: Lines) -> None:
    """The chain's clock and this machine's. Prices age by the chain's, people and the fee budget by the machine's."""
    try:
        _, chain_time_s = await client.chain_time()
    except ChainError as e:
        lines.fail("clock", f"the chain's clock can't be read: {e}", "Try again; check the endpoints.")
        return
    ahead_s = chain_time_s - time.time()
    way = "ahead of" if ahead_s > 0 else "behind"
    detail = f"the chain's clock is {abs(ahead_s):.0f} s {way} this machine's"
    remedy = "Check this machine's clock (timedatectl), and that the node is not behind."
    if abs(ahead_s) > _SKEW_FAIL_S:
        lines.fail("clock", detail, remedy)
    elif abs(ahead_s) > _SKEW_WARN_S:
        lines.warn("clock", detail, remedy)
    else:
        lines.passed("clock", detail)


async def feeds(client: ChainClient, settings: Settings, lines: Lines) -> None:
    """Each feed that a market names passes every check, and has a price that is new enough to decide."""
    for feed in feeds_of(settings.prices, settings.crank):
        name = f"feed {feed.market}"
        try:
            slot, (account,) = await client.accounts([feed.account], commitment=PROCESSED)
            _, chain_time_s = await client.chain_time()
        except ChainError as e:
            lines.fail(name, f"it can't be read: {e}", "Try again; check the endpoints.")
            continue
        price = feed.take(account, feed.account, Now(slot, chain_time_s, client.pool.pace.slot_s))
        if price is None:
            remedy = "Check account, kind, feed_id and owner in [[prices.feeds]]. Until then its market decides alone."
            lines.warn(name, feed.sentence, remedy)
            continue
        age_s = price.age_s(chain_time_s)
        if age_s > settings.trigger.max_price_age_s:
            lines.warn(name, f"its price is {age_s:.0f} s old, and says nothing", "Is it still posted there?")
        else:
            lines.passed(name, f"{decimal(price.price_1e6)}, {age_s:.0f} s old")


async def crank(client: ChainClient, program: Program, keeper: Pubkey, settings: Settings, lines: Lines) -> None:
    """The key of those who post prices: as safe as the keeper's own, another one, and each market's authority."""
    authority = lines.try_to("crank", lambda: load_authority(settings, program, keeper))
    rules = lines.try_to("crank", lambda: crank_rules(settings, program))
    if authority is not None and rules is not None:
        found = f"{authority.signer.address} is the authority of {', '.join(authority.markets)}"
        await lines.holds("crank", check_authority(client, program, authority), found)


async def _identify(endpoint: EndpointUrls) -> str | ChainError:
    """Its genesis hash, or why it can't be worked with."""
    try:
        async with client_for([endpoint]) as client:
            genesis = await client.genesis_hash()
            await client.slot()
            return genesis
    except ChainError as e:
        return e


def _cluster(genesis: str) -> str:
    return next((name for name, known in CLUSTERS.items() if known == genesis), f"genesis {genesis}")
