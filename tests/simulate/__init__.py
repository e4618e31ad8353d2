"""The whole keeper in virtual time: one seed is one run, to the byte (docs/simulation.md)."""
