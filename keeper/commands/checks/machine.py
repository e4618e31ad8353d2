"""What can be looked at without the chain: the key, the journal, the port."""

from __future__ import annotations

import shutil
from typing import Final

from keeper.app.wallets import load_signer
from keeper.commands.checks.lines import Lines
from keeper.commands.remote import is_keeper, url_of
from keeper.config.settings import HttpSettings, JournalSettings, KeySettings
from keeper.domain.errors import JournalError, KeeperError
from keeper.http.edge.server import listen
from keeper.journal import Inspection, home_of
from keeper.solana.transactions import Signer

_LEAST_FREE_BYTES: Final = 1 << 30


def key(settings: KeySettings, lines: Lines) -> Signer | None:
    """The key file: there, a keypair, and nobody else's to read."""
    signer = lines.try_to("key", lambda: load_signer(settings))
    if signer is not None:
        lines.passed("key", f"{settings.file} is the key of {signer.address}")
    return signer


def port(settings: HttpSettings, lines: Lines) -> bool:
    """The API's address: free, or a keeper answers there. Whether a keeper does."""
    if settings.port and is_keeper(url_of(settings)):
        lines.passed("api", f"a keeper is running, and answers at {url_of(settings)}")
        return True
    socket = lines.try_to("api", lambda: listen(settings.host, settings.port))
    if socket is not None:
        socket.close()
        lines.passed("api", f"port {settings.port or '(any)'} on {settings.host} is free")
    return False


def journal(settings: JournalSettings, lines: Lines, *, keeper_runs: bool) -> Inspection | None:
    """The journal: writable, nobody else's, of a version that this keeper reads."""
    path = settings.path.absolute()
    try:
        home = home_of(settings.place)
        found = home.inspect()
    except KeeperError as e:
        lines.refused("journal", e, remedy="" if isinstance(e, JournalError) else "Check journal.path, or journal.url.")
        return None
    if found.holder is not None and not keeper_runs:
        lines.fail("journal", found.holder, "If that is no keeper of yours, set journal.path to another file.")
        return found
    if found.version is None:
        lines.passed("journal", f"{home.name} will be made")
    elif found.version < found.newest:
        lines.warn(
            "journal",
            f"{home.name} has version {found.version}; the start brings it to {found.newest}, and there is no way back",
            f"Back it up first: keeper journal backup {path}.before",
        )
    else:
        lines.passed("journal", f"{home.name} is writable, version {found.version}, {found.size_bytes / 1e6:.1f} MB")
    free = _LEAST_FREE_BYTES if settings.url is not None else shutil.disk_usage(path.parent).free
    if free < _LEAST_FREE_BYTES:
        lines.warn("disk", f"{free / 1e6:.0f} MB are free in {path.parent}", "Make room: a full disk stops sending.")
    for stop in ("paused", "fill_without_position"):
        if stop in found.meta:
            lines.warn("paused", f"the journal says: {found.meta[stop]}", "keeper resume lifts it.")
    return found
