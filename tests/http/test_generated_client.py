"""A client that openapi-python-client makes of the description places an order, waits for it, amends and cancels it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio.to_thread
import pytest
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus
from keeper.http.routes import openapi_document
from tests.support import BOUND_S, KeeperConfig, KeeperProcess, Trader, World

pytestmark = pytest.mark.anyio
NAME = "quantdesk_client"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the client is, as the generator wrote it. It must have nothing to say against the description."""
    folder = tmp_path_factory.mktemp("client")
    description, settings = folder / "openapi.json", folder / "settings.yaml"
    description.write_text(json.dumps(openapi_document()))
    settings.write_text("post_hooks: []\n")  # nobody reads it, so it need not be formatted
    generator = (sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none")
    files = ("--path", str(description), "--config", str(settings), "--output-path", str(folder / NAME))
    made = subprocess.run((*generator, *files), capture_output=True, text=True, timeout=2 * BOUND_S, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


PROGRAM = f"""
import base64, json, sys
from {NAME} import Client
from {NAME}.api.orders import execute_order, get_order, list_orders, prepare_amend, prepare_cancel, prepare_order
from {NAME}.api.wallets import get_account, list_positions
from {NAME}.models import AmendOrder, ExecuteOrder, PlaceOrder, PlaceOrderOrderType, PlaceOrderSide, ProblemDetails
from solders.keypair import Keypair
from solders.transaction import VersionedTransaction

url, seed = sys.argv[1:]
key = Keypair.from_base58_string(seed)
client = Client(base_url=url, raise_on_unexpected_status=True, timeout=60.0)

def relayed(prepared):
    assert not isinstance(prepared, ProblemDetails), prepared
    message = VersionedTransaction.from_bytes(base64.b64decode(prepared.transaction)).message
    wire = base64.b64encode(bytes(VersionedTransaction(message, [key]))).decode()
    body = ExecuteOrder(id=prepared.id, signed_transaction=wire)
    answer = execute_order.sync_detailed(client=client, body=body, wait_s=30.0)
    assert not isinstance(answer.parsed, ProblemDetails), answer.parsed
    return [prepared.kind.value, answer.status_code.value, answer.parsed.order, answer.parsed.status.value]

terms = PlaceOrder(
    user=str(key.pubkey()), market="SOL/USDC", order_type=PlaceOrderOrderType.STOP_LOSS, side=PlaceOrderSide.LONG,
    size="1", trigger_price="95", leverage=5, priority_fee_micro_lamports_per_unit=10,
)
told = [relayed(prepare_order.sync(client=client, body=terms))]
told.append(relayed(prepare_amend.sync(told[0][2], client=client, body=AmendOrder(trigger_price="94"))))
order = get_order.sync(told[1][2], client=client)
assert (order.trigger_price, order.status.value) == ("94", "open"), order
told.append(relayed(prepare_cancel.sync(order.order, client=client)))
refused = prepare_order.sync(client=client, body=PlaceOrder.from_dict({{**terms.to_dict(), "size": "0"}}))
assert isinstance(refused, ProblemDetails) and refused.code.value == "invalid_size", refused
orders = list_orders.sync(client=client, user=str(key.pubkey()), limit=10).orders
margin = get_account.sync(str(key.pubkey()), client=client)
positions = list_positions.sync(str(key.pubkey()), client=client)
found = [sorted(one.order for one in orders), margin.available_margin_quote, positions.total]
print(json.dumps([told, found]))
"""


@pytest.mark.long
async def test_a_generated_client_places_waits_for_amends_and_cancels(folder: Path, tmp_path: Path) -> None:
    async with World.open(slot_ms=25) as world:
        world.market("SOL/USDC", price_1e6=100_000_000)
        trader = world.trader(collateral_1e6=1_000_000_000)
        async with KeeperProcess.running(KeeperConfig.beside(world, tmp_path / "keeper")) as keeper:
            done = await anyio.to_thread.run_sync(_run, folder, keeper.url, trader)
        assert done.returncode == 0, done.stdout + done.stderr + keeper.log_end()
        told, found = json.loads(done.stdout)
        (placed, amended, cancelled) = (entry[2] for entry in told)
        assert told == [
            ["place", 200, placed, "open"],
            ["amend", 200, amended, "open"],
            ["cancel", 200, cancelled, "cancelled"],
        ]
        assert cancelled == amended != placed
        assert found == [sorted([placed, amended]), "1000", 0]
        for address in (placed, amended):
            order = world.order(Pubkey.from_string(address))
            assert order is not None
            assert order.status is OnchainStatus.CANCELLED


def _run(folder: Path, url: str, trader: Trader) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-c", PROGRAM, url, str(trader.key))
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=2 * BOUND_S, check=False)
