"""The program may be upgraded or replaced while the keeper runs: then nothing is sent until it was checked again.

What is looked at is small: the program's account, and the head of the one that holds its code, which names the slot of
its last deployment (the loader's ProgramData; loader-v4 has the slot in the program's own account).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, Misconfigured
from keeper.domain.reports import Note, Report
from keeper.execution.gate import Gate
from keeper.solana.client import AccountBytes, ChainClient
from keeper.venue.deployment import check_idl, check_program
from keeper.venue.program import Program

PROGRAM: Final = "program"
"""What the gate is closed by."""
_LOADER: Final = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
_HEAD_BYTES: Final = 48
"""A ProgramData begins with its kind, the slot and the authority (45 bytes), loader-v4's account with slot, authority
and status (48). An immutable program's begins with its code."""

_Deployed = tuple[tuple[Pubkey, bool, bytes] | None, ...]


class Deployment:
    """What of the program was checked, and whether that is deployed still. `keeper` pays for the simulations."""

    def __init__(self, client: ChainClient, program: Program, keeper: Pubkey, report: Callable[[Report], None]) -> None:
        self._client = client
        self._program = program
        self._keeper = keeper
        self._report = report
        self._addresses = (program.id, Pubkey.find_program_address([bytes(program.id)], _LOADER)[0])
        self._checked: _Deployed | None = None
        self._slot = 0

    def __repr__(self) -> str:
        return f"Deployment({self._program!r}, as of slot {self._slot})"

    async def check(self) -> None:
        """Misconfigured, with a remedy, when the program is not there or is not what its IDL describes."""
        try:
            # Before the check: an upgrade in between is another deployment than the one that is remembered.
            found = await self._read()
        except ChainError as e:
            raise Misconfigured(
                f"The chain can't be reached: {e}.", remedy="Check rpc.url, and that the node is up."
            ) from e
        await check_program(self._client, self._program)
        await check_idl(self._client, self._program, self._keeper)
        self._checked = found

    async def look(self, gate: Gate) -> None:
        """Close the gate when something else is deployed than what was checked, until that passes the check as well. A
        node that does not answer changes nothing.
        """
        try:
            found = await self._read()
        except ChainError:
            return
        if found != self._checked:
            changed = f"the program {self._program.id} was changed since it was checked"
            gate.close(PROGRAM, f"{changed}, and is checked again")
            try:
                await self.check()
            except Misconfigured as e:
                gate.close(PROGRAM, f"{changed}: {e} Once that is mended the keeper goes on by itself")
                return
            self._report(Note("program.checked", f"{changed}, and passes the check again", level="warning"))
        gate.lift(PROGRAM)

    async def _read(self) -> _Deployed:
        slot, accounts = await self._client.accounts(
            self._addresses, min_context_slot=self._slot, data_slice=(0, _HEAD_BYTES)
        )
        self._slot = max(slot, self._slot)
        return tuple(_head(account) for account in accounts)


def _head(account: AccountBytes | None) -> tuple[Pubkey, bool, bytes] | None:
    return None if account is None else (account.owner, account.executable, account.data)
