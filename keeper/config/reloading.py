"""What a running keeper can take up from changed settings, and what needs a restart.

Fees and the log's level are what an operator wants to change without losing a second: everything else decides how
things are wired, and a restart takes a few seconds and loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from keeper.config.settings import Settings, setting_names


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of changed settings; never their values, which may be secret. `settings` is what is in force after."""

    settings: Settings
    taken: tuple[str, ...]
    need_restart: tuple[str, ...]


def changes(running: Settings, new: Settings) -> Changes:
    """What SIGHUP changes: `taken` up now, or not before a restart."""
    changed = [name for name in setting_names() if attrgetter(name)(running) != attrgetter(name)(new)]
    taken = tuple(name for name in changed if name == "log.level" or name.startswith("fees."))
    in_force = running.model_copy(
        update={"fees": new.fees, "log": running.log.model_copy(update={"level": new.log.level})}
    )
    return Changes(in_force, taken, tuple(name for name in changed if name not in taken))
