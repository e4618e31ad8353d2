"""The benchmarks: each part measures one thing and returns its figures; see `docs/performance.md`."""
