"""A keeper as one writes it in an afternoon from the examples of solana-py and anchorpy.

Once a second: fetch every order with `program.account["Order"].all()`, fetch its market, compare, send
`execute_conditional_order` with `program.rpc`, and wait for `confirm_transaction`, one after the other. Nothing in it
is made slow on purpose, and nothing clever was added: the program's own id, one connection, confirmed commitment.
It prints a line of JSON for each execution. Run it as `python -m bench.naive_keeper RPC_URL IDL PROGRAM_ID KEY`, the
IDL being a file in the legacy format.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from anchorpy.program.context import Context
from anchorpy.program.core import Program
from anchorpy.provider import Provider, Wallet
from anchorpy_core.idl import Idl
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.types import TxOpts
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM

_EVERY_S = 1.0


async def main(rpc_url: str, idl: str, program_id: str, key: bytes) -> None:
    """Run until stopped."""
    keypair = Keypair.from_bytes(key)
    client = AsyncClient(rpc_url, commitment=Confirmed)
    provider = Provider(client, Wallet(keypair), opts=TxOpts(preflight_commitment=Confirmed))
    program = Program(Idl.from_json(idl), Pubkey.from_string(program_id), provider)
    print(json.dumps({"ready": True}), flush=True)
    while True:
        for order in await program.account["Order"].all():
            account = order.account
            if type(account.status).__name__ != "Pending":
                continue
            market = await program.account["Market"].fetch(account.market)
            if not met(account, market.last_oracle_price):
                continue
            position, _ = Pubkey.find_program_address([b"position", bytes(order.public_key)], program.program_id)
            user_account, _ = Pubkey.find_program_address(
                [b"user_account", bytes(account.user), bytes(2)], program.program_id
            )
            try:
                signature = await program.rpc["execute_conditional_order"](
                    ctx=Context(
                        accounts={
                            "market": account.market,
                            "order": order.public_key,
                            "position": position,
                            "user_account": user_account,
                            "executor": keypair.pubkey(),
                            "system_program": SYSTEM_PROGRAM,
                        },
                        signers=[keypair],
                    )
                )
                await client.confirm_transaction(signature, Confirmed)
                print(json.dumps({"executed": str(order.public_key)}), flush=True)
            except Exception as e:
                print(json.dumps({"failed": str(order.public_key), "why": repr(e)[:200]}), flush=True)
        await asyncio.sleep(_EVERY_S)


def met(order: object, price: int) -> bool:
    """Whether a stop loss or a take profit is met."""
    kind, long = type(order.order_type).__name__, type(order.side).__name__ == "Long"  # type: ignore[attr-defined]
    stop: int = order.stop_price  # type: ignore[attr-defined]
    if kind in ("StopLoss", "StopLimit"):
        return price <= stop if long else price >= stop
    return kind == "TakeProfit" and (price >= stop if long else price <= stop)


if __name__ == "__main__":
    url, idl_file, program, key_file = sys.argv[1:]
    secret = bytes(json.loads(Path(key_file).read_text()))
    asyncio.run(main(url, Path(idl_file).read_text(), program, secret))
