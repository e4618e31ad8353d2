"""The parts of the suite, one file each: `measure` gives figures that go into `results.json` as they are."""
