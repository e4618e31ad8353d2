"""Everything that speaks Solana: IDL, account layouts, instructions, RPC, subscriptions.

The only room that imports solana-py and anchorpy. Foreign errors are translated here, once, into
`keeper.errors`. It knows the domain and the errors, nobody else.
"""
