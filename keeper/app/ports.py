"""What the API has of a keeper's life, whether that works or stands by."""

from __future__ import annotations

from solders.pubkey import Pubkey

from keeper.app import limits
from keeper.app.life import Life
from keeper.app.opening import name_of
from keeper.app.wallets import bearers
from keeper.http.edge.clients import Tokens
from keeper.http.edge.elsewhere import Seal, elsewhere
from keeper.http.ports import ApiPorts, Desk, HealthReport, Relay
from keeper.journal import Followed


def ports_of(
    life: Life,
    journal: Followed,
    desk: Desk,
    relay: Relay,
    health: HealthReport,
    share: frozenset[Pubkey] | None,
) -> ApiPorts:
    """The ports that both have; what is one's own is added by it. `share` are the markets that the keeper works on:
    None is all, and one that stands by has none.
    """
    name = name_of(life.settings)
    return ApiPorts(
        program=life.program,
        client=life.users,
        blockhashes=life.blockhashes,
        journal=journal,
        desk=desk,
        relay=relay,
        health=health,
        metrics=life.telemetry.metrics.registry,
        instruments=life.instruments,
        keeper_pubkey=life.venue.keeper,
        limits=limits.api_limits(life.settings),
        tokens=Tokens(bearers(life.settings.managed)),
        operators=limits.operators(life.settings),
        public_url=life.settings.http.public_url,
        consensus=lambda: life.client.consensus.name,
        slot_s=lambda: life.client.pool.pace.slot_s if life.client.pool.pace.measured else None,
        name=name,
        elsewhere=None if share is None else elsewhere(lambda: journal.leases, name, share),
        seal=Seal(life.signer.secret_for("forwarding")),
    )
