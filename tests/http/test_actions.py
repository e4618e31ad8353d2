"""Solana Actions: an order from a link, by any wallet, from any page."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.orders import OrderType
from keeper.venue.venue import decode_order
from tests.http.http_world import World, problem, serving

pytestmark = pytest.mark.anyio
PATH = "/actions/place-order"
ORDER = {"market": "SOL/USDC", "order_type": "stop_loss", "side": "long", "size": "2.5", "trigger_price": "95.5"}


def check_cors(answer: httpx.Response) -> None:
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "X-Accept-Blockchain-Ids" in answer.headers["access-control-allow-headers"]
    assert answer.headers["x-action-version"] == "2.4"


async def test_the_rules(world: World) -> None:
    answer = await world.http.get("/actions.json")
    check_cors(answer)
    assert answer.json() == {"rules": [{"pathPattern": "/actions/**", "apiPath": "/actions/**"}]}


@pytest.mark.parametrize("path", ["/actions.json", PATH])
async def test_preflights_are_answered(world: World, path: str) -> None:
    answer = await world.http.options(path, headers={"Origin": "https://dial.to"})
    assert answer.status_code == 204
    check_cors(answer)


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/actionsx"])
async def test_no_other_path_is_for_other_origins(world: World, path: str) -> None:
    answer = await world.http.get(path, headers={"Origin": "https://dial.to"})
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("link", "asked"),
    [
        ({}, {"order_type", "side", "size", "trigger_price", "limit_price", "trailing_distance", "leverage"}),
        ({"order_type": "stop_loss", "side": "long"}, {"size", "trigger_price", "leverage"}),
        ({"order_type": "limit", "side": "short"}, {"size", "limit_price", "leverage"}),
        ({"order_type": "trailing_stop"}, {"side", "size", "trigger_price", "trailing_distance", "leverage"}),
    ],
)
async def test_what_a_link_leaves_open_is_asked_for(world: World, link: dict[str, str], asked: set[str]) -> None:
    answer = await world.http.get(PATH, params={"market": "SOL/USDC", **link})
    check_cors(answer)
    shown = answer.json()
    assert (shown["type"], shown["disabled"]) == ("action", False)
    icon = await world.http.get(shown["icon"])
    assert icon.headers["content-type"] == "image/svg+xml"
    (action,) = shown["links"]["actions"]
    assert {parameter["name"] for parameter in action["parameters"]} == asked
    for name in asked:
        assert f"{name}={{{name}}}" in action["href"]
    for name, value in link.items():
        assert f"{name}={value}" in action["href"]


async def test_an_order_by_an_action(world: World, wallet: Keypair) -> None:
    shown = (await world.http.get(PATH, params={"order_type": "stop_loss", "side": "long"})).json()
    # As a wallet does: fill in, and post to the link.
    href = shown["links"]["actions"][0]["href"]
    for name, value in {"size": "2.5", "trigger_price": "95.5", "leverage": "5"}.items():
        href = href.replace(f"{{{name}}}", value)
    answer = await world.http.post(href, json={"account": str(wallet.pubkey()), "type": "transaction"})
    assert answer.status_code == 200, answer.text
    check_cors(answer)
    unsigned = VersionedTransaction.from_bytes(base64.b64decode(answer.json()["transaction"]))
    landed = world.net.bank.land(VersionedTransaction(unsigned.message, [wallet]))
    assert not isinstance(landed, str), landed
    assert landed.err is None, landed.err
    address = answer.json()["message"].rsplit(" ", 1)[1].rstrip(".")
    account = world.net.bank.account(Pubkey.from_string(address))
    assert account is not None
    order = decode_order(Pubkey.from_string(address), bytes(account.data), 1)
    assert (order.user, order.order_type, order.stop_price_1e6) == (wallet.pubkey(), OrderType.STOP_LOSS, 95_500_000)
    assert parse_qs(urlsplit(href).query)["market"] == ["SOL/USDC"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": "0"}, "size"),
        ({"size": ""}, "size"),
        ({"trigger_price": ""}, "trigger_price"),
        ({"order_type": "iceberg"}, "order_type"),
        ({"side": "up"}, "side"),
        ({"market": "DOGE/USDC"}, "market"),
        ({"leverage": "256"}, "leverage"),
    ],
)
async def test_what_is_wrong_with_an_action_is_said_of_its_field(
    world: World, wallet: Keypair, changes: dict[str, str], field: str
) -> None:
    answer = await world.http.post(PATH, params={**ORDER, **changes}, json={"account": str(wallet.pubkey())})
    check_cors(answer)
    assert problem(answer)["field"] == field
    assert answer.json()["message"], "the Actions specification's word for an error"


@pytest.mark.parametrize("body", [{}, {"account": "x"}, {"account": 5}, []])
async def test_an_account_that_is_none(world: World, body: Any) -> None:
    assert problem(await world.http.post(PATH, params=ORDER, json=body))["status"] == 422


async def test_a_public_url_and_the_chain_are_told(world: World) -> None:
    ports = replace(
        world.ports, metrics=CollectorRegistry(), public_url="https://keeper.example", genesis="EtWTRABZaYq6" + "x" * 32
    )
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        answer = await http.get(PATH)
    assert answer.json()["icon"] == "https://keeper.example/page/icon.svg"
    assert answer.headers["x-blockchain-ids"] == "solana:" + ("EtWTRABZaYq6" + "x" * 32)[:32]


async def test_a_request_does_not_choose_whose_icon_is_shown(world: World) -> None:
    answer = await world.http.get(PATH, headers={"Host": "203.0.113.9"})
    assert answer.json()["icon"] == f"http://127.0.0.1:{world.port}/page/icon.svg"


async def test_a_link_that_was_shared_brings_more_than_the_action_knows(world: World, wallet: Keypair) -> None:
    tagged = {**ORDER, "utm_source": "somewhere", "fbclid": "x"}
    shown = await world.http.get(PATH, params=tagged)
    assert shown.status_code == 200
    assert "utm" not in shown.text
    answer = await world.http.post(PATH, params=tagged, json={"account": str(wallet.pubkey())})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "link",
    [
        {"market": "SOL/USDC&size=999"},
        {"market": "FREE AIRDROP at evil.example - claim"},
        {"market": "SOL/USDC#"},
        {"market": "{size}"},
    ],
)
async def test_a_link_puts_no_words_of_its_own_into_the_action(world: World, link: dict[str, str]) -> None:
    shown = (await world.http.get(PATH, params=link)).json()
    assert shown["disabled"]
    assert shown["title"] == "Place a conditional order"
    (action,) = shown["links"]["actions"]
    fixed, _, _ = action["href"].partition("&order_type=")
    assert parse_qs(urlsplit(fixed).query) == {"market": [link["market"]]}


@pytest.mark.parametrize("link", [{"order_type": "foo {size}"}, {"side": "up&leverage=255"}, {"order_type": "iceberg"}])
async def test_a_link_with_a_word_that_is_none_is_refused(world: World, link: dict[str, str]) -> None:
    (field,) = link
    assert problem(await world.http.get(PATH, params=link))["field"] == field
