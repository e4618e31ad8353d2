"""The reference perpetuals program, revision 0.2: its C source and the built `.so`.

Its IDL is the keeper's: `keeper/venue/idls`.

Running it needs the `.so` alone. Building it needs `ziglang` and `pyelftools` (see `build`).
"""

from pathlib import Path
from typing import Final

PROGRAM_SO: Final[Path] = Path(__file__).with_name("quantdesk_perp_dex.so")
"""The built program, as a Solana VM loads it."""

PROGRAM_ID: Final[str] = "QuantDeskPerpDex111111111111111111111111111"
"""Where the embedded chain puts the program unless told otherwise; the IDL's `address`.

A readable name: nobody holds a key to it. The program itself runs under any address.
"""
