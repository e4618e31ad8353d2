"""RPC methods about the node, slots, blocks, blockhashes and fees."""

from __future__ import annotations

from typing import Any

from solders.hash import Hash
from solders.pubkey import Pubkey

from keeper.localnet.bank import Bank
from keeper.localnet.chain import MAX_BLOCKHASH_AGE
from keeper.localnet.errors import node_unhealthy
from keeper.localnet.fees import fee_of
from keeper.localnet.params import Params, parse_pubkey
from keeper.localnet.transactions import decode_message
from keeper.localnet.view import View, view_of
from keeper.localnet.vm import FEATURE_SET, RUNTIME_VERSION

MAX_FEE_ACCOUNTS = 128


def get_health(bank: Bank, params: Params) -> Any:
    """`ok`, or the error that says how far the node is behind."""
    check_health(bank)
    return "ok"


def get_version(bank: Bank, params: Params) -> Any:
    """The release of the runtime, and what tells its set of features from others."""
    return {"feature-set": FEATURE_SET, "solana-core": RUNTIME_VERSION}


def get_genesis_hash(bank: Bank, params: Params) -> Any:
    """The hash that tells this chain from others."""
    return str(bank.chain.genesis_hash)


def get_identity(bank: Bank, params: Params) -> Any:
    """The node's key."""
    return {"identity": str(bank.identity.pubkey())}


def get_ag_genesis_cert(bank: Bank, params: Params) -> Any:
    """The certificate of the block that Alpenglow began with; null before. Nobody votes here: nothing is signed."""
    block = bank.chain.alpenglow
    if block is None:
        return None
    return {
        "block": {"slot": block.slot, "blockId": list(bytes(block.blockhash))},
        "signature": {"signature": [0] * 192, "bitmap": [0, 0, 0]},
    }


def get_slot(bank: Bank, params: Params) -> Any:
    """The slot at a commitment."""
    return view_of(bank, params.config(0)).block.slot


def get_slot_leader(bank: Bank, params: Params) -> Any:
    """The leader: this node, always."""
    view_of(bank, params.config(0))
    return str(bank.identity.pubkey())


def get_block_height(bank: Bank, params: Params) -> Any:
    """The number of blocks before that slot's; falls behind the slot where slots are skipped."""
    return view_of(bank, params.config(0)).block.height


def get_transaction_count(bank: Bank, params: Params) -> Any:
    """Transactions in blocks since genesis."""
    return view_of(bank, params.config(0)).block.transaction_count


def get_first_available_block(bank: Bank, params: Params) -> Any:
    """The oldest slot that getBlockTime can answer for."""
    return bank.chain.first_slot


def get_epoch_info(bank: Bank, params: Params) -> Any:
    """Where in its epoch the slot is."""
    block = view_of(bank, params.config(0)).block
    schedule = bank.epoch_schedule
    epoch, index = schedule.get_epoch_and_slot_index(block.slot)
    return {
        "absoluteSlot": block.slot,
        "blockHeight": block.height,
        "epoch": epoch,
        "slotIndex": index,
        "slotsInEpoch": schedule.get_slots_in_epoch(epoch),
        "transactionCount": block.transaction_count,
    }


def get_latest_blockhash(bank: Bank, params: Params) -> Any:
    """A blockhash and the last block height at which this node would call it valid."""
    view = view_of(bank, params.config(0))
    return view.answer(
        {
            "blockhash": str(view.block.blockhash),
            "lastValidBlockHeight": view.block.height + MAX_BLOCKHASH_AGE,
        }
    )


def is_blockhash_valid(bank: Bank, params: Params) -> Any:
    """Whether the next block would take it."""
    blockhash = params.hash(0, "blockhash")
    view = view_of(bank, params.config(1))
    return view.answer(_is_valid(bank, blockhash, view))


def get_fee_for_message(bank: Bank, params: Params) -> Any:
    """Lamports that a message costs; null when its blockhash is not valid."""
    message = decode_message(params.text(0, "message"))
    view = view_of(bank, params.config(1))
    valid = _is_valid(bank, message.recent_blockhash, view)
    return view.answer(fee_of(message).total if valid else None)


def get_recent_prioritization_fees(bank: Bank, params: Params) -> Any:
    """For each of the last 150 blocks the lowest price that got in, in micro-lamports per unit.

    A floor: with addresses, the highest of the block's floor and those of transactions that wrote them.
    """
    addresses: list[Pubkey] = []
    if params.optional(0) is not None:
        addresses = [parse_pubkey(text) for text in params.texts(0, "addresses", MAX_FEE_ACCOUNTS)]
    return [
        {
            "slot": block.slot,
            "prioritizationFee": max(
                block.lowest_price or 0,
                *(block.lowest_price_by_account.get(address, 0) for address in addresses),
                0,
            ),
        }
        for block in bank.chain.recent(MAX_BLOCKHASH_AGE + 1)
        if block is not bank.chain.tip
    ]


def get_minimum_balance_for_rent_exemption(bank: Bank, params: Params) -> Any:
    """Lamports that an account of that size must hold."""
    return bank.rent_exempt_minimum(params.number(0, "data length"))


def _is_valid(bank: Bank, blockhash: Hash, view: View) -> bool:
    age = bank.chain.age(blockhash, view.block)
    return age is not None and age <= MAX_BLOCKHASH_AGE


def check_health(bank: Bank) -> None:
    """Raises RpcError when the node calls itself unhealthy."""
    if bank.slots_behind is not None:
        raise node_unhealthy(bank.slots_behind)
