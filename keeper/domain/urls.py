"""Addresses as URLs have them."""

from __future__ import annotations


def in_url(host: str) -> str:
    """A host's name or address as it stands in a URL: an IPv6 address has brackets there (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host
