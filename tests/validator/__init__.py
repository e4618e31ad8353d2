"""The main job from outside, on any RPC: real `keeper run` processes, the HTTP API, and JSON-RPC; nothing else.

`pytest --rpc-url URL --ws-url URL` says which chain. Without it the tests start a solana-test-validator, if there is
one on the PATH, and are skipped if not. They wait for states, with bounds that a slow chain keeps, never for a time.
"""
