"""Whatever is sent, the answer is as described: never a 5xx, and a problem with a known code when it is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from keeper.http.edge.problems import KINDS, Problem
from keeper.http.edge.strict_json import decode
from keeper.http.models import ExecuteOrder, PlaceOrder
from tests.http.http_world import World, problem, signed

pytestmark = pytest.mark.anyio

_FIELDS = PlaceOrder.__struct_fields__
_SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_VALUE = _SCALAR | st.lists(_SCALAR, max_size=3) | st.dictionaries(st.text(max_size=5), _SCALAR, max_size=3)
_ODD: list[Any] = [None, True, 0, -1, 1.5, 2**70, "", "x", "1", "\x00", "\ud7ff" * 50, [], [1], {}, {"a": 1}]


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=8), _VALUE))
def test_nothing_breaks_the_decoder(noise: bytes, body: dict[str, Any]) -> None:
    """It decodes or raises a Problem; building one fails for a code that is not in the list."""
    for shape in (PlaceOrder, ExecuteOrder):
        for content in (noise, httpx.Request("POST", "http://x", json=body).content if _is_json(body) else noise):
            with contextlib.suppress(Problem):
                decode(content, shape)


def _is_json(body: object) -> bool:
    return "nan" not in repr(body) and "inf" not in repr(body)


async def _send(world: World, method: str, path: str, **content: Any) -> httpx.Response:
    answer = await world.http.request(method, path, **content)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert problem(answer)["code"] in KINDS
    return answer


async def test_every_field_of_a_right_order_replaced_by_every_sort_of_value(world: World, wallet: Keypair) -> None:
    for name in _FIELDS:
        for value in _ODD:
            answer = await _send(world, "POST", "/v1/orders", json={**world.body(wallet), name: value})
            if answer.status_code >= 400:
                assert answer.json().get("field", name) == name


async def test_a_flip_of_any_of_a_signed_transactions_bytes_is_refused(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    wire = signed(prepared, wallet)
    before = len(world.relay.submitted)
    for position in range(0, len(wire), 3):
        broken = wire[:position] + bytes([wire[position] ^ 0x80]) + wire[position + 1 :]
        answer = await world.execute(prepared["id"], broken)
        assert answer.status_code == 422
        assert problem(answer)["field"] == "signed_transaction"
    assert len(world.relay.submitted) == before
    assert (await world.execute(prepared["id"], wire)).status_code == 202


@pytest.mark.parametrize(
    "path",
    [
        "/v1/orders/%00",
        "/v1/orders/%ff%fe",
        "/v1/orders/" + "1" * 3_000,
        "/v1/markets/%2F/x",
        "/v1/markets/%ed%a0%80/x",
    ],
)
async def test_odd_paths(world: World, path: str) -> None:
    answer = await _send(world, "GET", path)
    assert answer.status_code in (404, 422)
