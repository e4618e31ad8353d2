"""The HTTP API: what wallets, scripts, pages and probes ask of a keeper.

It knows the journal, the book and the order builder; never the executor's insides, the settings or the
application. What it needs of the rest of the keeper is written down in `ports`; `create_api` turns those ports
into an ASGI application and `serve` runs it inside the keeper's own task group.
"""
