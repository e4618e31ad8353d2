"""The page of the API in a browser."""
