"""What every test shares."""

from __future__ import annotations

import asyncio
import gc
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest

from tests.support.postgres import STORE

_ON_ANY_CHAIN: Final = Path(__file__).parent / "validator"

# How long it takes to draw an example, or to try it, is the machine's doing. Every run tries the same ones, so that
# what fails is what was changed; `--hypothesis-profile=search` draws others.
hypothesis.settings.register_profile(
    "search", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("suite", hypothesis.settings.get_profile("search"), derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _suites_own_variables() -> None:
    """The suite's variables begin as the keeper's, which takes one that it does not know for a mistyped setting."""
    for name in ("KEEPER_TEST_POSTGRES", "KEEPER_TEST_STORE"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def _late_words_of_grpc() -> Iterator[None]:
    """gRPC has one poller a process. What it says late of a call, whichever loop hears it hands on to the call's own
    loop, and fails where that is closed: in the middle of another test, which it says nothing of.
    """
    handle = asyncio.BaseEventLoop.call_exception_handler

    def call_exception_handler(loop: asyncio.BaseEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        frames = traceback.extract_tb(None if error is None else error.__traceback__)
        if closed and any("cygrpc" in frame.name for frame in frames):
            return
        handle(loop, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.BaseEventLoop, "call_exception_handler", call_exception_handler)
        yield


@pytest.fixture
def anyio_backend() -> str:
    """The keeper runs anyio on asyncio, because its HTTP server and WebSocket client do."""
    return "asyncio"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two a processor: about half of what a test does is to wait for blocks and sockets."""
    return min(8, 2 * (os.cpu_count() or 1))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which chain `tests/validator` runs on. CONTRIBUTING.md says how."""
    group = parser.getgroup("validator", "the end-to-end tests on a chain of your own (only these are run then)")
    group.addoption("--rpc-url", metavar="URL", help="JSON-RPC of the chain that tests/validator runs on")
    group.addoption("--ws-url", metavar="URL", help="its WebSocket; by default the next port")
    group.addoption("--program-id", metavar="ID", help="where the program is; by default as on a localnet")
    group.addoption("--payer", metavar="KEYFILE", help="a funded wallet, for a chain without a faucet")


def pytest_configure() -> None:
    """What is collected lives as long as the process: to look there for garbage takes a third of the collection."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on there is garbage, but not in what was collected."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --rpc-url, the tests that have a chain of their own are left out; and those about what is not there."""
    if STORE != "sqlite":
        for item in items:
            if item.get_closest_marker("file_journal"):
                item.add_marker(pytest.mark.skip("this is about the journal's file"))
    if config.getoption("--rpc-url") is None:
        return
    chosen = [item for item in items if item.path.is_relative_to(_ON_ANY_CHAIN)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen
