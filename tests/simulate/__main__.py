"""`python -m tests.simulate --episodes N --seed S`: see docs/simulation.md."""

from __future__ import annotations

from tests.simulate import dice

dice.take_over()  # before anything of the keeper is imported

from tests.simulate.command import main  # noqa: E402

if __name__ == "__main__":
    main()
