"""The HTTP API: what wallets, scripts, pages and probes ask of a keeper.

It knows the journal, the book and the order builder; never the executor's insides, the settings or the application.
What it needs of the rest of the keeper is in `ports`, every route in `routes`; `run_api` serves them.
"""
