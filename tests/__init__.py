"""A package, and so is each folder in it: helpers are imported by their whole name (`tests.http.http_world`)."""
