"""Simulations: what a node says that a transaction would do, to the key that pays for it among others."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from solders.pubkey import Pubkey

from keeper.domain.errors import BehindNode, ChainError
from keeper.solana.pool import RpcPool
from keeper.solana.rpc import Call, Reply
from keeper.solana.shapes import context_slot, field, number, shape

_ASKED: Final = 3
"""So often a node is asked for a balance and a simulation as of one slot."""
_PROCESSED: Final[Mapping[str, Any]] = {"commitment": "processed", "encoding": "base64"}


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a simulation said. `err` as in SignatureStatus; `units` are the compute units consumed."""

    err: object
    logs: tuple[str, ...]
    units: int
    slot: int


def simulation_in(reply: Reply, min_context_slot: int | None = None) -> Simulation:
    """What a reply to simulateTransaction says. ChainError when it is one, MalformedReply when it has another shape,
    BehindNode when it is as of a slot before `min_context_slot`.
    """
    if isinstance(reply, ChainError):
        raise reply
    value, slot = field(reply, "value"), context_slot(reply)
    if min_context_slot is not None and slot < min_context_slot:
        raise BehindNode(f"a node simulated as of slot {slot}, and was asked for {min_context_slot} or later")
    with shape("a simulation"):
        return Simulation(
            err=value["err"],
            logs=tuple(str(line) for line in value.get("logs") or ()),
            units=number(value.get("unitsConsumed") or 0),
            slot=slot,
        )


async def simulate_for(
    pool: RpcPool, wire: bytes, payer: Pubkey, *, min_context_slot: int | None = None
) -> tuple[Simulation, int | None]:
    """Run an unsigned transaction without landing it, with a blockhash of the node's own; and the lamports that `payer`
    would lose by it: None when it would fail, or when no node says so as of one slot. Raises as `simulation_in`.
    """
    since = {} if min_context_slot is None else {"minContextSlot": min_context_slot}
    # In one request, so as of one slot, unless the node makes a new one between the two.
    calls = [
        Call("getMultipleAccounts", ([str(payer)], {**_PROCESSED, **since, "dataSlice": {"offset": 0, "length": 0}})),
        Call(
            "simulateTransaction",
            (
                base64.b64encode(wire).decode(),
                {
                    **_PROCESSED,
                    **since,
                    "sigVerify": False,
                    "replaceRecentBlockhash": True,
                    "accounts": {"encoding": "base64", "addresses": [str(payer)]},
                },
            ),
        ),
    ]
    for _ in range(_ASKED):
        before, after = await pool.batch(calls)
        simulation = simulation_in(after, min_context_slot)
        if simulation.err is not None:
            break
        with suppress(ChainError):
            if not isinstance(before, ChainError) and context_slot(before) == simulation.slot:
                had, has = field(before, "value"), field(field(after, "value"), "accounts")
                return simulation, _lamports(had) - _lamports(has)
    return simulation, None


def _lamports(accounts: Any) -> int:
    with shape("an account"):
        (account,) = accounts
        return 0 if account is None else number(account["lamports"])
