"""Markets: what an order can be placed on, and whether orders are executed there now."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from keeper.http.answers import answer
from keeper.http.describe import described_by
from keeper.http.models import MarketList, MarketView
from keeper.http.problems import Problem
from keeper.http.views import market_view
from keeper.http.wiring import Ports, strict_query

router = APIRouter(prefix="/v1/markets", tags=["markets"], dependencies=[strict_query])


@router.get("", summary="Every market", **described_by({200: MarketList}))
async def markets(ports: Ports) -> Response:
    """Every market that the keeper watches, by symbol."""
    views = [market_view(market, ports.desk) for market in ports.desk.markets()]
    return answer(MarketList(markets=sorted(views, key=lambda view: (view.market, view.address))))


@router.get(
    "/{base}/{quote}",
    summary="One market",
    **described_by({200: MarketView}, problems=["not_found"]),
)
async def market(base: str, quote: str, ports: Ports) -> Response:
    """A market by its two assets: `/v1/markets/SOL/USDC`."""
    found = ports.desk.market(f"{base}/{quote}")
    if found is None:
        raise Problem("not_found", "The program has no such market that the keeper watches.")
    return answer(market_view(found, ports.desk))
