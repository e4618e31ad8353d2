"""An embedded Solana chain for Python: a real VM behind JSON-RPC and WebSocket, as a validator speaks.

`Localnet` serves one in this process; `python -m keeper.localnet` serves one by itself. It knows nothing of
the rest of the keeper.
"""

from keeper.localnet.bank import Bank, BankSettings
from keeper.localnet.commitment import Commitment
from keeper.localnet.config import LocalnetConfig
from keeper.localnet.localnet import Localnet

__all__ = ["Bank", "BankSettings", "Commitment", "Localnet", "LocalnetConfig"]
