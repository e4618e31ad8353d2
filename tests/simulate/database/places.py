"""Which simulated server a URL leads to, once `take_over` has replaced psycopg's connections."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from keeper.journal.machine import Condition
from keeper.journal.postgres.connection import Place
from tests.simulate.database.driver import Driven
from tests.simulate.database.server import Client, Server, World

_HOST: Final = "simulated-"
_connect: Final = Place.connect
_EPOCH_S: Final = 1_750_000_000.0
_known: Final[dict[str, tuple[Server, Client, World, random.Random]]] = {}


def take_over() -> None:
    """From now on a `Place` whose host is a simulated one leads to its server; any other to where it did."""
    Place.connect = _connected  # type: ignore[assignment, method-assign]


def address(server: Server, client: Client, world: World, dice: random.Random) -> str:
    """The URL by which this client reaches the server."""
    host = f"{_HOST}{client.name}-{len(_known)}"
    _known[host] = (server, client, world, dice)
    return f"postgresql://keeper@{host}/keeper"


def _connected(place: Place) -> Any:
    found = _known.get(urlsplit(place.name).hostname or "")
    return _connect(place) if found is None else Driven(*found)


class RealWorld:
    """Real threads and real time, for tests of the server itself."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def now(self) -> float:
        """See World: by a clock that no test sets."""
        return _EPOCH_S + time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See World."""
        time.sleep(seconds)

    def may_wait(self) -> bool:
        """See World."""
        return True

    def condition(self) -> Condition:
        """See World."""
        return threading.Condition(self._lock)


def fresh_server(folder: Path) -> str:
    """A server of its own in real time, by the URL of a client. Each connection of that URL is the same client's."""
    take_over()
    world = RealWorld()
    dice = random.Random(0)
    server = Server(folder, world, dice)
    return address(server, Client("test"), world, dice)
