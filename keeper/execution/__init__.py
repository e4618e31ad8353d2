"""The life of one attempt: build, journal, send, rebroadcast, confirm, classify, retry or record.

Start at `lifecycle` (which states follow which), `fates` (what an end means and what is done about it: the
retry policy), then `executor` (the way out), `lander` (the way to a verdict) and `settlement` (the verdict's
consequences). `engine` connects them with the decision.
"""
