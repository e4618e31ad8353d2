"""Several ways to send at once, with the same bytes: one that lives is enough, and none but the chain is believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import SocketStream
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.app.endpoints import senders_of
from keeper.config.loading import load_settings
from keeper.config.sources import RpcSettings
from keeper.domain.attempts import Attempt, AttemptState
from keeper.domain.errors import Misconfigured, Rejected
from keeper.domain.orders import OrderState
from keeper.domain.ways import Answer, WayRow
from keeper.execution.purse import fee_of, utc_day
from keeper.solana.http1 import HttpTransport
from tests.behaviours.scripted_way import Role, ScriptedWay
from tests.behaviours.stand import A_FILL_LAMPORTS, SOL, USDC, Stand, stays
from tests.chaos.proxy import Fault, Kind
from tests.ops.test_operators_commands import keeper_command
from tests.support import BOUND_S, KeeperConfig, Trader, until
from tests.support.http_node import http_node

pytestmark = pytest.mark.anyio

TIP: Final = 200_000
FUNDED: Final = 100 * SOL
ADDRESS: Final = str(Keypair().pubkey())
ORDERS: Final = 300
MORE_THAN_FOUR_REQUESTS: Final = 190


@asynccontextmanager
async def opened(
    folder: Path,
    roles: Mapping[str, Role],
    *,
    kinds: Mapping[str, str] | None = None,
    tokens: Mapping[str, tuple[str, str]] | None = None,
    wrong: Mapping[str, str] | None = None,
    shared: bool = False,
    fault: Fault = Fault(Kind.HTTP_503),  # noqa: B008 - frozen
    lamports: int = TIP,
    **more: Any,
) -> AsyncIterator[tuple[Stand, dict[str, ScriptedWay]]]:
    """A stand whose keeper has these senders, by name; each wants a tip unless `kinds` says otherwise. `tokens` are
    what some of them ask for, and `wrong` what the keeper has in their place; with `shared` all want their tips to the
    same accounts. The node takes no transaction, by `fault`.
    """
    fees = {"tip_lamports": lamports, **more.pop("fees", {})}
    async with AsyncExitStack() as stack:
        stand = await stack.enter_async_context(Stand.open(folder, fees=fees, **more))
        ways: dict[str, ScriptedWay] = {}
        senders = []
        provider = [str(stand.world.wallet().pubkey()) for _ in range(2)]
        for name, role in roles.items():
            way = ways[name] = ScriptedWay(stand.bank, role, token=(tokens or {}).get(name))
            await stack.enter_async_context(way)
            way.on_calls = partial(seen, stand, name)
            kind = (kinds or {}).get(name, "sender")
            sender: dict[str, Any] = {"name": name, "kind": kind, "url": way.url}
            if kind != "rpc":
                own = [str(stand.world.wallet().pubkey()) for _ in range(2)]
                sender["tip_accounts"] = provider if shared else own
            if way.token is not None:
                sender |= {"token_header": way.token[0], "token": (wrong or {}).get(name, way.token[1])}
            senders.append(sender)
        configured = {name: values for name, values in stand.config.settings.items() if name != "key"}
        configured["rpc"] = {**configured["rpc"], "senders": senders}
        stand.config = type(stand.config).at(stand.config.folder, stand.config.key, **configured)
        stand.scripts[0].break_request(fault, method="sendTransaction", times=100_000)
        yield stand, ways


def seen(stand: Stand, name: str, calls: Any) -> None:
    """The witness sees what a sender is given, too."""
    assert stand.journal is not None
    stand.witness.on_calls(name, calls)


def answered(told: Mapping[str, WayRow], *ways: str) -> bool:
    """Whether the first of these ways has carried it, and each that has is known to have answered."""
    return ways[0] in told and all(told[way].answer is not None for way in ways if way in told)


def ledger(stand: Stand, attempt: Attempt) -> dict[str, WayRow]:
    """What the journal has of an attempt's sends, by way."""
    return {row.way: row for row in stand.journal.ways_of([attempt.signature]).get(attempt.signature, [])}


def paid(stand: Stand, attempt: Attempt) -> list[tuple[Pubkey, int]]:
    """What the attempt's bytes transfer, and to whom: its last instruction's, if that is one."""
    message = VersionedTransaction.from_bytes(attempt.wire).message
    last, keys = message.instructions[-1], message.account_keys
    if keys[last.program_id_index] != Pubkey.default():
        return []
    assert bytes(last.data[:4]) == b"\x02\0\0\0"
    return [(keys[last.accounts[1]], int.from_bytes(last.data[4:], "little"))]


async def test_while_one_way_is_alive_every_order_is_filled_exactly_once(tmp_path: Path) -> None:
    roles = {
        "dropping": Role.DROPS,
        "delaying": Role.DELAYS,
        "lying": Role.LIES,
        "refusing": Role.REFUSES,
        "living": Role.LANDS,
    }
    kinds = {"dropping": "rpc", "lying": "jito"}
    async with opened(tmp_path, roles, kinds=kinds, shared=True) as (stand, ways):
        market, traders = stand.world.market(), [stand.world.trader() for _ in range(10)]
        orders = [stand.order(traders[i % 10], market) for i in range(ORDERS)]
        async with stand.keeper():
            await stand.known(*orders)
            stand.world.set_price(market, 94 * USDC)
            for order in orders:
                await stand.reach(order, OrderState.FILLED)
            ways["delaying"].late.set()
            await until(lambda: all(stand.attempt_state(order) is AttemptState.FINALIZED for order in orders))
            landed = [a for order in orders for a in stand.attempts(order) if a.state is AttemptState.FINALIZED]
            shown = ("living", "lying", "refusing", "rpc")
            assert all(stand.landed(order) == 1 for order in orders)
            assert len(landed) == ORDERS
            assert all(stand.world.position(order) is not None for order in orders)
            tips = [stand.bank.account(Pubkey.from_string(address)) for address in tip_accounts(stand, "living")]
            assert sum(account.lamports for account in tips if account) == 2 * FUNDED + ORDERS * TIP
            await until(lambda: all(answered(ledger(stand, attempt), *shown) for attempt in landed))
            for attempt in landed:
                told = ledger(stand, attempt)
                assert told["living"].answer is Answer.ACCEPTED
                for name, row in told.items():
                    if name in ways:
                        assert 1 <= row.sends <= ways[name].sends_of(attempt.signature) or name == "dropping"
            some = [ledger(stand, attempt) for attempt in landed]
            assert {row["lying"].answer for row in some if "lying" in row} == {Answer.ACCEPTED}
            refused = {row["refusing"].answer for row in some if "refusing" in row}
            assert refused <= {Answer.REFUSED, Answer.UNCLEAR}
            assert refused
            assert {row["rpc"].answer for row in some} <= {Answer.UNCLEAR}


async def test_while_the_node_hangs_on_sends_the_senders_get_all(tmp_path: Path) -> None:
    """That they need not wait for the node is in `tests/execution/test_slow_nodes.py`."""
    hangs, execution = Fault(Kind.REQUEST_LOST, 60), {"resend_every_s": 60.0}
    rpc, health = {"deadline_s": 20.0}, {"stalled_after_s": 200.0}
    async with opened(
        tmp_path, {"living": Role.LANDS}, kinds={"living": "rpc"}, lamports=0, fault=hangs, execution=execution,
        rpc=rpc, health=health,
    ) as (stand, ways):  # fmt: skip
        market, traders = stand.world.market(), [stand.world.trader() for _ in range(10)]
        orders = [stand.order(traders[i % 10], market) for i in range(MORE_THAN_FOUR_REQUESTS)]
        async with stand.keeper():
            await stand.known(*orders)
            with stand.held():
                stand.world.set_price(market, 94 * USDC)
                await until(lambda: len(ways["living"].wires) == len(orders))
                assert len(set(ways["living"].wires)) == len(orders)
            for order in orders:
                await stand.reach(order, OrderState.FILLED)
        assert all(stand.landed(order) == 1 for order in orders)


@pytest.mark.parametrize("armed", [0, 2], ids=["signed for the price", "armed before it"])
async def test_what_is_tipped_pays_it_once_it_lands_and_costs_what_was_set_aside(tmp_path: Path, armed: int) -> None:
    async with opened(tmp_path, {"fast": Role.LANDS}, execution={"armed_a_side": armed}) as (stand, ways):
        market, before = stand.world.market(), stand.lamports
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            if armed:
                await until(lambda: armed_now(stand, order))
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
            await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
            (attempt,) = stand.attempts(order)
            ((account, lamports),) = paid(stand, attempt)
            assert str(account) in tip_accounts(stand, "fast")
            assert (attempt.tip_account, attempt.tip_lamports) == (account, lamports) == (account, TIP)
            assert ways["fast"].sends_of(attempt.signature) >= 1
            landed = stand.world.landed(attempt.signature)
            assert landed is not None
            assert landed.fee == fee_of(attempt) == attempt.fee_lamports
            position = stand.world.position(order)
            assert position is not None
            rent = stand.bank.account(position.address)
            assert rent is not None
            cost = landed.fee + TIP + rent.lamports
            assert before - stand.lamports == cost
            assert stand.journal.spent(utc_day()) == cost
            await until(lambda: ledger(stand, attempt).keys() == {"rpc", "fast"})
            metrics = (await stand.get("/metrics")).text
            sends = ways["fast"].sends_of(attempt.signature)  # on a busy machine it is sent again
            for line in (
                f'keeper_outflow_lamports_total{{what="tip"}} {TIP:.1f}',
                'keeper_daily_outflow_lamports{what="reserved"} 0.0',
                f'keeper_way_answers_total{{answer="accepted",way="fast"}} {sends:.1f}',
                'keeper_way_landed_total{way="fast"} 1.0',
            ):
                assert line in metrics or await comes(stand, line)


async def test_what_a_way_accepts_has_not_landed(tmp_path: Path) -> None:
    roles = {"lying": Role.LIES, "engine": Role.BUNDLES}
    async with opened(tmp_path, roles, kinds={"lying": "rpc", "engine": "jito"}) as (stand, ways):
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            with stand.held():
                stand.world.set_price(market, 94 * USDC)
                await until(lambda: ways["lying"].wires and ways["engine"].wires)
                (first,) = stand.attempts(order)
                answered = {"lying": Answer.ACCEPTED, "engine": Answer.ACCEPTED}
                await until(lambda: {n: r.answer for n, r in ledger(stand, first).items() if n in ways} == answered)
                assert stand.state(order) is OrderState.EXECUTING
                assert stand.attempt_state(order) in (AttemptState.SIGNED, AttemptState.UNKNOWN)
                assert {path for path, _, _ in ways["engine"].asked} == {"/api/v1/transactions"}
            assert {call["params"][1]["encoding"] for _, _, call in ways["engine"].asked} == {"base64"}
            await until(lambda: stand.attempts(order)[0].state is AttemptState.EXPIRED)
            ways["engine"].role = Role.LANDS
            await stand.reach(order, OrderState.FILLED)
            await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
            assert stand.landed(order) == 1
            assert stand.bank.history.get(first.signature) is None


async def test_a_tip_is_paid_from_the_attempt_on_that_the_settings_name(tmp_path: Path) -> None:
    fees = {"tip_from_attempt": 2}
    async with opened(tmp_path, {"fast": Role.LANDS, "node": Role.LIES}, kinds={"node": "rpc"}, fees=fees) as (
        stand,
        ways,
    ):
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
        first, *_, last = stand.attempts(order)
        assert (first.tip_lamports, paid(stand, first), first.state) == (None, [], AttemptState.EXPIRED)
        assert ways["fast"].sends_of(first.signature) == 0
        assert ways["node"].sends_of(first.signature) >= 1
        assert (last.tip_lamports, [lamports for _, lamports in paid(stand, last)]) == (TIP, [TIP])
        assert ways["fast"].sends_of(last.signature) >= 1


async def test_each_provider_carries_what_pays_it_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path, {"one": Role.LIES, "two": Role.LANDS}) as (stand, ways):
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
        first, second, *_ = stand.attempts(order)
        for attempt, by, other in ((first, "one", "two"), (second, "two", "one")):
            assert str(attempt.tip_account) in tip_accounts(stand, by)
            assert ways[by].sends_of(attempt.signature) >= 1
            assert ways[other].sends_of(attempt.signature) == 0


async def test_after_a_restart_the_same_bytes_go_the_same_ways(tmp_path: Path) -> None:
    async with opened(tmp_path, {"fast": Role.LIES}) as (stand, ways):
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        with ExitStack() as until_the_end:
            async with stand.keeper():
                await stand.known(order)
                until_the_end.enter_context(stand.held())
                stand.world.set_price(market, 94 * USDC)
                await until(lambda: ways["fast"].wires)
                (attempt,) = stand.attempts(order)
                await until(lambda: ledger(stand, attempt).get("fast"))
            known = ledger(stand, attempt)["fast"]
            assert known.answer is Answer.ACCEPTED
            ways["fast"].role = Role.LANDS
            async with stand.keeper():
                await until(lambda: stand.bank.history.get(attempt.signature))
                await until(lambda: ledger(stand, attempt)["fast"].sends > known.sends)
            assert ledger(stand, attempt)["fast"].sent_at == known.sent_at
        assert set(ways["fast"].wires) == {attempt.wire}


async def test_what_the_program_refuses_pays_no_tip(tmp_path: Path) -> None:
    async with opened(tmp_path, {"slow": Role.DELAYS}) as (stand, ways):
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            with stand.held():
                stand.world.set_price(market, 94 * USDC)
                await until(lambda: ways["slow"].wires)
                stand.world.set_price(market, 100 * USDC)
                ways["slow"].late.set()
                (attempt,) = stand.attempts(order)
                await until(lambda: stand.bank.history.get(attempt.signature))
            await until(lambda: stand.attempt_state(order) is AttemptState.FAILED)
            (attempt,) = stand.attempts(order)
            assert attempt.error_name == "ConditionNotMet"
            assert attempt.fee_lamports == stand.journal.spent(utc_day()) == fee_of(attempt)
            account = stand.bank.account(attempt.tip_account or Pubkey.default())
            assert account is not None
            assert account.lamports == FUNDED


async def test_a_tip_counts_against_the_days_cap(tmp_path: Path) -> None:
    fees = {"daily_outflow_cap_lamports": A_FILL_LAMPORTS + TIP - 10_000}
    async with opened(tmp_path, {"fast": Role.LANDS}, fees=fees) as (stand, ways):
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            await stand.reason(order, "fees.daily_outflow_cap_lamports")
            await stays(lambda: not stand.sends and not ways["fast"].wires, stand)


@pytest.mark.parametrize(
    "role", [Role.LANDS, Role.SPEAKS_ELSE], ids=["its token is refused", "it speaks something else"]
)
async def test_a_way_that_is_no_way_is_named_and_decides_nothing(tmp_path: Path, role: Role) -> None:
    token, wrong = "a-good-token", "a-secret-that-is-wrong"
    roles, kinds = {"odd": role, "living": Role.LANDS}, {"odd": "rpc", "living": "rpc"}
    tokens = {"odd": ("authorization", token), "living": ("x-token", token)}
    given = {"odd": wrong if role is Role.LANDS else token}
    async with opened(tmp_path, roles, kinds=kinds, tokens=tokens, wrong=given, lamports=0) as (stand, ways):
        market, trader = stand.world.market(), stand.world.trader()
        orders = [stand.order(trader, market) for _ in range(4)]
        async with stand.keeper():
            await stand.known(*orders)
            stand.world.set_price(market, 94 * USDC)
            for order in orders:
                await stand.reach(order, OrderState.FILLED)
            said, answer = ("HTTP 401", "refused") if role is Role.LANDS else ("without JSON", "unclear")
            await stand.told("ways", lambda detail: "odd" in detail and said in detail)
            assert (await stand.get("/readyz")).status_code == 200
            assert await comes(stand, 'keeper_health_check{check="ways"} 0.0')
            assert await comes(stand, f'keeper_way_answers_total{{answer="{answer}",way="odd"}}')
            health = (await stand.get("/healthz")).text
            assert wrong not in health
            assert token not in health
        for order in orders:
            assert stand.landed(order) == 1
            told = ledger(stand, stand.attempts(order)[-1])
            assert told["living"].answer is Answer.ACCEPTED
            if "odd" in told:
                assert told["odd"].answer in (Answer.REFUSED, Answer.UNCLEAR)
                assert wrong not in (told["odd"].detail or "")
        assert {headers["x-token"] for _, headers, _ in ways["living"].asked} == {token}


async def test_the_ledger_is_shown_in_lines_and_as_json(tmp_path: Path) -> None:
    async with opened(tmp_path, {"fast": Role.LANDS}) as (stand, _):
        market = stand.world.market()
        order = stand.order(stand.world.trader(), market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(order, OrderState.FILLED)
            await until(lambda: ledger(stand, stand.attempts(order)[0]).keys() == {"rpc", "fast"})
        command = ("executions", "--ways", "--config", str(stand.config.file))
        (line,) = (await keeper_command(*command, "--json")).stdout.splitlines()
        shown = json.loads(line)
        assert shown["tip_lamports"] == TIP
        assert {way["way"]: way["answer"] for way in shown["ways"]} == {"rpc": "unclear", "fast": "accepted"}
        assert all(way["sends"] >= 1 and way["after_s"] >= 0 for way in shown["ways"])
        table = (await keeper_command(*command)).stdout
        assert table.count(str(order)) == 2
        assert "accepted" in table
        story = (await keeper_command("explain", str(order), "--config", str(stand.config.file))).stdout
        assert "fast accepted" in story
        assert f"a tip of {TIP:,}" in story


async def test_without_senders_no_ledger_is_kept(stand: Stand, trader: Trader, market: Pubkey) -> None:
    order = stand.order(trader, market)
    async with stand.keeper():
        await stand.known(order)
        stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.FILLED)
        await until(lambda: stand.attempt_state(order) is AttemptState.FINALIZED)
    (attempt,) = stand.attempts(order)
    assert (attempt.tip_lamports, paid(stand, attempt), ledger(stand, attempt)) == (None, [], {})


@pytest.mark.parametrize(
    ("sender", "fees", "sentence"),
    [
        ({"kind": "sender"}, {}, "needs tip_accounts"),
        ({"kind": "rpc", "tip_accounts": [ADDRESS]}, {}, "takes no tip"),
        ({"name": "fallback-1"}, {}, "take another name"),
        ({"token": "a\nb"}, {}, "it is no token"),
        ({"kind": "jito", "tip_accounts": [ADDRESS]}, {}, "fees.tip_lamports is 0"),
        ({}, {"tip_lamports": 1_000}, "names no sender of kind sender or jito"),
        (
            {"kind": "jito", "tip_accounts": [ADDRESS]},
            {"tip_lamports": 1_000_000},
            "fees.cap_lamports (1000000) must be at least 1005000",
        ),
        ({"url": "ftp://a.example"}, {}, "The setting rpc.senders[0].url is not an http or https URL."),
    ],
)
def test_settings_that_do_not_go_together_are_one_clear_line(
    tmp_path: Path, sender: dict[str, Any], fees: dict[str, Any], sentence: str
) -> None:
    given = {"name": "node", "kind": "rpc", "url": "https://a.example/?api-key=SECRET", **sender}
    config = KeeperConfig.at(tmp_path, Keypair(), rpc={"senders": [given]}, fees=fees)
    with pytest.raises(Misconfigured) as raised:
        senders_of(load_settings(config.file).rpc, HttpTransport)
    assert sentence in str(raised.value)
    assert "SECRET" not in str(raised.value)


async def test_what_a_sender_repeats_of_its_secrets_is_not_shown() -> None:
    async def echo(stream: SocketStream, body: bytes) -> None:
        call = json.loads(body)
        error = {
            "jsonrpc": "2.0",
            "id": call["id"],
            "error": {"code": -32002, "message": "SECRET-1 of \x1b[31mSECRET-2"},
        }
        await stream.send(http_reply(json.dumps(error).encode()))

    async with http_node(echo) as url:
        settings = RpcSettings.model_validate(
            {"senders": [{"name": "node", "kind": "rpc", "url": f"{url}/?api-key=SECRET-1", "token": "SECRET-2"}]}
        )
        (sender,) = senders_of(settings, HttpTransport)
        reply = await sender.send(b"\x01" * 100)
        assert isinstance(reply, Rejected)
        for shown in (sender.fault, sender.shown(reply), repr(sender)):
            assert "SECRET" not in shown
            assert "\x1b" not in shown
        await sender.aclose()


# -- helpers of these tests


def armed_now(stand: Stand, order: Pubkey) -> bool:
    return any(a.order == order and a.state is AttemptState.ARMED for a in stand.journal.open_attempts())


def tip_accounts(stand: Stand, name: str) -> list[str]:
    (found,) = (s["tip_accounts"] for s in stand.config.settings["rpc"]["senders"] if s["name"] == name)
    return list(found)


async def comes(stand: Stand, line: str) -> bool:
    """Whether the metrics have this line, sooner or later."""
    with anyio.move_on_after(BOUND_S):
        while line not in (await stand.get("/metrics")).text:  # noqa: ASYNC110 - asked over HTTP
            await anyio.sleep(0.05)
        return True
    return False


def http_reply(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
