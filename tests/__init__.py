"""A package, so that the tests of several folders can share `tests.support` and `tests.chaos`."""
