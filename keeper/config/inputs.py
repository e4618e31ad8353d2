"""What an operator hands in, read and checked: the key, the IDL, the endpoints."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec
from pydantic import SecretStr
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.config.settings import KeySettings, ProgramSettings, RpcSettings
from keeper.errors import Misconfigured
from keeper.solana.transactions import Signer
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import Program


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint: its label is what logs and metrics may show."""

    label: str
    url: str = field(repr=False)
    ws_url: str = field(repr=False)


def load_program(settings: ProgramSettings) -> Program:
    """The program with its IDL. Misconfigured when the IDL can't be read or names no address."""
    idl = load_idl(PACKAGED.get(settings.idl, Path(settings.idl)))
    address = Pubkey.from_string(settings.id) if settings.id else idl.address
    if address is None:
        raise Misconfigured("The IDL names no program address.", remedy="Set program.id.")
    return Program(address, idl)


def load_keypair(file: Path, setting: str = "key.file") -> Keypair:
    """A keypair from the JSON that solana-keygen writes: 64 numbers. Misconfigured says what is wrong with it."""
    try:
        raw = file.read_bytes()
    except OSError as e:
        raise Misconfigured(f"The key file {file} can't be read: {e.strerror}.", remedy=f"Check {setting}.") from e
    try:
        numbers = msgspec.json.decode(raw, type=list[int])
        return Keypair.from_bytes(bytes(numbers))
    except (msgspec.MsgspecError, ValueError) as e:
        raise Misconfigured(
            f"The key file {file} is not a keypair (64 numbers in a JSON list).",
            remedy="Make one with `solana-keygen new -o FILE` or `keeper keygen FILE`.",
        ) from e


def load_signer(settings: KeySettings) -> Signer:
    """The keeper's signer."""
    if settings.file is None:
        raise Misconfigured(
            "The keeper has no key to sign with.", remedy="Set key.file (make one with `keeper keygen FILE`)."
        )
    return Signer(load_private_keypair(settings.file))


def load_private_keypair(file: Path, setting: str = "key.file") -> Keypair:
    """A keypair from a file that no other user can read or change. Misconfigured when one can."""
    keypair = load_keypair(file, setting)
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        raise Misconfigured(f"The key file {file} can be read or changed by others.", remedy=f"chmod 600 {file}")
    return keypair


def endpoints_of(settings: RpcSettings) -> list[Place]:
    """The endpoints, in order of preference, labelled by host so that no key shows."""
    places = [_place("rpc.url", settings.url, settings.ws_url)]
    places += [_place(f"rpc.fallbacks[{i}]", f.url, f.ws_url) for i, f in enumerate(settings.fallbacks)]
    seen: dict[str, int] = {}
    labelled = []
    for place in places:
        seen[place.label] = seen.get(place.label, 0) + 1
        suffix = f"#{seen[place.label]}" if seen[place.label] > 1 else ""
        labelled.append(Place(place.label + suffix, place.url, place.ws_url))
    return labelled


def _place(setting: str, url: SecretStr, ws_url: SecretStr | None) -> Place:
    try:
        parts = urlsplit(url.get_secret_value())
        port = parts.port
    except ValueError:
        raise Misconfigured(
            f"The setting {setting} is not a URL.", remedy="Give one like http://127.0.0.1:8899."
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(
            f"The setting {setting} is not an http or https URL.", remedy="Give one like http://127.0.0.1:8899."
        )
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
    label = parts.hostname if port is None else f"{parts.hostname}:{port}"
    return Place(label, url.get_secret_value(), socket)
