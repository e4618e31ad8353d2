"""The routes, one file a resource. They read the request, ask, and answer; the rules are elsewhere."""
