"""A program of each revision, a user, and a prepared order: what the tests of placing and relaying begin with."""

from __future__ import annotations

from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderType, Side
from keeper.solana.client import Blockhash
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.placing import OrderTerms
from keeper.venue.program import Program

USER = Keypair.from_seed(bytes([7] * 32))
KEEPER = Keypair.from_seed(bytes([9] * 32))
BLOCKHASH = Blockhash(str(Hash.new_unique()), 1_150, 1_000)
ORDER_ID = 2**63 + 5

ATOMIC = Program(Pubkey.from_string("QuantDeskPerpDex111111111111111111111111111"), load_idl(PACKAGED["0.2"]))
DEPLOYED = Program(
    Pubkey.from_string("C2T3UnvGdHwEkspXJG7JyAhwo6VKQEKjN6eCq69guYSw"),
    load_idl(PACKAGED["0.1"]),
)


def terms(program: Program, user: Pubkey | None = None) -> OrderTerms:
    return OrderTerms(
        user=USER.pubkey() if user is None else user,
        market=program.market_address("SOL", "USDC"),
        order_type=OrderType.STOP_LOSS,
        side=Side.LONG,
        size_1e6=2_500_000,
        price_1e6=0,
        stop_price_1e6=95_500_000,
        trailing_distance_ppm=0,
        leverage=5,
        expires_at=0,
    )
