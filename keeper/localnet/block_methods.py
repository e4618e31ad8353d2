"""RPC methods about whole blocks, and about the cluster, of which this node is all there is."""

from __future__ import annotations

from typing import Any, Final

from keeper.localnet.bank import Bank
from keeper.localnet.chain import Block
from keeper.localnet.commitment import Commitment
from keeper.localnet.errors import BLOCK_CLEANED_UP, BLOCK_NOT_AVAILABLE, SLOT_SKIPPED, RpcError, invalid_params
from keeper.localnet.params import Config, Params
from keeper.localnet.transactions import ENCODINGS, encode_transaction, transaction_accounts
from keeper.localnet.view import at_least_confirmed, encoding_or_config, view_of
from keeper.localnet.vm import FEATURE_SET, RUNTIME_VERSION

_MOST_BLOCKS: Final = 500_000
_MOST_SAMPLES: Final = 720
_SAMPLE_S: Final = 60
_DETAILS: Final = ("full", "accounts", "signatures", "none")


def get_block_time(bank: Bank, params: Params) -> Any:
    """Unix seconds of a confirmed block."""
    return _block(bank, params.number(0, "slot"), bank.chain.at(Commitment.CONFIRMED)).time


def get_block(bank: Bank, params: Params) -> Any:
    """A block with its transactions, as much of them as `transactionDetails` says.

    `rewards` are empty: nobody here earns any.
    """
    slot, config = params.number(0, "slot"), encoding_or_config(params, 1)
    view = view_of(bank, config)
    at_least_confirmed(view.commitment)
    details = config.choice("transactionDetails", "full", _DETAILS)
    block = _block(bank, slot, view.block)
    if slot < bank.history.complete_from and details != "none":
        raise _cleaned_up(slot, bank.history.complete_from)
    parent = bank.chain.block(block.parent)
    shown: dict[str, Any] = {
        "blockHeight": block.height,
        "blockTime": block.time,
        "blockhash": str(block.blockhash),
        "parentSlot": block.parent,
        # A validator that has forgotten the parent shows zeros, too.
        "previousBlockhash": str(parent.blockhash) if parent is not None else "1" * 32,
    }
    if config.get("rewards") is not False:
        shown["rewards"] = []
    if details == "signatures":
        shown["signatures"] = [str(landed.signature) for landed in bank.history.of_slot(slot)]
    elif details != "none":
        shown["transactions"] = _transactions(bank, slot, config, accounts_only=details == "accounts")
    return shown


def get_blocks(bank: Bank, params: Params) -> Any:
    """The slots that have a block, from one to another or to the newest."""
    first = params.number(0, "start slot")
    end = params.optional(1)
    last = None if end is None or isinstance(end, dict) else params.number(1, "end slot")
    view = view_of(bank, params.config(1 if isinstance(end, dict) else 2))
    at_least_confirmed(view.commitment)
    last = view.block.slot if last is None else min(last, view.block.slot)
    if last - first > _MOST_BLOCKS:
        raise invalid_params(f"Slot range too large; max {_MOST_BLOCKS}")
    return bank.chain.slots(first, last)


def get_blocks_with_limit(bank: Bank, params: Params) -> Any:
    """The first slots from one on that have a block, so many at most."""
    first, limit = params.number(0, "start slot"), params.number(1, "limit")
    if limit > _MOST_BLOCKS:
        raise invalid_params(f"Limit too large; max {_MOST_BLOCKS}")
    view = view_of(bank, params.config(2))
    at_least_confirmed(view.commitment)
    return bank.chain.slots(first, view.block.slot)[:limit]


def get_epoch_schedule(bank: Bank, params: Params) -> Any:
    """How slots make epochs."""
    schedule = bank.epoch_schedule
    return {
        "firstNormalEpoch": schedule.first_normal_epoch,
        "firstNormalSlot": schedule.first_normal_slot,
        "leaderScheduleSlotOffset": schedule.leader_schedule_slot_offset,
        "slotsPerEpoch": schedule.slots_per_epoch,
        "warmup": schedule.warmup,
    }


def get_supply(bank: Bank, params: Params) -> Any:
    """What genesis gave out, all of it in circulation; the fees that were burned since are not taken off."""
    view = view_of(bank, params.config(0))
    total = bank.genesis_lamports
    return view.answer({"circulating": total, "nonCirculating": 0, "nonCirculatingAccounts": [], "total": total})


def get_vote_accounts(bank: Bank, params: Params) -> Any:
    """Nobody votes here: what is confirmed is so many blocks deep."""
    view_of(bank, params.config(0))
    return {"current": [], "delinquent": []}


def get_cluster_nodes(bank: Bank, params: Params) -> Any:
    """This node. It gossips with nobody and takes transactions by RPC alone, so that it has no such addresses."""
    return [
        {
            "pubkey": str(bank.identity.pubkey()),
            "version": RUNTIME_VERSION,
            "featureSet": FEATURE_SET,
            "shredVersion": 0,
        }
        | dict.fromkeys(("gossip", "tpu", "tpuQuic", "tpuForwards", "tpuForwardsQuic", "tpuVote", "tvu"))
        | dict.fromkeys(("serveRepair", "rpc", "pubsub"))
    ]


def get_recent_performance_samples(bank: Bank, params: Params) -> Any:
    """Slots and transactions of each past minute, the newest first; no minute that is not over."""
    value = params.optional(0)
    limit = _MOST_SAMPLES if value is None else params.number(0, "limit")
    if limit > _MOST_SAMPLES:
        raise invalid_params(f"Invalid limit; max {_MOST_SAMPLES}")
    samples: list[dict[str, Any]] = []
    newest = bank.chain.at(Commitment.CONFIRMED)
    # A minute ends with the last confirmed block of it; walked from the newest block back.
    end, blocks = newest, bank.chain.recent(bank.settings.history_slots)
    for block in reversed(blocks):
        if len(samples) == limit:
            break
        if block.slot > newest.slot or end.time - block.time < _SAMPLE_S:
            continue
        transactions = end.transaction_count - block.transaction_count
        samples.append(
            {
                "numNonVoteTransactions": transactions,
                "numSlots": end.slot - block.slot,
                "numTransactions": transactions,
                "samplePeriodSecs": end.time - block.time,
                "slot": end.slot,
            }
        )
        end = block
    return samples


def _transactions(bank: Bank, slot: int, config: Config, *, accounts_only: bool) -> list[dict[str, Any]]:
    encoding = config.encoding("json", ENCODINGS)
    max_version = config.number("maxSupportedTransactionVersion")
    shown = []
    for landed in bank.history.of_slot(slot):
        if accounts_only:
            one = transaction_accounts(landed, max_version)
        else:
            one = encode_transaction(landed, encoding, max_version)
        # Here they are the block's.
        del one["slot"], one["blockTime"]
        shown.append(one)
    return shown


def _block(bank: Bank, slot: int, newest: Block) -> Block:
    """The block of a slot that is not behind `newest`. Raises RpcError, worded as Agave does."""
    if slot > newest.slot:
        raise RpcError(BLOCK_NOT_AVAILABLE, f"Block not available for slot {slot}")
    block = bank.chain.block(slot)
    if block is not None:
        return block
    first = bank.chain.first_slot
    if slot < first:
        raise _cleaned_up(slot, first)
    raise RpcError(SLOT_SKIPPED, f"Slot {slot} was skipped, or missing due to ledger jump to recent snapshot")


def _cleaned_up(slot: int, first: int) -> RpcError:
    return RpcError(
        BLOCK_CLEANED_UP, f"Block {slot} cleaned up, does not exist on node. First available block: {first}"
    )
