"""The numbered behaviours of the keeper, each shown on the real application. `docs/behaviours.md` is the table."""
