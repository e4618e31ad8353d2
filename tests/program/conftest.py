from __future__ import annotations

import pytest
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey

from tests.program.program_vm import USDC, Vm


@pytest.fixture(scope="session")
def svm() -> LiteSVM:
    """One VM for all tests: making one takes longer than a test."""
    return LiteSVM()


@pytest.fixture
def vm(svm: LiteSVM) -> Vm:
    """The program under an address of its own, which keeps tests apart, and SOL/USDC priced at 100."""
    machine = Vm(Pubkey.new_unique(), svm)
    assert machine.initialize_market().error is None
    assert machine.set_price(100 * USDC).error is None
    return machine
