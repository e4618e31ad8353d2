"""Markets: what an order can be placed on, what rests there, and whether orders are executed there now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from keeper.http.edge.answers import answer
from keeper.http.edge.describe import described_by
from keeper.http.edge.problems import Problem
from keeper.http.models import MarketList, MarketView
from keeper.http.reading.market_views import market_views
from keeper.http.wiring import Ports, strict_query

router = APIRouter(prefix="/v1/markets", tags=["markets"], dependencies=[strict_query])


Levels = Annotated[int, Query(ge=0, le=200, description="How many triggers to list on each side of the price.")]


@router.get("", summary="Every market", **described_by({200: MarketList}, problems=["invalid_field"]))
async def markets(ports: Ports, levels: Levels = 1) -> Response:
    """Every market that the keeper watches, by symbol: its price, how many orders rest on it by type, and the nearest
    triggers on each side of the price.
    """
    return answer(MarketList(markets=market_views(ports.desk.markets(), ports.desk, ports.health.report(), levels)))


@router.get(
    "/{base}/{quote}",
    summary="One market",
    **described_by({200: MarketView}, problems=["not_found", "invalid_field"]),
)
async def market(
    base: str,
    quote: str,
    ports: Ports,
    levels: Levels = 20,
) -> Response:
    """A market by its symbol, with the triggers around its price: `/v1/markets/SOL/USDC`, or with the slash encoded,
    `/v1/markets/SOL%2FUSDC`.
    """
    found = ports.desk.market(f"{base}/{quote}")
    if found is None:
        raise Problem("not_found", "The program has no such market that the keeper watches; /v1/markets lists them.")
    (view,) = market_views([found], ports.desk, ports.health.report(), levels)
    return answer(view)
