"""What was handed out and waits for its user's signature: bounded, and not an order before it comes back signed.

Anybody may prepare anything for any wallet, so nothing of it goes into the list of orders, and whoever prepares much
makes room for it by what he prepared before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.decimals import parse_1e6
from keeper.domain.errors import Transient
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, Side
from keeper.http.models import OrderSummary
from keeper.http.ports import Blockhashes
from keeper.journal.records import OrderRow, PreparedRow, Source
from keeper.solana.client import BLOCKHASH_BLOCKS

_MOST: Final = 4_096
"""About 2 KB each."""
_MOST_OF_A_CLIENT: Final = 256
_MOST_FOR_A_USER: Final = 64
SIGN_BEFORE: Final = "sign_before"
"""Beside the order's terms, the row's arguments keep until when its user was told to sign."""


class Waiting:
    """The rows that wait for a signature, by id, so that relaying one need not read the journal again.

    The journal stays the truth: a row gets in here once it is written, and the commit that submits it says, in the same
    transaction, that it was waiting still. What is not found here is looked up there.
    """

    def __init__(
        self, most: int = _MOST, *, of_a_client: int = _MOST_OF_A_CLIENT, for_a_user: int = _MOST_FOR_A_USER
    ) -> None:
        self._most, self._of_a_client, self._for_a_user = most, of_a_client, for_a_user
        self._rows: dict[str, tuple[PreparedRow, str]] = {}
        self._by_client: dict[str, dict[str, None]] = {}
        self._by_user: dict[Pubkey, dict[str, None]] = {}

    def __repr__(self) -> str:
        return f"Waiting({len(self._rows)} of {self._most})"

    def get(self, prepared_id: str) -> PreparedRow | None:
        """The row; None when it is not known here."""
        row, _ = self._rows.get(prepared_id, (None, ""))
        return row

    def make_room(self, user: Pubkey, client: str) -> str | None:
        """Forget the row that has to go for one more of this client's for this user; its id, None when none has to.

        It is the oldest of whoever has most: one who fills it up displaces himself, and nobody's few.
        """
        mine, his = self._by_client.get(client, {}), self._by_user.get(user, {})
        if len(mine) >= self._of_a_client:
            goes = next(iter(mine))
        elif len(his) >= self._for_a_user:
            goes = self._of_the_greediest(his)
        elif len(self._rows) >= self._most:
            goes = self._of_the_greediest(self._rows)
        else:
            return None
        self.drop(goes)
        return goes

    def _of_the_greediest(self, ids: Iterable[str]) -> str:
        clients = Counter(self._rows[prepared_id][1] for prepared_id in ids)
        ((greediest, _),) = clients.most_common(1)
        return next(prepared_id for prepared_id in ids if self._rows[prepared_id][1] == greediest)

    def add(self, row: PreparedRow, client: str) -> None:
        """Remember a row that is in the journal and waits for its signature."""
        self._rows[row.id] = row, client
        self._by_client.setdefault(client, {})[row.id] = None
        self._by_user.setdefault(row.user, {})[row.id] = None

    def drop(self, prepared_id: str) -> None:
        """It is not waiting any more, or perhaps not."""
        row, client = self._rows.pop(prepared_id, (None, ""))
        if row is None:
            return
        del self._by_client[client][prepared_id], self._by_user[row.user][prepared_id]
        if not self._by_client[client]:
            del self._by_client[client]
        if not self._by_user[row.user]:
            del self._by_user[row.user]


def confirmed_height(blockhashes: Blockhashes) -> int | None:
    """The confirmed block height, as the newest blockhash tells it; None while there is none."""
    try:
        return blockhashes.current().last_valid_block_height - BLOCKHASH_BLOCKS
    except Transient:
        return None


def can_land(row: PreparedRow, blockhashes: Blockhashes) -> bool:
    """Whether its transaction could have landed, or could still, without the keeper having heard of it."""
    height = confirmed_height(blockhashes)
    # A transaction can land one block after its last valid height. What did not land on one fork until nothing of that
    # is undone any more has landed on none.
    return height is None or height <= row.last_valid_block_height + 1 + blockhashes.undone_blocks


def summary_in(row: PreparedRow) -> OrderSummary:
    """The order as its user asked for it."""
    return OrderSummary(**{name: value for name, value in row.arguments.items() if name != SIGN_BEFORE})


def order_of(row: PreparedRow) -> Order:
    """The order that a transaction to place one is for, as its user asked for it: slot 0 says that no chain has it."""
    asked = summary_in(row)
    return Order(
        address=row.order,
        user=row.user,
        market=row.market,
        order_type=OrderType[asked.order_type.upper()],
        side=Side[asked.side.upper()],
        size_1e6=parse_1e6(asked.size),
        price_1e6=parse_1e6(asked.limit_price or "0"),
        stop_price_1e6=parse_1e6(asked.trigger_price or "0"),
        trailing_distance_ppm=parse_1e6(asked.trailing_distance or "0"),
        leverage=asked.leverage,
        status=OnchainStatus.PENDING,
        created_at=0,
        expires_at=asked.expires_at or 0,
        filled_size_1e6=0,
        order_id=None if asked.order_id is None else int(asked.order_id),
        slot=0,
    )


def shown(row: PreparedRow, blockhashes: Blockhashes) -> OrderRow:
    """What a transaction to place an order, which nobody signed, is as an order: prepared, or dropped."""
    state, reason = OrderState.PREPARED, "Waiting for its user's signature."
    if not can_land(row, blockhashes):
        state, reason = OrderState.DROPPED, "It was prepared, did not come back signed, and can no longer land."
    return OrderRow(
        id=0,
        order=order_of(row),
        state=state,
        reason=reason,
        source=Source.API,
        first_seen_at=row.created_at,
        updated_at=row.created_at,
        version=0,
        client_order_id=row.client_order_id,
    )
