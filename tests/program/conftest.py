from __future__ import annotations

import pytest
from program_vm import USDC, Vm
from solders.pubkey import Pubkey

from keeper.localnet.program import PROGRAM_ID


@pytest.fixture
def vm() -> Vm:
    """A VM with the program and a SOL/USDC market priced at 100."""
    machine = Vm(Pubkey.from_string(PROGRAM_ID))
    assert machine.initialize_market().error is None
    assert machine.set_price(100 * USDC).error is None
    return machine
