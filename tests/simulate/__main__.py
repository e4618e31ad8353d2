"""`python -m tests.simulate --episodes N --seed S`: see docs/simulation.md."""

from __future__ import annotations

import sys

from tests.simulate import dice, planting

dice.take_over()  # before anything of the keeper is imported
if "--plant" in sys.argv[1:-1]:
    from tests.simulate.planted import BY_NAME

    planting.plant(BY_NAME[sys.argv[sys.argv.index("--plant") + 1]])

from tests.simulate.command import main  # noqa: E402

if __name__ == "__main__":
    main()
