"""A program of each revision, a user, and a prepared order: what the tests of placing and relaying begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.chain.client import Blockhash
from keeper.chain.idl import load_idl
from keeper.chain.placing import OrderTerms
from keeper.chain.program import Program
from keeper.domain.orders import OrderType, Side
from keeper.localnet.program import IDL_PATH

USER = Keypair.from_seed(bytes([7] * 32))
KEEPER = Keypair.from_seed(bytes([9] * 32))
BLOCKHASH = Blockhash(str(Hash.new_unique()), 1_150, 1_000)
ORDER_ID = 2**63 + 5

ATOMIC = Program(Pubkey.from_string("QuantDeskPerpDex111111111111111111111111111"), load_idl(Path(IDL_PATH)))
DEPLOYED = Program(
    Pubkey.from_string("C2T3UnvGdHwEkspXJG7JyAhwo6VKQEKjN6eCq69guYSw"),
    load_idl(Path(str(files("keeper.chain") / "idls" / "quantdesk_0_1.json"))),
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
