"""When an order is to be acted on. Pure: no I/O, no event loop, and no clock but a value that is passed in.

`conditions` says when an order's condition is met, `book` holds the resting orders so that a price touches only
those it triggers, `prices` keeps the latest price and the chain's clock, `breaker` notices a price that jumps,
and `decision` turns facts into actions.
"""
