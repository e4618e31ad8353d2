"""A fault proxy: looks like a Solana node, forwards to one, and breaks what it was told to break.

    async with FaultProxy(net.rpc_url, net.ws_url, faults=script) as proxy:
        ... a keeper with rpc.url = proxy.rpc_url ...

Which faults, and when, is another's to say: `Script` for tests that want one certain fault, `Storm` for the
campaign. Without faults the proxy passes the same contract tests as the chain itself.
"""

from tests.chaos.proxy.faults import Fault, Faults, Kind, Script, Storm
from tests.chaos.proxy.node import FaultProxy

__all__ = ["Fault", "FaultProxy", "Faults", "Kind", "Script", "Storm"]
