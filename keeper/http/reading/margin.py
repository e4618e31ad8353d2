"""A wallet's open positions and its margin: read from the chain within what users may ask of it, and kept a moment."""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar, cast

from msgspec import Meta
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.decimals import decimal
from keeper.domain.errors import MalformedAccount
from keeper.domain.orders import MarginAccount, Position
from keeper.http.edge.answering import PageSize, answer, part
from keeper.http.edge.costs import charge
from keeper.http.edge.idempotency import KeyedLock
from keeper.http.edge.openapi import described
from keeper.http.edge.problems import CHAIN_PROBLEMS
from keeper.http.models import EXAMPLE_WALLET, Address, Answer, Decimal, SideWord, SignedDecimal
from keeper.http.ports import ApiPorts, Desk
from keeper.solana.client import CONFIRMED
from keeper.venue.venue import decode_margin_account, decode_position, open_positions_of

T = TypeVar("T")

_KEPT_S: Final = 2.0
_MOST_KEPT: Final = 1_024
_MOST_POSITIONS: Final = 200
_DEADLINE_S: Final = 10.0
WalletAddress = Annotated[Pubkey, Meta(description="The wallet's address.", examples=[EXAMPLE_WALLET])]


class PositionView(Answer, frozen=True, kw_only=True):
    """An open position."""

    position: Address
    market: Annotated[str | None, Meta(description="Null when the keeper does not watch it.")]
    market_address: Address
    side: SideWord
    leverage: int
    size_base: Annotated[Decimal, Meta(description="In base units.")]
    entry_price_quote: Annotated[Decimal, Meta(description="In quote units a base unit, as all prices.")]
    price_quote: Annotated[Decimal | None, Meta(description="The oracle's newest, as the keeper knows it.")]
    liquidation_price_quote: Decimal
    initial_margin_quote: Annotated[Decimal, Meta(description="What it drew from its wallet's margin account.")]
    maintenance_margin_quote: Annotated[Decimal, Meta(description="What it must not fall below.")]
    profit_quote: Annotated[SignedDecimal | None, Meta(description="At `price_quote`; null without one. No funding.")]
    opened_at: Annotated[int, Meta(description="Unix seconds by the chain's clock.")]


class PositionList(Answer, frozen=True, kw_only=True):
    """A wallet's open positions, newest first."""

    user: Address
    positions: list[PositionView]
    total: Annotated[int, Meta(description="How many are open; at most `limit` of them are listed.")]
    slot: Annotated[int, Meta(description="As of which they were read, at confirmed.")]


class AccountView(Answer, frozen=True, kw_only=True):
    """A wallet's margin account, the one of index 0, on which fills draw. Amounts are in quote units."""

    user: Address
    account: Address
    exists: Annotated[
        bool, Meta(description="Whether there is one on chain. Without it no order of this wallet fills.")
    ]
    active: bool
    collateral_quote: Annotated[Decimal, Meta(description="What was deposited.")]
    available_margin_quote: Annotated[Decimal, Meta(description="What fills may still draw.")]
    initial_margin_quote: Annotated[Decimal, Meta(description="What its positions need at first; 0 in revision 0.1.")]
    maintenance_margin_quote: Annotated[Decimal, Meta(description="What its positions must keep; 0 in revision 0.1.")]
    positions: Annotated[int, Meta(description="As the account counts them.")]
    max_positions: int
    slot: Annotated[int, Meta(description="As of which it was read, at confirmed.")]


class MarginReader:
    """Reads wallets from the chain, each at most once in two seconds, whoever asks how often."""

    def __init__(self, ports: ApiPorts, clock: Callable[[], float] = time.monotonic) -> None:
        self._ports = ports
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, object]] = OrderedDict()
        self._reading = KeyedLock()

    def __repr__(self) -> str:
        return f"MarginReader({len(self._kept)} kept)"

    async def positions(self, wallet: Pubkey) -> tuple[int, int, list[Position]]:
        """The slot as of which they were read, how many positions are open, and the newest of them."""

        async def read() -> tuple[int, int, list[Position]]:
            program = self._ports.program.id
            slot, accounts = await self._ports.client.program_accounts(
                program, open_positions_of(wallet), commitment=CONFIRMED, deadline_s=_DEADLINE_S
            )
            found = []
            for account in accounts:
                with contextlib.suppress(MalformedAccount):
                    found.append(decode_position(account.address, account.data, slot))
            found.sort(key=lambda position: (-position.opened_at, bytes(position.address)))
            return slot, len(found), found[:_MOST_POSITIONS]

        return await self._once(f"positions {wallet}", read)

    async def account(self, wallet: Pubkey) -> tuple[int, Pubkey, MarginAccount | None]:
        """The slot as of which it was read, the address of the wallet's margin account, and that, if it has one."""
        address = self._ports.program.user_account_address(wallet)

        async def read() -> tuple[int, MarginAccount | None]:
            slot, (account,) = await self._ports.client.accounts([address])
            if account is None or account.owner != self._ports.program.id:
                return slot, None
            return slot, decode_margin_account(address, account.data, slot)

        slot, found = await self._once(f"account {wallet}", read)
        return slot, address, found

    async def _once(self, key: str, read: Callable[[], Awaitable[T]]) -> T:
        """What was read less than `_KEPT_S` ago, or is being read now; else read it. A failure is not kept."""
        async with self._reading.of(key):
            read_at, kept = self._kept.get(key, (-_KEPT_S, None))
            if self._clock() - read_at < _KEPT_S:
                return cast(T, kept)
            self._kept.pop(key, None)
            read_at, found = self._clock(), await read()
            self._kept[key] = read_at, found
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
            return found


@described("A wallet's open positions", {200: PositionList}, problems=CHAIN_PROBLEMS)
async def list_positions(request: Request, wallet: WalletAddress, limit: PageSize = 50) -> Response:
    """Whichever keeper or program opened them, newest first; at most two seconds old."""
    charge(request, 1)
    slot, total, found = await part(request, MarginReader).positions(wallet)
    desk = part(request, ApiPorts).desk
    views = [position_view(position, desk) for position in found[:limit]]
    return answer(PositionList(user=str(wallet), positions=views, total=total, slot=slot))


@described("A wallet's margin", {200: AccountView}, problems=CHAIN_PROBLEMS)
async def get_account(request: Request, wallet: WalletAddress) -> Response:
    """What the wallet deposited, what of it fills may still draw, and what its positions need; at most two seconds
    old. A wallet without a margin account has nothing in it.
    """
    charge(request, 1)
    slot, address, found = await part(request, MarginReader).account(wallet)
    amounts = found or MarginAccount(address, wallet, 0, 0, 0, 0, 0, 0, active=False, slot=slot)
    return answer(
        AccountView(
            user=str(wallet),
            account=str(address),
            exists=found is not None,
            active=amounts.active,
            collateral_quote=decimal(amounts.collateral_1e6),
            available_margin_quote=decimal(amounts.available_margin_1e6),
            initial_margin_quote=decimal(amounts.initial_margin_1e6),
            maintenance_margin_quote=decimal(amounts.maintenance_margin_1e6),
            positions=amounts.positions,
            max_positions=amounts.max_positions,
            slot=slot,
        )
    )


def position_view(position: Position, desk: Desk) -> PositionView:
    """A position, at the newest price that the keeper knows."""
    market, price = desk.market(position.market), desk.price(position.market)
    return PositionView(
        position=str(position.address),
        market=None if market is None else market.symbol,
        market_address=str(position.market),
        side=cast(SideWord, position.side.word),
        leverage=position.leverage,
        size_base=decimal(position.size_1e6),
        entry_price_quote=decimal(position.entry_price_1e6),
        price_quote=None if price is None else decimal(price.price_1e6),
        liquidation_price_quote=decimal(position.liquidation_price_1e6),
        initial_margin_quote=decimal(position.initial_margin_1e6),
        maintenance_margin_quote=decimal(position.maintenance_margin_1e6),
        profit_quote=None if price is None else decimal(position.profit_1e6(price.price_1e6)),
        opened_at=position.opened_at,
    )
