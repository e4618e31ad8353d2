"""The RPC endpoints that the settings name, each with a label that health and metrics may show."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from keeper.config.settings import RpcSettings
from keeper.domain.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class EndpointUrls:
    """Where one endpoint is. The URLs may hold a key, and a provider's host may name its customer; `label` holds
    neither: it is `rpc`, or `fallback-1` and so on.
    """

    label: str
    host: str
    url: str = field(repr=False)
    ws_url: str = field(repr=False)


def endpoints_of(settings: RpcSettings) -> list[EndpointUrls]:
    """The endpoints, in order of preference. Misconfigured when one is no URL."""
    endpoints = [_endpoint("rpc", "rpc.url", settings.url, settings.ws_url)]
    for i, each in enumerate(settings.fallbacks):
        endpoints.append(_endpoint(f"fallback-{i + 1}", f"rpc.fallbacks[{i}]", each.url, each.ws_url))
    return endpoints


def _endpoint(label: str, setting: str, secret_url: SecretStr, ws_url: SecretStr | None) -> EndpointUrls:
    url = secret_url.get_secret_value()
    remedy = "Give one like http://127.0.0.1:8899."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Misconfigured(f"The setting {setting} is not a URL.", remedy=remedy) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(f"The setting {setting} is not an http or https URL.", remedy=remedy)
    if ws_url is None:
        # solana-test-validator, keeper localnet and Agave serve WebSocket on the port after the HTTP one;
        # providers, whose URLs name no port, serve it at the same host.
        host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
        netloc = f"{host}:{port + 1}" if port is not None else host
        user = parts.netloc.rpartition("@")[0]
        netloc = f"{user}@{netloc}" if user else netloc
        scheme = "wss" if parts.scheme == "https" else "ws"
        socket = urlunsplit((scheme, netloc, parts.path, parts.query, ""))
    else:
        socket = ws_url.get_secret_value()
        if urlsplit(socket).scheme not in ("ws", "wss"):
            raise Misconfigured(f"The WebSocket URL beside {setting} is not a ws or wss URL.", remedy="Set rpc.ws_url.")
    return EndpointUrls(label, parts.hostname if port is None else f"{parts.hostname}:{port}", url, socket)
