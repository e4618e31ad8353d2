"""The wiring diagram, and what makes the rooms' parts of the settings. `wiring.run` is the keeper."""
