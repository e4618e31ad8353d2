"""The venue as the rest of the keeper meets it."""
