"""`keeper run`: the daemon, as `keeper.commands.service` runs it under a supervisor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from keeper.commands import options
from keeper.domain.errors import JournalError, KeeperError, Misconfigured, first_of

if TYPE_CHECKING:
    from keeper.app.wiring import Ready


@options.takes_settings(*options.FLAGS)
def run(
    given: options.Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line when ready.")] = False,
) -> None:
    """Run the keeper until SIGTERM or Ctrl-C, which end it with exit code 0 at any time."""
    import anyio

    from keeper.commands import service
    from keeper.telemetry.logs import configure_logs

    def announce(ready: Ready) -> None:
        if as_json:
            line = {"http_url": ready.http_url, "keeper": str(ready.keeper), "program_id": str(ready.program.id)}
            print(json.dumps(line), flush=True)
        else:
            print(f"The keeper {ready.keeper} has its API at {ready.http_url} and is {ready.summary()}.", flush=True)

    settings = given.settings()
    configure_logs(settings.log.level, settings.log.format)
    failure: BaseException | None = None
    try:
        anyio.run(service.serve, settings, given.settings, announce)
    except* JournalError as group:
        # A keeper that runs waits until its journal can be written again; one that starts can't use it as it is.
        failure = Misconfigured(str(first_of(group)))
    except* KeeperError as group:
        failure = first_of(group)
    # Not raised in there: Python before 3.11.4, which Debian 12 has, puts a group around what is.
    if failure is not None:
        raise failure
