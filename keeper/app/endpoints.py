"""The endpoints, streams and senders that the settings name, each with a label that health and metrics may show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from pydantic import SecretStr
from solders.pubkey import Pubkey

from keeper.config.sources import RpcSettings
from keeper.domain.errors import Misconfigured
from keeper.domain.urls import in_url
from keeper.solana.rpc import Endpoint, Transport
from keeper.solana.senders import Sender, SenderKind
from keeper.solana.sockets import Connect
from keeper.solana.sources import SocketSource, Source

_JITO_PATH: Final = "/api/v1/transactions"
"""Where a block engine takes single transactions."""
_SEND_WITHIN_S: Final = 5.0
_SHORTEST_KEY: Final = 8
"""So many characters at least: shorter parts of a URL are words."""


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


def sources_of(settings: RpcSettings, connect: Connect) -> list[Source]:
    """Where news comes from: the streams, and each endpoint's socket. Misconfigured when one is no URL."""
    return streams_of(settings) + [SocketSource(each.label, each.ws_url, connect) for each in endpoints_of(settings)]


def streams_of(settings: RpcSettings) -> list[Source]:
    """The streams beside the sockets. Misconfigured when one is no URL."""
    sources: list[Source] = []
    for i, stream in enumerate(settings.streams):
        # What it loads is loaded by those who have such a stream.
        from keeper.solana.geyser import GeyserSource

        url = _url(f"rpc.streams[{i}].url", stream.url)
        if url.path not in ("", "/") or url.query:
            raise Misconfigured(
                f"The setting rpc.streams[{i}].url has more than a host and a port.",
                remedy="Give one like https://host:443, and the token as rpc.streams token.",
            )
        port = url.port or (443 if url.scheme == "https" else 80)
        token = None if stream.token is None else stream.token.get_secret_value()
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Misconfigured(f"rpc.streams[{i}].token is no token.", remedy="Take what your provider wrote.")
        sources.append(GeyserSource(f"stream-{i + 1}", f"{url.hostname}:{port}", url.scheme == "https", token))
    return sources


def senders_of(settings: RpcSettings, transport: Callable[..., Transport]) -> list[Sender]:
    """The senders, in the settings' order. Misconfigured when one has no URL."""
    senders: list[Sender] = []
    for i, each in enumerate(settings.senders):
        url = _url(f"rpc.senders[{i}].url", each.url)
        if each.kind == "jito" and url.path in ("", "/"):
            url = url._replace(path=_JITO_PATH)
        token = "" if each.token is None else each.token.get_secret_value()
        headers = {"headers": {each.header: token}} if token else {}
        endpoint = Endpoint(each.name, transport(urlunsplit(url), each.name, **headers))
        accounts = [Pubkey.from_string(address) for address in each.tip_accounts]
        deadline_s = min(_SEND_WITHIN_S, settings.deadline_s)
        secrets = _secrets_of(url, token)
        senders.append(Sender(SenderKind(each.kind), endpoint, accounts, deadline_s=deadline_s, secrets=secrets))
    return senders


def _secrets_of(url: SplitResult, token: str) -> list[str]:
    """What of a URL may be a key, beside the token: providers put it into the query, the path or the user's name."""
    parts = [value for _, value in parse_qsl(url.query)] + url.path.split("/")
    found = [part for part in (*parts, url.username, url.password) if part and len(part) >= _SHORTEST_KEY]
    return [token, *found] if token else found


def _url(setting: str, secret: SecretStr) -> SplitResult:
    remedy = "Give one like http://127.0.0.1:8899."
    try:
        parts = urlsplit(secret.get_secret_value())
        _ = parts.port
    except ValueError:
        raise Misconfigured(f"The setting {setting} is not a URL.", remedy=remedy) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(f"The setting {setting} is not an http or https URL.", remedy=remedy)
    return parts


def _endpoint(label: str, setting: str, secret_url: SecretStr, ws_url: SecretStr | None) -> EndpointUrls:
    parts = _url(setting, secret_url)
    host_name, port = parts.hostname or "", parts.port
    if ws_url is None:
        # solana-test-validator, keeper localnet and Agave serve WebSocket on the port after the HTTP one;
        # providers, whose URLs name no port, serve it at the same host.
        host = in_url(host_name)
        netloc = f"{host}:{port + 1}" if port is not None else host
        user = parts.netloc.rpartition("@")[0]
        netloc = f"{user}@{netloc}" if user else netloc
        scheme = "wss" if parts.scheme == "https" else "ws"
        socket = urlunsplit((scheme, netloc, parts.path, parts.query, ""))
    else:
        socket = ws_url.get_secret_value()
        if urlsplit(socket).scheme not in ("ws", "wss"):
            raise Misconfigured(f"The WebSocket URL beside {setting} is not a ws or wss URL.", remedy="Set rpc.ws_url.")
    host_shown = host_name if port is None else f"{host_name}:{port}"
    return EndpointUrls(label, host_shown, secret_url.get_secret_value(), socket)
