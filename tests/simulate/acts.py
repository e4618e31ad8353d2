"""What happens to the chain, the machine and the keeper, act by act."""

from __future__ import annotations

from typing import Final

import anyio

from keeper.localnet.program import PROGRAM_SO
from tests.simulate.dice import clock
from tests.simulate.ground import COLLATERAL_1E6, CONFIRMED_SLOTS, OPERATOR
from tests.simulate.scenario import OF_SEVERAL, OLD_FOR_S, START_1E6, Act, Event, Purse
from tests.simulate.stage import Stage

_STAND_S: Final = 2.0
_TOP_UP_EVERY_S: Final = 2.5
"""An order is tried once for each that the keeper sees, at best."""
_SOMETHING_SENT_WITHIN_S: Final = 4.0


async def carry_out(stage: Stage, event: Event) -> None:
    """Wait for the event's time, and let it happen."""
    await anyio.sleep(event.at_s)
    stage.trace.note("act", f"{event.act} {event.amount:g} {event.kind}".rstrip())
    amount, size, lives = event.amount, int(event.amount), stage.lives
    match event.act:
        case Act.STALL:
            stage.loop.stall(amount)
        case Act.STEP_CLOCK:
            clock.off_s += amount
        case Act.OPERATOR:
            await _operator(stage, amount)
        case Act.DISK | Act.SLOW_DISK:
            await _bad_disk(stage, event)
        case Act.KILL | Act.POWER:
            lives.kill_in(size, power_cut=event.act is Act.POWER)
        case Act.KILL_AT_COMMIT:
            lives.kill_at_commit = (size, False, stage.dice.random() < 0.5)
        case Act.POWER_AT_COMMIT:
            lives.kill_at_commit = (size, True, False)
        case Act.TERM:
            lives.term()
        case Act.DRAIN:
            await stage.ask_api("operator", "/v1/admin/drain", {}, authorization=OPERATOR)
        case _ if event.act in OF_SEVERAL:
            await _to_several(stage, event)
        case _:
            await _on_chain(stage, event)


async def _to_several(stage: Stage, event: Event) -> None:
    assert stage.fleet is not None, "it is for several"
    await stage.fleet.carry_out(event.act, event.amount, calm_from=stage.calm_from)


async def _on_chain(stage: Stage, event: Event) -> None:
    bank, amount, size = stage.bank, event.amount, int(event.amount)
    match event.act:
        case Act.PRICE:
            stage.set_price(round(START_1E6 * amount))
        case Act.BLIP:
            before = stage.price_1e6
            stage.set_price(round(START_1E6 * amount))
            await anyio.sleep(stage.dice.uniform(0.0, 1.0))
            stage.set_price(before)
        case Act.SILENCE:
            stage.fed_from = max(stage.fed_from, stage.loop.time() + amount)
        case Act.DEPOSIT:
            stage.world.deposit(stage.ground.users[Purse.LATER], COLLATERAL_1E6)
        case Act.TOP_UP:
            stage.topping_up = True
            for _ in range(size):
                stage.world.deposit(stage.ground.users[Purse.POOR], 1)
                await anyio.sleep(_TOP_UP_EVERY_S)
            stage.topping_up = False
        case Act.NO_POSITION:
            stage.bare_fills += 1
        case Act.UPGRADE:
            bank.add_program(stage.world.program.id, PROGRAM_SO.read_bytes() + bytes(8))
        case Act.OLD_PRICE:
            stage.fed_from = max(stage.fed_from, stage.loop.time() + OLD_FOR_S)
            bank.advance_clock(amount)
            stage.judge.clock_jumped(amount)
        case Act.FORK:
            stage.fork(size)
        case Act.FORK_AFTER_FILL:
            stage.forks_after_fill.append(size)
        case Act.LOSE:
            bank.lose_transactions(size)
        case Act.HOLD:
            bank.hold_transactions()
            await anyio.sleep(amount)
            bank.release_transactions()
        case Act.LAST_MOMENT:
            await _last_moment(stage, size)
        case Act.JUMP:
            for _ in range(size):
                bank.advance()
        case Act.CLOCK:
            bank.advance_clock(amount)
        case Act.PAUSE:
            stage.paused_until = max(stage.paused_until, stage.loop.time() + amount)
        case other:
            raise AssertionError(f"nobody carries out {other}")


async def _operator(stage: Stage, seconds: float) -> None:
    """Pause, and go on later: an operator asks until he is answered. A pause that the journal did not take, or that was
    not answered, may hold all the same.
    """
    answer = await stage.ask_api("operator", "/v1/admin/pause", {"reason": "a look"}, authorization=OPERATOR)
    stage.judge.paused_since = None if answer is None else clock.time()
    await anyio.sleep(seconds)
    while not await stage.resume():  # noqa: ASYNC110
        await anyio.sleep(1.0)


async def _bad_disk(stage: Stage, event: Event) -> None:
    slow = event.act is Act.SLOW_DISK
    mend = stage.lives.break_disk(None if slow else event.kind, 1.0 if slow else 0.0)
    await anyio.sleep(event.amount)
    mend()


async def _last_moment(stage: Stage, beyond: int) -> None:
    """Hold what the keeper sends next, and let the chain stand `beyond` blocks past the last height where it can land.

    At 0 it lands then. A little beyond, a fork takes those blocks away, and it lands: that is why only a FINALIZED
    height says that it is dead. Further on it can't land, and yet is not finally dead for some blocks.
    """
    bank, witness = stage.bank, stage.judge
    known = witness.newest
    bank.hold_transactions()
    with anyio.move_on_after(_SOMETHING_SENT_WITHIN_S):
        while witness.newest is known:  # noqa: ASYNC110 - in virtual time a look costs nothing
            await anyio.sleep(0.1)
    held = witness.newest
    if held is None or held is known:
        bank.release_transactions()
        return
    last_height = held.last_valid_block_height + 1
    while bank.chain.tip.height < last_height + beyond:
        bank.advance()
    stage.paused_until = stage.loop.time() + _STAND_S
    await anyio.sleep(_STAND_S)
    if 0 < beyond < CONFIRMED_SLOTS:
        stage.fork(beyond + 1)
    bank.release_transactions()
    stage.trace.note("act", f"held until {beyond} blocks past its last height")
