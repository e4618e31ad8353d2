"""Every u64 is kept exactly, at the ends of its range too."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keeper.journal import AddAttempt, Journal, NoteOrder
from keeper.journal.rows import from_stored, to_stored
from tests.journal.journal_making import make_attempt, make_order

U64 = st.integers(0, 2**64 - 1)


@given(U64)
@example(0)
@example(2**63 - 1)
@example(2**63)
@example(2**64 - 1)
def test_there_and_back(value: int) -> None:
    stored = to_stored(value)
    assert -(2**63) <= stored < 2**63
    assert from_stored(stored) == value


@pytest.mark.parametrize("value", [-1, 2**64])
def test_what_is_no_u64_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="unsigned 64-bit"):
        to_stored(value)


@settings(max_examples=15)
@given(st.lists(st.tuples(U64, U64, U64, U64, U64), min_size=1, max_size=20))
@example([(2**64 - 1,) * 5, (2**63,) * 5, (0,) * 5])
def test_orders_and_attempts_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[tuple[int, int, int, int, int]]
) -> None:
    async def main(path: Path) -> None:
        orders = [
            make_order(size_1e6=a, price_1e6=b, stop_price_1e6=c, order_id=d, slot=e, filled_size_1e6=a)
            for a, b, c, d, e in numbers
        ]
        attempts = [
            make_attempt(
                order.address,
                last_valid_block_height=order.price_1e6,
                trigger_price_1e6=order.size_1e6,
                unit_price_micro_lamports=order.slot,
            )
            for order in orders
        ]
        async with Journal.open(path) as journal:
            await journal.commit(*map(NoteOrder, orders), *map(AddAttempt, attempts))
            # Again: the second time the facts are compared with what is stored.
            await journal.commit(*map(NoteOrder, orders))
            for order, attempt in zip(orders, attempts, strict=True):
                row = await journal.order(order.address)
                assert row is not None
                assert row.order == order
                assert await journal.attempts_of(order.address) == [attempt]
                assert row.version == 2, "noting the same again changed nothing"

    anyio.run(main, tmp_path_factory.mktemp("u64") / "j.db")
