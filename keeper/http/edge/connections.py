"""Who may be connected: so many in all and from one address, for as long as they say something.

A connection costs a descriptor, and the chain's sockets and the journal's files need descriptors, too. So the API takes
no more than leave enough for them. When it has as many as it may, the one that has kept silent for longest goes; only
when every connection is at work is a new one turned away, and then a few more are let in to ask how the keeper is: a
supervisor that can't ask takes a working keeper for a dead one.
"""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

SET_ASIDE: Final = 256
"""Descriptors that are never the API's: sockets to nodes, the journal's files, listeners, logs."""
_FOR_PROBES: Final = 16
_V6_NETWORK_BITS: Final = 64

_log: Any = structlog.get_logger("keeper.http")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on connections. `head_s`: in how many seconds a connection has to begin a request, counted from its start
    and from each answer's end. Connections of `proxies` (networks) are not counted by address.
    """

    total: int = 4_000
    per_address: int = 500
    head_s: float = 15.0
    proxies: Sequence[str] = ()


class Connection(Protocol):
    """What is known here of a connection."""

    def close(self) -> None:
        """End it now, with nothing said."""


class Connections:
    """Every connection of the API with its client's network, and the silent ones by how long they have been so."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.head_s = limits.head_s
        wanted = limits.total + SET_ASIDE + _FOR_PROBES
        self._most = min(limits.total, _descriptors(wanted) - SET_ASIDE - _FOR_PROBES)
        self._per_address = limits.per_address
        self._proxies = [ipaddress.ip_network(proxy) for proxy in limits.proxies]
        self._open: dict[Connection, str] = {}
        self._by_network: Counter[str] = Counter()
        self._silent: OrderedDict[Connection, None] = OrderedDict()
        if self._most < limits.total:
            _log.warning("http.fewer_connections", most=self._most, wanted=limits.total)

    def __repr__(self) -> str:
        return f"Connections({len(self._open)} of {self._most}, {len(self._silent)} silent)"

    def admits(self, address: str) -> bool:
        """Whether one more from this address may come. It may cost a silent one its place."""
        if self._by_network[network_of(address)] >= self._per_address and not self._is_proxy(address):
            return False
        if len(self._open) >= self._most and self._silent:
            oldest = next(iter(self._silent))
            self.closed(oldest)
            oldest.close()
        return len(self._open) < self._most + _FOR_PROBES

    def opened(self, connection: Connection, address: str) -> bool:
        """One more, silent as yet. True when it has one of the places for those who ask how the keeper is."""
        network = network_of(address)
        self._open[connection] = network
        self._by_network[network] += 1
        self._silent[connection] = None
        return len(self._open) > self._most

    def closed(self, connection: Connection) -> None:
        """One less; nothing when that was known."""
        network = self._open.pop(connection, None)
        if network is not None:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
            self._silent.pop(connection, None)

    def speaks(self, connection: Connection) -> None:
        """It has sent a request's head."""
        self._silent.pop(connection, None)

    def falls_silent(self, connection: Connection) -> None:
        """Its request is answered."""
        if connection in self._open:
            self._silent[connection] = None

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def network_of(address: str) -> str:
    """Who an address belongs to: of IPv6 the network counts, because one host has all the addresses in it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, _V6_NETWORK_BITS), strict=False))
    return address


def _descriptors(wanted: int) -> int:
    """How many descriptors the process may have, after asking for as many as are wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft
