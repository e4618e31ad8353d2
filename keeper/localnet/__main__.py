"""`python -m keeper.localnet`: see `cli`."""

import sys

from keeper.localnet.cli import main

sys.exit(main())
