"""The chain at the commitment that a call asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keeper.localnet.bank import Bank
from keeper.localnet.chain import Block
from keeper.localnet.commitment import Commitment
from keeper.localnet.errors import invalid_params, min_context_slot_not_reached
from keeper.localnet.params import Config, Params
from keeper.localnet.vm import RUNTIME_VERSION


@dataclass(frozen=True, slots=True)
class View:
    """The chain at one commitment, as one call sees it."""

    commitment: Commitment
    block: Block

    def answer(self, value: Any) -> dict[str, Any]:
        """A result with the slot that it is true for."""
        return {"context": {"apiVersion": RUNTIME_VERSION, "slot": self.block.slot}, "value": value}


def view_of(
    bank: Bank, config: Config, *, name: str = "commitment", default: Commitment = Commitment.FINALIZED
) -> View:
    """What `commitment` and `minContextSlot` of a call ask for. Raises RpcError when it is not there yet."""
    commitment = config.commitment(name, default)
    view = View(commitment, bank.chain.at(commitment))
    wanted = config.number("minContextSlot")
    if wanted is not None and view.block.slot < wanted:
        raise min_context_slot_not_reached(view.block.slot)
    return view


def encoding_or_config(params: Params, index: int) -> Config:
    """The configuration of a call that also takes an encoding alone, as it did once."""
    value = params.optional(index)
    return Config({"encoding": value}) if isinstance(value, str) else params.config(index)


def at_least_confirmed(commitment: Commitment) -> None:
    """Raises RpcError for a level that whole blocks and transactions are not shown at."""
    if commitment is Commitment.PROCESSED:
        raise invalid_params("Method does not support commitment below `confirmed`")
