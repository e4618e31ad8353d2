"""Three views of one chain, and blocks that never were."""

from __future__ import annotations

import pytest
from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet import Bank, BankSettings, Commitment, Localnet
from keeper.localnet.history import Landed
from tests.localnet.localnet_clients import SOL, Payer, Rpc, RpcFailure, make_blocks, values, wire

pytestmark = pytest.mark.anyio

NO_PREFLIGHT = {"encoding": "base64", "skipPreflight": True}
LEVELS = ("processed", "confirmed", "finalized")
OWNER = Pubkey.new_unique()


async def balances(rpc: Rpc, address: Pubkey) -> list[int]:
    return [(await rpc("getBalance", str(address), {"commitment": level}))["value"] for level in LEVELS]


async def test_reads_at_each_commitment_see_that_state(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    target = Pubkey.new_unique()
    signature = await rpc("sendTransaction", wire(payer.pay(target)), NO_PREFLIGHT)
    assert await balances(rpc, target) == [SOL, 0, 0]
    assert (await rpc("getSignatureStatuses", [signature]))["value"] == [None], "its block is not complete"
    seen = []
    for _ in range(4):
        make_blocks(net, 1)
        statuses = (await rpc("getSignatureStatuses", [signature]))["value"]
        seen.append((statuses[0]["confirmations"], *values(statuses)))
    assert seen == [
        (1, "confirmed"),
        (2, "confirmed"),
        (3, "confirmed"),
        (None, "finalized"),
    ]
    assert await balances(rpc, target) == [SOL, SOL, SOL]


async def test_an_account_rewritten_in_every_block_reads_right_at_each_level(net: Localnet) -> None:
    address = Pubkey.new_unique()
    for lamports in range(1, 20):
        net.bank.set_account(address, Account(10**9 + lamports, b"", OWNER))
        net.bank.advance()
    levels = [net.bank.account(address, level) for level in Commitment]
    assert [account and account.lamports - 10**9 for account in levels] == [19, 19, 16]


async def test_program_accounts_at_each_commitment(net: Localnet) -> None:
    stays, leaves, comes = (Pubkey.new_unique() for _ in range(3))
    net.bank.set_account(stays, Account(10**9, b"a", OWNER))
    net.bank.set_account(leaves, Account(10**9, b"b", OWNER))
    make_blocks(net, 5)
    net.bank.set_account(leaves, None)
    net.bank.set_account(comes, Account(10**9, b"c", OWNER))

    def owned(level: Commitment) -> set[Pubkey]:
        return {address for address, _ in net.bank.owned_by(OWNER, level)}

    assert owned(Commitment.PROCESSED) == {stays, comes}
    assert owned(Commitment.FINALIZED) == {stays, leaves}
    make_blocks(net, 5)
    assert owned(Commitment.FINALIZED) == {stays, comes}


async def test_a_simulation_runs_on_the_state_of_its_commitment(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    rich = Payer(net)
    net.bank.airdrop(rich.address, 10 * SOL)  # processed only
    probe = rich.pay(Pubkey.new_unique(), blockhash=net.bank.chain.at(Commitment.FINALIZED).blockhash)

    async def simulated(level: str) -> object:
        config = {"encoding": "base64", "commitment": level}
        return (await rpc("simulateTransaction", wire(probe), config))["value"]["err"]

    assert await simulated("processed") is None
    assert await simulated("finalized") == "AccountNotFound"
    assert await balances(rpc, rich.address) == [10 * SOL, 0, 0]  # looking back changed nothing


async def test_a_fork_takes_transactions_and_state_away(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    target, stays = Pubkey.new_unique(), Pubkey.new_unique()
    old_hash = net.bank.chain.tip.blockhash
    kept = await rpc("sendTransaction", wire(payer.pay(stays)), NO_PREFLIGHT)
    fork_at = net.bank.chain.tip.slot
    net.bank.advance()
    lost_hash = net.bank.chain.tip.blockhash
    transaction = payer.pay(target, blockhash=old_hash)
    lost = await rpc("sendTransaction", wire(transaction), NO_PREFLIGHT)
    last_slot = net.bank.chain.tip.slot
    assert await balances(rpc, target) == [SOL, 0, 0]

    dropped = net.bank.drop_slots_after(fork_at)

    assert [str(signature) for signature in dropped] == [lost]
    assert net.bank.chain.tip.slot > last_slot
    assert net.bank.chain.tip.parent == fork_at
    assert await balances(rpc, target) == [0, 0, 0]
    assert (await rpc("getBalance", str(stays), {"commitment": "processed"}))["value"] == SOL
    config = {"searchTransactionHistory": True}
    assert values((await rpc("getSignatureStatuses", [lost, kept], config))["value"]) == [None, "confirmed"]
    assert lost not in str(await rpc("getSignaturesForAddress", str(payer.address), {"commitment": "confirmed"}))
    assert net.bank.land(payer.pay(target, blockhash=lost_hash)) == "BlockhashNotFound"

    # The very same bytes land again: their blockhash is from before the fork.
    await rpc("sendTransaction", wire(transaction), NO_PREFLIGHT)
    assert (await balances(rpc, target))[0] == SOL
    make_blocks(net, 5)
    assert await balances(rpc, target) == [SOL, SOL, SOL]


async def test_a_fork_cannot_undo_a_final_block(net: Localnet) -> None:
    make_blocks(net, 6)
    with pytest.raises(ValueError, match="not on this fork at or after the final slot"):
        net.bank.drop_slots_after(net.bank.chain.root.slot - 1)


async def test_undoing_confirmed_blocks_takes_the_level_back(net: Localnet, payer: Payer) -> None:
    fork_at = net.bank.chain.tip.slot
    make_blocks(net, 3)
    net.bank.drop_slots_after(fork_at)
    assert net.bank.chain.at(Commitment.CONFIRMED).slot == fork_at
    make_blocks(net, 6)
    assert net.bank.chain.root.slot > fork_at


async def test_accounts_created_and_closed_on_a_dropped_fork(net: Localnet) -> None:
    created, closed = Pubkey.new_unique(), Pubkey.new_unique()
    net.bank.set_account(closed, Account(10**9, b"old", OWNER))
    fork_at = net.bank.chain.tip.slot
    net.bank.advance()
    net.bank.set_account(created, Account(10**9, b"new", OWNER))
    net.bank.set_account(closed, None)
    net.bank.advance()
    net.bank.set_account(created, Account(10**9, b"newer", OWNER))
    net.bank.drop_slots_after(fork_at)
    assert net.bank.account(created) is None
    restored = net.bank.account(closed)
    assert restored is not None
    assert restored.data == b"old"
    assert [address for address, _ in net.bank.owned_by(OWNER)] == [closed]


async def test_lost_and_held_transactions(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    target = Pubkey.new_unique()
    net.bank.lose_transactions(1)
    lost = payer.pay(target)
    await rpc("sendTransaction", wire(lost), NO_PREFLIGHT)
    net.bank.hold_transactions()
    held, expiring = payer.pay(target, 2 * SOL), payer.pay(target, 4 * SOL)
    await rpc("sendTransaction", wire(held), NO_PREFLIGHT)
    assert await balances(rpc, target) == [0, 0, 0]
    (late,) = net.bank.release_transactions()
    assert isinstance(late, Landed)
    assert (await balances(rpc, target))[0] == 2 * SOL

    net.bank.hold_transactions()
    await rpc("sendTransaction", wire(expiring), NO_PREFLIGHT)
    make_blocks(net, 152)
    assert net.bank.release_transactions() == ["BlockhashNotFound"]


async def test_the_clock_follows_wall_time_and_can_be_moved(net: Localnet, rpc: Rpc) -> None:
    now = 1_900_000_000.0
    bank = Bank(BankSettings(clock=lambda: now))
    assert bank.chain.tip.time == 1_900_000_000
    bank.advance_clock(301)
    assert bank.chain.tip.time == 1_900_000_301
    assert bank.advance().time == 1_900_000_301
    now -= 1000  # a wall clock that is set back does not take the chain along
    assert bank.advance().time == 1_900_000_301


async def test_memory_of_the_past_is_bounded() -> None:
    bank = Bank(BankSettings(history_transactions=10, history_slots=50, status_cache_blocks=1, finalized_slots=4))
    bank.advance()
    signatures = []
    for _ in range(400):
        signatures.append(bank.airdrop(Pubkey.new_unique(), SOL))
        bank.advance()
    # A signature that could still be repeated is never forgotten, whatever the limit.
    assert 150 < len(bank.history) < 160
    assert signatures[0] not in bank.history
    assert bank.chain.first_slot > 300
    assert bank.chain.age(bank.chain.genesis_hash, bank.chain.tip) is None
    assert "changed since the final slot" in repr(bank._versions)
    assert len(bank._versions._before) < 10


async def test_the_same_seed_makes_the_same_chain() -> None:
    settings = BankSettings(seed=3, clock=lambda: 1.0)
    one, other = Bank(settings), Bank(settings)
    assert one.chain.genesis_hash == other.chain.genesis_hash
    assert one.advance().blockhash == other.advance().blockhash
    assert one.identity == other.identity
    assert Bank().chain.genesis_hash not in (one.chain.genesis_hash, Hash.default())


async def test_min_context_slot(net: Localnet, rpc: Rpc) -> None:
    tip = net.bank.chain.tip.slot
    config = {"commitment": "processed", "minContextSlot": tip + 1}
    with pytest.raises(RpcFailure) as refused:
        await rpc("getBalance", str(OWNER), config)
    assert refused.value.code == -32016
    assert refused.value.message == "Minimum context slot has not been reached"
    assert refused.value.data == {"contextSlot": tip}
    net.bank.advance()
    assert (await rpc("getBalance", str(OWNER), config))["context"]["slot"] == tip + 1


async def test_consensus_turns_to_alpenglow_in_mid_run(net: Localnet, rpc: Rpc, payer: Payer) -> None:
    first = await rpc("sendTransaction", wire(payer.pay(Pubkey.new_unique())), NO_PREFLIGHT)
    make_blocks(net, 1)
    assert await rpc("getAgGenesisCert") is None
    assert values((await rpc("getSignatureStatuses", [first]))["value"]) == ["confirmed"]
    net.bank.chain.alpenglow_from = began = net.bank.chain.tip.slot
    make_blocks(net, 1)
    certificate = await rpc("getAgGenesisCert")
    assert certificate["block"]["slot"] == began
    assert [len(certificate["block"]["blockId"]), len(certificate["signature"]["signature"])] == [32, 192]
    assert values((await rpc("getSignatureStatuses", [first]))["value"]) == ["finalized"], "with all before it"
    second = await rpc("sendTransaction", wire(payer.pay(Pubkey.new_unique())), NO_PREFLIGHT)
    assert (await rpc("getSignatureStatuses", [second]))["value"] == [None]
    make_blocks(net, 1)
    assert values((await rpc("getSignatureStatuses", [second]))["value"]) == ["finalized"]
    slots = [await rpc("getSlot", {"commitment": level}) for level in LEVELS]
    assert slots == [slots[0], slots[0] - 1, slots[0] - 1], "confirmed and finalized are the same"
    landed = net.bank.history.get(Signature.from_string(second))
    assert landed is not None
    with pytest.raises(ValueError, match="final slot"):
        net.bank.drop_slots_after(landed.slot - 1)
