"""`keeper check`: is this set-up one that the keeper can run with, and if not, what is to be changed?

`suite.look` is all of it. The lines come in the order of cause and effect, so that the first one that fails names
the cause; what can't be looked at because of it is left out. Nothing is changed: no journal is made or migrated,
and nothing is sent.
"""
