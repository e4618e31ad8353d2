"""What a created account holds, whatever the cluster's rent: the VM has no floating point, the sysvar has."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.rent import Rent

from tests.program.program_vm import Vm, assert_refused


@pytest.fixture(scope="module")
def own() -> Vm:
    return Vm(Pubkey.new_unique(), LiteSVM())


@pytest.mark.parametrize("threshold", [2.0, 1.0, 0.5, 1.1, 3.999, 0.01, 1000.25])
@pytest.mark.parametrize("per_byte", [3_480, 6_960, 1, 12_345])
def test_an_account_holds_what_makes_it_exempt(own: Vm, threshold: float, per_byte: int) -> None:
    own.svm.set_rent(Rent(per_byte, threshold, 50))
    user = own.fund(Keypair())
    assert own.create_user_account(user).error is None
    exempt = int((128 + 144) * per_byte * threshold)
    assert own.svm.get_balance(own.user_account_at(user.pubkey())) == exempt


@pytest.mark.parametrize(("per_byte", "threshold"), [(2**63, 2.0), (2**55, 512.0), (3_480, 1e300), (3_480, 1e-300)])
def test_a_rent_beyond_the_numbers_is_refused(own: Vm, per_byte: int, threshold: float) -> None:
    own.svm.set_rent(Rent(3_480, 2.0, 50))
    user = own.fund(Keypair())
    own.svm.set_rent(Rent(per_byte, threshold, 50))
    assert_refused(own.create_user_account(user), "MathOverflow")
